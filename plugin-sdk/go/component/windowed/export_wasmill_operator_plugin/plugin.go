// Package export_wasmill_operator_plugin implements an export.
package export_wasmill_operator_plugin

import (
	"wasmill"
	"wit_component/plugin"
	"wit_component/shared"
)

// Describe says what the plugin is.
func Describe(config []uint8) shared.Described {
	return shared.Describe(config, func(config []byte) (wasmill.Descriptor, error) {
		_, err := plugin.Plugin.OpenAggregate(config)
		return plugin.Plugin.Blank(), err
	})
}

// Open opens the aggregate.
func Open(config []uint8) shared.Done {
	driver, err := plugin.Plugin.OpenAggregate(config)
	shared.Driver = driver
	return shared.Finished(err)
}
