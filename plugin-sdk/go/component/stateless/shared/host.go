package shared

import "wasmill"

// Stateful says whether the world has state and timers.
const Stateful = false

// Host is what the operator stands on. Of state and timers there are none in this world.
type Host struct {
	Metrics
	wasmill.Host
}

// Add adds to a counter.
func (Host) Add(name string, delta uint64) { Metrics{}.Add(name, delta) }

// Set sets a gauge.
func (Host) Set(name string, value float64) { Metrics{}.Set(name, value) }

// Observe records one observation.
func (Host) Observe(name string, value float64) { Metrics{}.Observe(name, value) }
