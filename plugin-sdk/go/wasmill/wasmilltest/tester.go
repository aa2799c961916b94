// Package wasmilltest runs an operator without a host, for its author's tests.
package wasmilltest

import (
	"sort"
	"testing"

	"wasmill"
)

// Row is one that came out.
type Row struct {
	Port       int
	Time       int64
	Key, Value string
}

type entry struct {
	space       uint16
	key, subkey string
}

type timer struct {
	clock    wasmill.Clock
	key, tag string
}

// Tester is an operator with its host in its author's hands.
type Tester struct {
	// Out is what came out.
	Out []Row
	// Rejected is why events were rejected.
	Rejected []string
	// Log is what was logged.
	Log []string
	// Metrics are sums of counters, last values of gauges, counts of observations.
	Metrics map[string]float64

	t          testing.TB
	plugin     *wasmill.Definition
	config     string
	driver     *wasmill.Driver
	entries    map[entry]string
	timers     map[timer]int64
	event      int64
	processing int64
}

// New opens a plugin. A wrong configuration fails the test.
func New(t testing.TB, plugin *wasmill.Definition, config string) *Tester {
	tester := &Tester{
		t: t, plugin: plugin, config: config,
		entries: map[entry]string{}, timers: map[timer]int64{}, Metrics: map[string]float64{},
	}
	tester.Restart()
	return tester
}

// Restart goes on with the same state in a fresh instance.
func (t *Tester) Restart() {
	t.t.Helper()
	wasmill.LogSink = func(_ wasmill.Level, message string) { t.Log = append(t.Log, message) }
	driver, err := t.plugin.Open([]byte(t.config), t, true)
	if err != nil {
		t.t.Fatal(err)
	}
	t.driver = driver
}

// Migrate takes over what an older version has left in a space: keys and values in turns.
func (t *Tester) Migrate(space uint16, fromVersion uint32, entries ...string) error {
	t.t.Helper()
	var keys, values wasmill.Column
	for i := 0; i+1 < len(entries); i += 2 {
		keys.Push([]byte(entries[i]))
		values.Push([]byte(entries[i+1]))
	}
	made, dropped, err := t.driver.Migrate(space, fromVersion, keys, values)
	if err != nil {
		return err
	}
	for i := range keys.Ends {
		t.entries[entry{space, string(keys.Row(i)), ""}] = string(made.Row(i))
	}
	for _, row := range dropped {
		delete(t.entries, entry{space, string(keys.Row(int(row))), ""})
	}
	return nil
}

// Send sends one event, as a call of its own.
func (t *Tester) Send(key, value string) { t.t.Helper(); t.SendAll(0, 0, key, value) }

// SendAll sends events of one time by one port in one call: keys and values in turns.
func (t *Tester) SendAll(port uint16, time int64, events ...string) {
	t.t.Helper()
	batch := wasmill.Batch{Port: port}
	for i := 0; i+1 < len(events); i += 2 {
		batch.Times = append(batch.Times, time)
		batch.Keys.Push([]byte(events[i]))
		batch.Values.Push([]byte(events[i+1]))
	}
	emissions, rejected, err := t.driver.Process(&batch)
	t.take(emissions, rejected, err, &batch)
}

// Watermark raises the watermark: event timers fire, and the operator hears of it.
func (t *Tester) Watermark(time int64) {
	t.t.Helper()
	t.event = time
	t.fire(wasmill.EventTime, time)
	if t.driver.Descriptor.Watermarks {
		emissions, rejected, err := t.driver.OnWatermark(time)
		t.take(emissions, rejected, err, &wasmill.Batch{})
	}
}

// Wall moves the wall clock on: processing timers fire.
func (t *Tester) Wall(time int64) {
	t.t.Helper()
	t.processing = time
	t.fire(wasmill.ProcessingTime, time)
}

func (t *Tester) fire(clock wasmill.Clock, now int64) {
	for {
		var due []timer
		for one, at := range t.timers {
			if one.clock == clock && at <= now {
				due = append(due, one)
			}
		}
		if len(due) == 0 {
			return
		}
		sort.Slice(due, func(i, j int) bool { return t.timers[due[i]] < t.timers[due[j]] })
		var batch wasmill.Batch
		var tags wasmill.Column
		for _, one := range due {
			batch.Times = append(batch.Times, t.timers[one])
			batch.Keys.Push([]byte(one.key))
			tags.Push([]byte(one.tag))
			delete(t.timers, one)
		}
		emissions, rejected, err := t.driver.OnTimers(clock, batch.Times, batch.Keys, tags)
		t.take(emissions, rejected, err, &batch)
	}
}

