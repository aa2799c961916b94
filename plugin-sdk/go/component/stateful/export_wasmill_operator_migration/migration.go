// Package export_wasmill_operator_migration implements an export.
package export_wasmill_operator_migration

import (
	witTypes "go.bytecodealliance.org/pkg/wit/types"

	"wit_component/shared"
	"wit_component/wasmill_operator_migration"
)

type migrated = wasmill_operator_migration.Migrated

// Migrate turns entries of an older schema version into those of today.
func Migrate(space uint16, fromVersion uint32, entries wasmill_operator_migration.Entries) witTypes.Result[migrated, shared.Failure] {
	made, dropped, err := shared.Driver.Migrate(space, fromVersion, shared.In(entries.Keys), shared.In(entries.Values))
	if err != nil {
		return witTypes.Err[migrated, shared.Failure](shared.Fail(err))
	}
	return witTypes.Ok[migrated, shared.Failure](migrated{Values: shared.Out(made), Dropped: dropped})
}
