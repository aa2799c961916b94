package wasmill

import "encoding/json"

// Form is how rows leave by a port: the smallest that says it.
type Form uint8

// Forms of rows.
const (
	Unchanged Form = iota
	Keep
	Values
	Rows
)

// Emission is what leaves by one port.
type Emission struct {
	Port    uint16
	Form    Form
	Bits    []uint64
	Times   []int64
	Keys    Column
	Values  Column
	Origins []uint32
}

// Rejected is an event that goes to the dead letters.
type Rejected struct {
	Row    uint32
	Reason string
}

type kind uint8

const (
	ofInput kind = iota
	ofTimers
	ofWatermark
)

type out struct {
	origins           []uint32
	forwarded         []bool
	values, keys      Column
	times             []int64
	ownKeys, ownTimes bool
	anyForwarded      int
}

type mark struct {
	rows, values, keys, forwarded int
}

type timerChange struct {
	clock    Clock
	key, tag []byte
	at       int64
	deletes  bool
}

// Context emits rows, sets timers, asks for the time. Rows leave by the first port unless told.
type Context struct {
	setup    *Setup
	kind     kind
	count    int
	event    Event
	ports    []out
	marks    []mark
	rejected []Rejected
	timers   []timerChange
	settled  int
	now      [2]*int64
}

func newContext(setup *Setup, kind kind, count int) *Context {
	ports := len(setup.Outputs)
	return &Context{setup: setup, kind: kind, count: count, ports: make([]out, ports), marks: make([]mark, ports)}
}

// Row is one to emit by hand: what is left out is the event's.
type Row struct {
	Value []byte
	Key   []byte
	Time  *int64
	Port  int
}

// Forward lets the event out as it came in.
func (c *Context) Forward() { c.ForwardTo(0) }

// ForwardTo lets the event out by another port.
func (c *Context) ForwardTo(port int) {
	if c.kind != ofInput {
		panic("only events can be forwarded: a timer or a watermark emits rows")
	}
	c.add(Row{Value: c.event.Value, Port: port}, true)
}

// Emit emits a value, with the key and time of the event.
func (c *Context) Emit(value []byte) { c.add(Row{Value: value}, false) }

// EmitText emits text.
func (c *Context) EmitText(value string) { c.add(Row{Value: []byte(value)}, false) }

// EmitJSON emits a value as JSON.
func (c *Context) EmitJSON(value any) error {
	text, err := json.Marshal(value)
	if err == nil {
		c.Emit(text)
	}
	return err
}

// EmitTo emits a value by another port.
func (c *Context) EmitTo(port int, value []byte) { c.add(Row{Value: value, Port: port}, false) }

// EmitRow emits a row with a key, a time or a port of its own.
func (c *Context) EmitRow(row Row) { c.add(row, false) }

func (c *Context) add(row Row, forwarded bool) {
	if row.Port < 0 || row.Port >= len(c.ports) {
		panic("no such output port; this operator declares " + join(c.setup.Outputs))
	}
	port := &c.ports[row.Port]
	port.origins = append(port.origins, uint32(c.event.Row))
	port.forwarded = append(port.forwarded, forwarded)
	port.values.Push(row.Value)
	if row.Key != nil {
		port.ownKeys = true
		port.keys.Push(row.Key)
	} else {
		port.keys.Push(c.event.Key)
	}
	time := c.event.Time
	if row.Time != nil {
		port.ownTimes, time = true, *row.Time
	}
	port.times = append(port.times, time)
	if forwarded {
		port.anyForwarded++
	}
}

func join(names []string) string {
	text := ""
	for i, name := range names {
		if i > 0 {
			text += ", "
		}
		text += name
	}
	return text
}

// Reject rejects an event, in a Batch. Rows that come from it do not leave.
func (c *Context) Reject(event Event, reason string) {
	c.rejected = append(c.rejected, Rejected{uint32(event.Row), cut(reason)})
}

