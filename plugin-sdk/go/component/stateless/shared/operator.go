package shared

import (
	witTypes "go.bytecodealliance.org/pkg/wit/types"

	"wasmill"
	"wit_component/plugin"
	"wit_component/wasmill_operator_types"
)

// Driver is the open operator of this component.
var Driver *wasmill.Driver

// Open opens the operator.
func Open(config []byte) (*wasmill.Driver, error) {
	return plugin.Plugin.Open(config, Host{}, Stateful)
}

// Outcome is the result of a call that emits.
type Outcome = witTypes.Result[wasmill_operator_types.Outcome, Failure]

// Emitted makes a result of what a call emits.
func Emitted(emissions []wasmill.Emission, rejected []wasmill.Rejected, err error) Outcome {
	if err != nil {
		return witTypes.Err[wasmill_operator_types.Outcome, Failure](Fail(err))
	}
	out := make([]wasmill_operator_types.Emission, len(emissions))
	for i, one := range emissions {
		out[i].Port = one.Port
		switch one.Form {
		case wasmill.Unchanged:
			out[i].Output = wasmill_operator_types.MakeOutputUnchanged()
		case wasmill.Keep:
			out[i].Output = wasmill_operator_types.MakeOutputKeep(one.Bits)
		case wasmill.Values:
			out[i].Output = wasmill_operator_types.MakeOutputValues(Out(one.Values))
		case wasmill.Rows:
			out[i].Output = wasmill_operator_types.MakeOutputRows(wasmill_operator_types.Rows{
				Batch:   wasmill_operator_types.Batch{Times: one.Times, Keys: Out(one.Keys), Values: Out(one.Values)},
				Origins: one.Origins,
			})
		}
	}
	return witTypes.Ok[wasmill_operator_types.Outcome, Failure](
		wasmill_operator_types.Outcome{Emissions: out, Rejected: RejectedRows(rejected)})
}
