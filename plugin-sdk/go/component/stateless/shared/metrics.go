package shared

import "wit_component/wasmill_operator_metrics"

// Metrics hands metrics to the host.
type Metrics struct{}

// Add adds to a counter.
func (Metrics) Add(name string, delta uint64) { wasmill_operator_metrics.Add(name, delta) }

// Set sets a gauge.
func (Metrics) Set(name string, value float64) { wasmill_operator_metrics.Set(name, value) }

// Observe records one observation.
func (Metrics) Observe(name string, value float64) { wasmill_operator_metrics.Observe(name, value) }
