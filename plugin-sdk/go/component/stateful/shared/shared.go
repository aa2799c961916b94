// Package shared is the glue between an operator and the generated bindings.
package shared

import (
	witTypes "go.bytecodealliance.org/pkg/wit/types"

	"wasmill"
	"wit_component/plugin"
	"wit_component/wasmill_operator_log"
	"wit_component/wasmill_operator_plugin"
	"wit_component/wasmill_operator_types"
)

// Failure is what fails a call.
type Failure = wasmill_operator_types.Failure

// Column is one of the bindings.
type Column = wasmill_operator_types.Column

func init() {
	wasmill.LogSink = func(level wasmill.Level, message string) { wasmill_operator_log.Write(uint8(level), message) }
}

// Fail makes a failure of an error.
func Fail(err error) Failure {
	failure := wasmill.AsFailure(err)
	if failure.Retry {
		return wasmill_operator_types.MakeFailureRetry(failure.Reason)
	}
	return wasmill_operator_types.MakeFailureFatal(failure.Reason)
}

// In is a column as the SDK has it.
func In(column Column) wasmill.Column { return wasmill.Column{Ends: column.Ends, Data: column.Data} }

// Out is a column as the bindings have it.
func Out(column wasmill.Column) Column { return Column{Ends: column.Ends, Data: column.Data} }

// Described is the result of a call that asks the plugin about itself.
type Described = witTypes.Result[wasmill_operator_plugin.Descriptor, Failure]

// Describe asks the plugin about itself.
func Describe(config []byte, open func([]byte) (wasmill.Descriptor, error)) Described {
	described, err := open(config)
	if err != nil {
		// Without a configuration there is nothing wrong with one.
		if len(config) > 0 {
			return witTypes.Err[wasmill_operator_plugin.Descriptor, Failure](Fail(err))
		}
		described = plugin.Plugin.Blank()
	}
	spaces := make([]wasmill_operator_plugin.Space, len(described.Spaces))
	for i, space := range described.Spaces {
		ttl := witTypes.None[wasmill_operator_plugin.Ttl]()
		if space.TTL != nil {
			ttl = witTypes.Some(wasmill_operator_plugin.Ttl{Clock: uint8(space.TTL.Clock), Micros: space.TTL.Micros})
		}
		spaces[i] = wasmill_operator_plugin.Space{Name: space.Name, SchemaVersion: space.Version, Ttl: ttl}
	}
	return witTypes.Ok[wasmill_operator_plugin.Descriptor, Failure](wasmill_operator_plugin.Descriptor{
		Name: plugin.Name, Version: plugin.Version,
		Inputs: described.Inputs, Outputs: described.Outputs,
		Spaces: spaces, Columns: uint8(described.Columns), Watermarks: described.Watermarks,
	})
}

// Done is the result of a call that returns nothing.
type Done = witTypes.Result[witTypes.Unit, Failure]

// Finished makes a result of an error, or of none.
func Finished(err error) Done {
	if err != nil {
		return witTypes.Err[witTypes.Unit, Failure](Fail(err))
	}
	return witTypes.Ok[witTypes.Unit, Failure](witTypes.Unit{})
}

// RejectedRows are those of a call.
func RejectedRows(rejected []wasmill.Rejected) []wasmill_operator_types.Rejected {
	out := make([]wasmill_operator_types.Rejected, len(rejected))
	for i, one := range rejected {
		out[i] = wasmill_operator_types.Rejected{Row: one.Row, Reason: one.Reason}
	}
	return out
}
