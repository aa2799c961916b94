package wasmill

// Handler handles events one by one.
type Handler interface {
	// Open checks the configuration and declares state and metrics.
	Open(config *Config, setup *Setup) error
	// Event handles one event. An error rejects it.
	Event(event Event, ctx *Context) error
}

// BatchHandler handles the events of a call at once, instead of Event.
type BatchHandler interface {
	Batch(batch *Batch, ctx *Context) error
}

// TimerHandler handles timers that are due.
type TimerHandler interface {
	Timer(timer Timer, ctx *Context) error
}

// WatermarkHandler hears that the watermark has risen.
type WatermarkHandler interface {
	Watermark(watermark int64, ctx *Context) error
}

// Columns are those that an operator reads.
type Columns uint8

// Columns of events.
const (
	Times Columns = 1 << iota
	Keys
	ValuesOnly
	AllColumns = Times | Keys | ValuesOnly
)

// Definition is the plugin of a package: its variable Plugin.
type Definition struct {
	inputs, outputs []string
	columns         Columns
	operator        func() Handler
	aggregate       func() anyAggregate
}

// Operator makes a plugin of a handler.
func Operator(make func() Handler) *Definition {
	return &Definition{inputs: []string{"in"}, outputs: []string{"out"}, columns: AllColumns, operator: make}
}

// Inputs names the input ports, the default first.
func (d *Definition) Inputs(names ...string) *Definition { d.inputs = names; return d }

// Outputs names the output ports, the default first.
func (d *Definition) Outputs(names ...string) *Definition { d.outputs = names; return d }

// Reads says which columns it reads; the others do not cross into the plugin.
func (d *Definition) Reads(columns Columns) *Definition { d.columns = columns; return d }

type simple func(event Event, ctx *Context) error

func (s simple) Open(*Config, *Setup) error            { return nil }
func (s simple) Event(event Event, ctx *Context) error { return s(event, ctx) }

// Filter lets events through for which a function says so.
func Filter(keeps func(Event) (bool, error)) *Definition {
	return FlatMap(func(event Event, ctx *Context) error {
		keep, err := keeps(event)
		if keep && err == nil {
			ctx.Forward()
		}
		return err
	})
}

// MapEach makes one new value of every event.
func MapEach(change func(Event) ([]byte, error)) *Definition {
	return FlatMap(func(event Event, ctx *Context) error {
		value, err := change(event)
		if err == nil {
			ctx.Emit(value)
		}
		return err
	})
}

// FlatMap makes any number of rows of every event.
func FlatMap(change func(Event, *Context) error) *Definition {
	return Operator(func() Handler { return simple(change) })
}

// SpaceDescriptor is a named part of the state.
type SpaceDescriptor struct {
	Name    string
	Version uint32
	TTL     *TTL
}

// Descriptor is what a plugin says about itself.
type Descriptor struct {
	Inputs, Outputs []string
	Spaces          []SpaceDescriptor
	Columns         Columns
	Watermarks      bool
}

// Blank is what a plugin says about itself as long as there is no configuration to open it with.
func (d *Definition) Blank() Descriptor {
	described := Descriptor{Inputs: d.inputs, Outputs: d.outputs, Columns: d.columns}
	if d.operator != nil {
		_, described.Watermarks = d.operator().(WatermarkHandler)
	}
	return described
}

// Driver is an open operator. Not for authors.
type Driver struct {
	Descriptor Descriptor
	handler    Handler
	setup      *Setup
	stateful   bool
}