func (t *Tester) take(emissions []wasmill.Emission, rejected []wasmill.Rejected, err error, given *wasmill.Batch) {
	t.t.Helper()
	if err != nil {
		t.t.Fatal(err)
	}
	refused := map[uint32]bool{}
	for _, one := range rejected {
		refused[one.Row] = true
		t.Rejected = append(t.Rejected, one.Reason)
	}
	for _, emission := range emissions {
		count := given.Len()
		if emission.Form == wasmill.Rows {
			count = len(emission.Values.Ends)
		}
		for i := range count {
			origin, row := i, Row{Port: int(emission.Port)}
			if emission.Form == wasmill.Rows {
				origin = -1
				if len(emission.Origins) > 0 {
					origin = int(emission.Origins[i])
				}
			}
			if origin >= 0 {
				row.Key, row.Value = string(given.Keys.Row(origin)), string(given.Values.Row(origin))
				row.Time = given.Times[origin]
			}
			switch emission.Form {
			case wasmill.Keep:
				if emission.Bits[i/64]>>(i%64)&1 == 0 {
					continue
				}
			case wasmill.Values, wasmill.Rows:
				row.Value = string(emission.Values.Row(i))
			}
			if len(emission.Keys.Ends) > 0 {
				row.Key = string(emission.Keys.Row(i))
			}
			if len(emission.Times) > 0 {
				row.Time = emission.Times[i]
			}
			if origin < 0 || !refused[uint32(origin)] {
				t.Out = append(t.Out, row)
			}
		}
	}
}

// Values are those that came out of a port.
func (t *Tester) Values(port int) []string {
	var values []string
	for _, row := range t.Out {
		if row.Port == port {
			values = append(values, row.Value)
		}
	}
	return values
}

// GetMany is for the operator.
func (t *Tester) GetMany(space uint16, keys, subkeys wasmill.Column) ([]uint64, wasmill.Column) {
	found := make([]uint64, (len(keys.Ends)+63)/64)
	var values wasmill.Column
	for i := range keys.Ends {
		value, there := t.entries[entry{space, string(keys.Row(i)), string(subkeys.Row(i))}]
		if there {
			found[i/64] |= 1 << (i % 64)
		}
		values.Push([]byte(value))
	}
	return found, values
}

// PutMany is for the operator.
func (t *Tester) PutMany(space uint16, keys, subkeys, values wasmill.Column) {
	for i := range keys.Ends {
		t.entries[entry{space, string(keys.Row(i)), string(subkeys.Row(i))}] = string(values.Row(i))
	}
}

// DeleteMany is for the operator.
func (t *Tester) DeleteMany(space uint16, keys, subkeys wasmill.Column) {
	for i := range keys.Ends {
		delete(t.entries, entry{space, string(keys.Row(i)), string(subkeys.Row(i))})
	}
}

// Scan is for the operator.
func (t *Tester) Scan(space uint16, key, start []byte, limit uint32) (subkeys, values wasmill.Column) {
	var own []string
	for one := range t.entries {
		if one.space == space && one.key == string(key) && one.subkey >= string(start) {
			own = append(own, one.subkey)
		}
	}
	sort.Strings(own)
	for _, subkey := range own[:min(len(own), int(limit))] {
		subkeys.Push([]byte(subkey))
		values.Push([]byte(t.entries[entry{space, string(key), subkey}]))
	}
	return subkeys, values
}

// Now is for the operator.
func (t *Tester) Now(clock wasmill.Clock) int64 {
	if clock == wasmill.EventTime {
		return t.event
	}
	return t.processing
}

// SetTimers is for the operator.
func (t *Tester) SetTimers(clock wasmill.Clock, keys, tags wasmill.Column, times []int64) {
	for i, time := range times {
		t.timers[timer{clock, string(keys.Row(i)), string(tags.Row(i))}] = time
	}
}

// DeleteTimers is for the operator.
func (t *Tester) DeleteTimers(clock wasmill.Clock, keys, tags wasmill.Column) {
	for i := range keys.Ends {
		delete(t.timers, timer{clock, string(keys.Row(i)), string(tags.Row(i))})
	}
}

// Add is for the operator.
func (t *Tester) Add(name string, delta uint64) { t.Metrics[name] += float64(delta) }

// Set is for the operator.
func (t *Tester) Set(name string, value float64) { t.Metrics[name] = value }

// Observe is for the operator.
func (t *Tester) Observe(name string, _ float64) { t.Metrics[name]++ }
