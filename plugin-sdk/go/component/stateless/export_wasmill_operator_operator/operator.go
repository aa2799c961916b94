// Package export_wasmill_operator_operator implements an export.
package export_wasmill_operator_operator

import (
	"wasmill"
	"wit_component/shared"
	"wit_component/wasmill_operator_types"
)

// Process handles rows.
func Process(port uint16, input wasmill_operator_types.Batch) shared.Outcome {
	batch := wasmill.Batch{Port: port, Times: input.Times, Keys: shared.In(input.Keys), Values: shared.In(input.Values)}
	return shared.Emitted(shared.Driver.Process(&batch))
}

// Flush has nothing to write: state is written at the end of each call.
func Flush() shared.Done { return shared.Finished(nil) }
