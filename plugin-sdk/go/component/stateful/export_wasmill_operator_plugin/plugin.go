// Package export_wasmill_operator_plugin implements an export.
package export_wasmill_operator_plugin

import (
	"wasmill"
	"wit_component/shared"
)

// Describe says what the plugin is.
func Describe(config []uint8) shared.Described {
	return shared.Describe(config, func(config []byte) (wasmill.Descriptor, error) {
		driver, err := shared.Open(config)
		if err != nil {
			return wasmill.Descriptor{}, err
		}
		return driver.Descriptor, nil
	})
}

// Open opens the operator.
func Open(config []uint8) shared.Done {
	driver, err := shared.Open(config)
	shared.Driver = driver
	return shared.Finished(err)
}
