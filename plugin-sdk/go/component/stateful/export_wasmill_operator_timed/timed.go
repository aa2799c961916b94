// Package export_wasmill_operator_timed implements an export.
package export_wasmill_operator_timed

import (
	"wasmill"
	"wit_component/shared"
	"wit_component/wasmill_operator_timed"
)

// OnTimers handles timers that are due.
func OnTimers(clock uint8, fired wasmill_operator_timed.Firings) shared.Outcome {
	keys, tags := shared.In(fired.Keys), shared.In(fired.Tags)
	return shared.Emitted(shared.Driver.OnTimers(wasmill.Clock(clock), fired.Times, keys, tags))
}

// OnWatermark hears that the watermark has risen.
func OnWatermark(watermark int64) shared.Outcome {
	return shared.Emitted(shared.Driver.OnWatermark(watermark))
}