// Open opens the operator. Not for authors.
func (d *Definition) Open(config []byte, host Host, stateful bool) (driver *Driver, err error) {
	defer func() {
		if what := recover(); what != nil {
			err = caught(what)
		}
	}()
	if d.operator == nil {
		return nil, Fatal("the plugin is an aggregate: it needs world = \"windowed\" in plugin.toml")
	}
	fields, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	setup := &Setup{Outputs: d.outputs, shared: &shared{host: host}}
	handler := d.operator()
	opened := handler.Open(fields, setup)
	if fields.err != nil {
		return nil, fields.err
	}
	if opened != nil {
		return nil, opened
	}
	if err := fields.done(); err != nil {
		return nil, err
	}
	described := d.Blank()
	described.Outputs = setup.Outputs
	names := map[string]bool{}
	for _, space := range setup.shared.spaces {
		info := space.about()
		if names[info.name] {
			return nil, &ConfigError{"", "state space `" + info.name + "` is declared twice"}
		}
		names[info.name] = true
		described.Columns |= Keys
		described.Spaces = append(described.Spaces, SpaceDescriptor{info.name, info.version, info.ttl})
	}
	_, timed := handler.(TimerHandler)
	if !stateful && (len(described.Spaces) > 0 || timed || described.Watermarks) {
		return nil, &ConfigError{"", "state, timers and watermarks need world = \"stateful\" in plugin.toml"}
	}
	return &Driver{described, handler, setup, stateful}, nil
}

// Process handles rows.
func (d *Driver) Process(batch *Batch) ([]Emission, []Rejected, error) {
	ctx := newContext(d.setup, ofInput, batch.Len())
	keys := batch.Keys
	if len(keys.Ends) == 0 && ctx.count > 0 {
		keys = Column{Ends: []uint32{0}}
	}
	return d.call(ctx, keys, func() error {
		if handler, ok := d.handler.(BatchHandler); ok {
			return handler.Batch(batch, ctx)
		}
		for event := range batch.Events() {
			if err := d.one(ctx, event, func() error { return d.handler.Event(event, ctx) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// one handles one event or timer; only a failure of the call comes back.
func (d *Driver) one(ctx *Context, event Event, handle func() error) error {
	ctx.Enter(event)
	err := guarded(handle)
	if failure, ok := err.(*Failure); ok {
		return failure
	}
	if err != nil {
		ctx.undo(err)
	}
	return nil
}

func guarded(handle func() error) (err error) {
	defer func() {
		if what := recover(); what != nil {
			err = caught(what)
		}
	}()
	return handle()
}

// OnTimers handles timers that are due.
func (d *Driver) OnTimers(clock Clock, times []int64, keys, tags Column) ([]Emission, []Rejected, error) {
	ctx := newContext(d.setup, ofTimers, len(times))
	return d.call(ctx, keys, func() error {
		handler, ok := d.handler.(TimerHandler)
		if !ok {
			return Fatal("a timer is due, and the operator has no Timer method")
		}
		for i, time := range times {
			timer := Timer{clock, time, keys.Row(i), tags.Row(i)}
			event := Event{Row: i, Time: time, Key: timer.Key}
			if err := d.one(ctx, event, func() error { return handler.Timer(timer, ctx) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// OnWatermark hears that the watermark has risen.
func (d *Driver) OnWatermark(watermark int64) ([]Emission, []Rejected, error) {
	ctx := newContext(d.setup, ofWatermark, 0)
	ctx.event.Time = watermark
	return d.call(ctx, Column{}, func() error {
		if handler, ok := d.handler.(WatermarkHandler); ok {
			return handler.Watermark(watermark, ctx)
		}
		return nil
	})
}

// Migrate turns entries of an older schema version into those of today, and names those that go.
func (d *Driver) Migrate(space uint16, fromVersion uint32, keys, values Column) (made Column, dropped []uint32, err error) {
	err = guarded(func() (err error) {
		made, dropped, err = d.setup.shared.spaces[space].migrate(fromVersion, keys, values)
		return err
	})
	return made, dropped, err
}

func (d *Driver) call(ctx *Context, keys Column, work func() error) ([]Emission, []Rejected, error) {
	defer func() { d.setup.metrics = nil }()
	err := guarded(func() error {
		if d.stateful {
			d.setup.shared.begin(keys)
		}
		if err := work(); err != nil {
			return err
		}
		if d.stateful {
			d.setup.shared.finish()
			ctx.sendTimers()
		}
		return nil
	})
	if err != nil {
		return nil, nil, AsFailure(err)
	}
	for _, send := range d.setup.metrics {
		send(d.setup.shared.host)
	}
	return ctx.emissions(), ctx.rejected, nil
}
