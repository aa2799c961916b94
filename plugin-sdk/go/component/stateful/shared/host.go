package shared

import (
	"wasmill"
	"wit_component/wasmill_operator_state"
	"wit_component/wasmill_operator_timers"
)

// Stateful says whether the world has state and timers.
const Stateful = true

// Host is what the operator stands on.
type Host struct{ Metrics }

// GetMany looks entries up.
func (Host) GetMany(space uint16, keys, subkeys wasmill.Column) ([]uint64, wasmill.Column) {
	found, values := wasmill_operator_state.GetMany(space, Out(keys), Out(subkeys))
	return found, In(values)
}

// PutMany writes entries.
func (Host) PutMany(space uint16, keys, subkeys, values wasmill.Column) {
	wasmill_operator_state.PutMany(space, Out(keys), Out(subkeys), Out(values))
}

// DeleteMany deletes entries.
func (Host) DeleteMany(space uint16, keys, subkeys wasmill.Column) {
	wasmill_operator_state.DeleteMany(space, Out(keys), Out(subkeys))
}

// Scan lists entries of one key.
func (Host) Scan(space uint16, key, start []byte, limit uint32) (wasmill.Column, wasmill.Column) {
	subkeys, values := wasmill_operator_state.Scan(space, key, start, limit)
	return In(subkeys), In(values)
}

// Now is the time by a clock.
func (Host) Now(clock wasmill.Clock) int64 { return wasmill_operator_timers.Now(uint8(clock)) }

// SetTimers sets timers.
func (Host) SetTimers(clock wasmill.Clock, keys, tags wasmill.Column, times []int64) {
	wasmill_operator_timers.SetMany(uint8(clock), Out(keys), Out(tags), times)
}

// DeleteTimers deletes timers.
func (Host) DeleteTimers(clock wasmill.Clock, keys, tags wasmill.Column) {
	wasmill_operator_timers.DeleteMany(uint8(clock), Out(keys), Out(tags))
}