// Enter makes an event the one at hand, in a Batch.
func (c *Context) Enter(event Event) {
	c.event = event
	c.setup.shared.enter(event.Key)
	c.settled = len(c.timers)
	for i := range c.ports {
		port := &c.ports[i]
		c.marks[i] = mark{len(port.origins), len(port.values.Data), len(port.keys.Data), port.anyForwarded}
	}
}

func (c *Context) undo(err error) {
	c.setup.shared.undo()
	c.timers = c.timers[:c.settled]
	for i, mark := range c.marks {
		port := &c.ports[i]
		port.origins, port.forwarded, port.times = port.origins[:mark.rows], port.forwarded[:mark.rows], port.times[:mark.rows]
		port.values = Column{port.values.Ends[:mark.rows], port.values.Data[:mark.values]}
		port.keys = Column{port.keys.Ends[:mark.rows], port.keys.Data[:mark.keys]}
		port.anyForwarded = mark.forwarded
	}
	c.Reject(c.event, err.Error())
}

// Now is the time by a clock, in microseconds since the Unix epoch: the watermark of the stage, or the
// wall clock at the start of the call.
func (c *Context) Now(clock Clock) int64 {
	if c.now[clock] == nil {
		now := c.setup.shared.host.Now(clock)
		c.now[clock] = &now
	}
	return *c.now[clock]
}

// SetTimer sets a timer for the key of the event. One per clock, key and tag: setting it again moves it.
func (c *Context) SetTimer(clock Clock, at int64, tag string) {
	c.timers = append(c.timers, timerChange{clock, []byte(c.setup.shared.current()), []byte(tag), at, false})
}

// DeleteTimer deletes a timer of the event's key.
func (c *Context) DeleteTimer(clock Clock, tag string) {
	c.timers = append(c.timers, timerChange{clock, []byte(c.setup.shared.current()), []byte(tag), 0, true})
}

func (c *Context) sendTimers() {
	for start := 0; start < len(c.timers); {
		first := c.timers[start]
		var keys, tags Column
		var times []int64
		end := start
		for ; end < len(c.timers) && c.timers[end].clock == first.clock && c.timers[end].deletes == first.deletes; end++ {
			keys.Push(c.timers[end].key)
			tags.Push(c.timers[end].tag)
			times = append(times, c.timers[end].at)
		}
		if first.deletes {
			c.setup.shared.host.DeleteTimers(first.clock, keys, tags)
		} else {
			c.setup.shared.host.SetTimers(first.clock, keys, tags, times)
		}
		start = end
	}
}

func (c *Context) emissions() []Emission {
	var emissions []Emission
	for i := range c.ports {
		port := &c.ports[i]
		if len(port.origins) == 0 {
			continue
		}
		emission := Emission{Port: uint16(i), Form: Rows, Values: port.values, Origins: port.origins}
		switch {
		case c.kind == ofInput && !port.ownKeys && !port.ownTimes && port.ascending():
			if port.anyForwarded == len(port.origins) {
				emission = c.kept(i)
			} else if port.anyForwarded == 0 && len(port.origins) == c.count {
				emission.Form, emission.Origins = Values, nil
			}
		case c.kind == ofWatermark:
			emission.Origins = nil
		}
		if emission.Form == Rows {
			if port.ownKeys {
				emission.Keys = port.keys
			}
			if port.ownTimes {
				emission.Times = port.times
			}
		}
		emissions = append(emissions, emission)
	}
	return emissions
}

func (c *Context) kept(i int) Emission {
	port := &c.ports[i]
	if len(port.origins) == c.count {
		return Emission{Port: uint16(i), Form: Unchanged}
	}
	bits := make([]uint64, (c.count+63)/64)
	for _, row := range port.origins {
		bits[row/64] |= 1 << (row % 64)
	}
	return Emission{Port: uint16(i), Form: Keep, Bits: bits}
}

func (o *out) ascending() bool {
	for i := 1; i < len(o.origins); i++ {
		if o.origins[i-1] >= o.origins[i] {
			return false
		}
	}
	return true
}
