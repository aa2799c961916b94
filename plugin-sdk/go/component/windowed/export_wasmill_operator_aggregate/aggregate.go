// Package export_wasmill_operator_aggregate implements an export.
package export_wasmill_operator_aggregate

import (
	witTypes "go.bytecodealliance.org/pkg/wit/types"

	"wasmill"
	"wit_component/shared"
	"wit_component/wasmill_operator_aggregate"
	"wit_component/wasmill_operator_types"
)

type (
	column  = wasmill_operator_types.Column
	folded  = wasmill_operator_aggregate.Folded
	results = wasmill_operator_aggregate.Results
)

// Fold adds rows to their groups.
func Fold(accumulators column, groups []uint32, input wasmill_operator_types.Batch) witTypes.Result[folded, shared.Failure] {
	batch := wasmill.Batch{Times: input.Times, Keys: shared.In(input.Keys), Values: shared.In(input.Values)}
	made, rejected, err := shared.Driver.Fold(shared.In(accumulators), groups, &batch)
	if err != nil {
		return witTypes.Err[folded, shared.Failure](shared.Fail(err))
	}
	return witTypes.Ok[folded, shared.Failure](folded{Accumulators: shared.Out(made), Rejected: shared.RejectedRows(rejected)})
}

// Merge merges accumulators of a group, in order.
func Merge(accumulators column, groups []uint32, count uint32) witTypes.Result[column, shared.Failure] {
	made, err := shared.Driver.Merge(shared.In(accumulators), groups, count)
	if err != nil {
		return witTypes.Err[column, shared.Failure](shared.Fail(err))
	}
	return witTypes.Ok[column, shared.Failure](shared.Out(made))
}

// Finish makes results of panes.
func Finish(panes wasmill_operator_aggregate.Panes, accumulators column) witTypes.Result[results, shared.Failure] {
	values, places, err := shared.Driver.Finish(panes.Starts, panes.Ends, shared.In(panes.Keys), shared.In(accumulators))
	if err != nil {
		return witTypes.Err[results, shared.Failure](shared.Fail(err))
	}
	return witTypes.Ok[results, shared.Failure](results{Values: shared.Out(values), Panes: places})
}
