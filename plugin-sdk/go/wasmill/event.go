package wasmill

import (
	"encoding/json"
	"unicode/utf8"
)

// Event is one event of a batch.
type Event struct {
	// Row is its place in the batch.
	Row int
	// Port is the input port it came in by, from 0.
	Port uint16
	// Time is its event time in microseconds since the Unix epoch.
	Time int64
	// Key and Value are only valid during the call.
	Key, Value []byte
}

// Text is the value as text.
func (e Event) Text() (string, error) {
	if !utf8.Valid(e.Value) {
		return "", Reject("not UTF-8")
	}
	return string(e.Value), nil
}

// JSON reads the value.
func (e Event) JSON(into any) error {
	if err := json.Unmarshal(e.Value, into); err != nil {
		return Reject("not JSON: %v", err)
	}
	return nil
}

// Timer is one that is due.
type Timer struct {
	Clock Clock
	// Time is when it was due, in microseconds since the Unix epoch.
	Time int64
	// Key is the event key it was set for; Tag is what it was set with.
	Key, Tag []byte
}

// Batch is the events of one call, in columns. A column that was not asked for is empty.
type Batch struct {
	Port         uint16
	Times        []int64
	Keys, Values Column
}

// Len is how many events there are.
func (b *Batch) Len() int { return max(len(b.Times), len(b.Keys.Ends), len(b.Values.Ends)) }

// Events goes through them.
func (b *Batch) Events() func(yield func(Event) bool) {
	return func(yield func(Event) bool) {
		var key, value uint32
		for row := range b.Len() {
			event := Event{Row: row, Port: b.Port}
			if row < len(b.Times) {
				event.Time = b.Times[row]
			}
			if row < len(b.Keys.Ends) {
				event.Key, key = b.Keys.Data[key:b.Keys.Ends[row]], b.Keys.Ends[row]
			}
			if row < len(b.Values.Ends) {
				event.Value, value = b.Values.Data[value:b.Values.Ends[row]], b.Values.Ends[row]
			}
			if !yield(event) {
				return
			}
		}
	}
}
