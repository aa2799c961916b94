package wasmill

// Setup declares state and metrics. The same configuration declares the same.
type Setup struct {
	// Outputs are names of the output ports, the default first; may be replaced.
	Outputs []string
	shared  *shared
	metrics []func(Host)
}

// A Counter only grows.
type Counter struct {
	setup *Setup
	name  string
}

// Counter declares a number that only grows.
func (s *Setup) Counter(name string) Counter { return Counter{s, name} }

// Add adds to it.
func (c Counter) Add(delta uint64) {
	c.setup.metrics = append(c.setup.metrics, func(host Host) { host.Add(c.name, delta) })
}

// A Gauge goes up and down.
type Gauge struct {
	setup *Setup
	name  string
}

// Gauge declares a number that goes up and down.
func (s *Setup) Gauge(name string) Gauge { return Gauge{s, name} }

// Set sets it.
func (g Gauge) Set(value float64) {
	g.setup.metrics = append(g.setup.metrics, func(host Host) { host.Set(g.name, value) })
}

// A Histogram is the distribution of what is observed.
type Histogram struct {
	setup *Setup
	name  string
}

// Histogram declares a distribution.
func (s *Setup) Histogram(name string) Histogram { return Histogram{s, name} }

// Observe records one observation.
func (h Histogram) Observe(value float64) {
	h.setup.metrics = append(h.setup.metrics, func(host Host) { host.Observe(h.name, value) })
}
