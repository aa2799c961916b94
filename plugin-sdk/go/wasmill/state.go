package wasmill

import (
	"maps"
	"slices"
)

// State by the key of the event at hand. A call fetches the values of its keys together, keeps them
// for the call, and writes what has changed together at its end. Nothing is kept between calls: an
// instance can be replaced at any of them.

const page = 1024

type place struct{ key, subkey string }

type shared struct {
	host    Host
	key     string
	inRow   bool
	spaces  []space
	journal []func()
}

type space interface {
	about() *spaceInfo
	load(keys []string)
	write()
	migrate(fromVersion uint32, keys, values Column) (Column, []uint32, error)
}

type spaceInfo struct {
	number  uint16
	name    string
	version uint32
	ttl     *TTL
	turns   map[uint32]turn
}

// turn makes new bytes of old ones; false where the entry goes.
type turn func(data, old []byte) ([]byte, bool, error)

// TTL lets entries vanish some time after they were last written.
type TTL struct {
	Clock  Clock
	Micros uint64
}

// A SpaceOption has more to say about a part of the state.
type SpaceOption func(*spaceInfo)

// Version is raised when the meaning of the bytes changes; it is 1 unless said.
func Version(version uint32) SpaceOption { return func(info *spaceInfo) { info.version = version } }

// Migrate takes over entries that an older version has written: a function makes a value of their
// bytes, or says false where the entry goes. The codec is that of the space.
func Migrate[T any](fromVersion uint32, codec Codec[T], make func(old []byte) (T, bool, error)) SpaceOption {
	return func(info *spaceInfo) {
		if info.turns == nil {
			info.turns = map[uint32]turn{}
		}
		info.turns[fromVersion] = func(data, old []byte) ([]byte, bool, error) {
			value, stays, err := make(old)
			if err == nil && stays {
				data = codec.Append(data, value)
			}
			return data, stays, err
		}
	}
}

func (info *spaceInfo) migrate(fromVersion uint32, keys, values Column) (made Column, dropped []uint32, err error) {
	turn := info.turns[fromVersion]
	if turn == nil {
		return made, nil, Fatal("state space `%s` has version %d, and no migration from version %d",
			info.name, info.version, fromVersion)
	}
	for i := range values.Ends {
		var stays bool
		if made.Data, stays, err = turn(made.Data, values.Row(i)); err != nil {
			return made, nil, Fatal("an entry of state space `%s`, key %q, is none of version %d: %v",
				info.name, keys.Row(i), fromVersion, err)
		}
		made.Ends = append(made.Ends, uint32(len(made.Data)))
		if !stays {
			dropped = append(dropped, uint32(i))
		}
	}
	return made, dropped, nil
}

// Expire lets entries vanish.
func Expire(ttl TTL) SpaceOption { return func(info *spaceInfo) { info.ttl = &ttl } }

func (s *shared) begin(keys Column) {
	if len(s.spaces) == 0 {
		return
	}
	seen := map[string]struct{}{}
	var distinct []string
	for i := range keys.Ends {
		key := keys.Row(i)
		if _, there := seen[string(key)]; !there {
			owned := string(key)
			seen[owned] = struct{}{}
			distinct = append(distinct, owned)
		}
	}
	for _, space := range s.spaces {
		space.load(distinct)
	}
}

func (s *shared) enter(key []byte) {
	s.inRow = true
	if s.key != string(key) {
		s.key = string(key)
	}
	s.journal = s.journal[:0]
}

func (s *shared) undo() {
	for _, undo := range slices.Backward(s.journal) {
		undo()
	}
	s.journal = s.journal[:0]
}

func (s *shared) finish() {
	s.inRow = false
	s.journal = s.journal[:0]
	for _, space := range s.spaces {
		space.write()
	}
}

func (s *shared) current() string {
	if !s.inRow {
		panic("state and timers belong to the key of an event or a timer, and there is none here")
	}
	return s.key
}

type cell[T any] struct {
	value T
	there bool
	dirty bool
}

type cells[T any] struct {
	spaceInfo
	shared *shared
	codec  Codec[T]
	cells  map[place]*cell[T]
	// In the order of their first change.
	dirty []place
}

func newCells[T any](setup *Setup, name string, codec Codec[T], options []SpaceOption) cells[T] {
	info := spaceInfo{number: uint16(len(setup.shared.spaces)), name: name, version: 1}
	for _, option := range options {
		option(&info)
	}
	return cells[T]{spaceInfo: info, shared: setup.shared, codec: codec, cells: map[place]*cell[T]{}}
}

func (c *cells[T]) about() *spaceInfo { return &c.spaceInfo }

func (c *cells[T]) decode(data []byte) T {
	value, err := c.codec.Decode(data)
	if err != nil {
		panic(Fatal("an entry of state space `%s` cannot be read: %v; "+
			"if its type has changed, raise the version of the space", c.name, err))
	}
	return value
}

func (c *cells[T]) fetch(places []place) {
	var keys, subkeys Column
	for _, place := range places {
		keys.Push([]byte(place.key))
		subkeys.Push([]byte(place.subkey))
	}
	found, values := c.shared.host.GetMany(c.number, keys, subkeys)
	for i, place := range places {
		one := &cell[T]{}
		if bit(found, i) {
			one.value, one.there = c.decode(values.Row(i)), true
		}
		c.cells[place] = one
	}
}

func (c *cells[T]) change(at place, value T, there bool) {
	one := c.cells[at]
	old, number := *one, len(c.dirty)
	c.shared.journal = append(c.shared.journal, func() { *one, c.dirty = old, c.dirty[:number] })
	if !one.dirty {
		c.dirty = append(c.dirty, at)
	}
	*one = cell[T]{value, there, true}
}

func (c *cells[T]) write() {
	var keys, subkeys, values, goneKeys, goneSubkeys Column
	for _, at := range c.dirty {
		if one := c.cells[at]; one.there {
			keys.Push([]byte(at.key))
			subkeys.Push([]byte(at.subkey))
			values.Data = c.codec.Append(values.Data, one.value)
			values.Ends = append(values.Ends, uint32(len(values.Data)))
		} else {
			goneKeys.Push([]byte(at.key))
			goneSubkeys.Push([]byte(at.subkey))
		}
	}
	if len(keys.Ends) > 0 {
		c.shared.host.PutMany(c.number, keys, subkeys, values)
	}
	if len(goneKeys.Ends) > 0 {
		c.shared.host.DeleteMany(c.number, goneKeys, goneSubkeys)
	}
	c.forget()
}

func (c *cells[T]) forget() {
	clear(c.cells)
	c.dirty = c.dirty[:0]
}

// Value is one value per event key.
type Value[T any] struct{ cells[T] }

// NewValue declares one value per event key.
func NewValue[T any](setup *Setup, name string, codec Codec[T], options ...SpaceOption) *Value[T] {
	value := &Value[T]{newCells(setup, name, codec, options)}
	setup.shared.spaces = append(setup.shared.spaces, value)
	return value
}

func (v *Value[T]) load(keys []string) {
	v.forget()
	places := make([]place, len(keys))
	for i, key := range keys {
		places[i] = place{key: key}
	}
	if len(places) > 0 {
		v.fetch(places)
	}
}

// Get is the value of the current key, and whether there is one.
func (v *Value[T]) Get() (T, bool) {
	one := v.cells.cells[place{key: v.shared.current()}]
	return one.value, one.there
}

// GetOr is the value of the current key, or another.
func (v *Value[T]) GetOr(fallback T) T {
	if value, there := v.Get(); there {
		return value
	}
	return fallback
}

// Set sets the value of the current key.
func (v *Value[T]) Set(value T) { v.change(place{key: v.shared.current()}, value, true) }

// Delete deletes the value of the current key.
func (v *Value[T]) Delete() {
	var none T
	v.change(place{key: v.shared.current()}, none, false)
}

// Map is a map per event key.
type Map[K, V any] struct {
	cells[V]
	key      KeyCodec[K]
	complete map[string]bool
}

// NewMap declares a map per event key.
func NewMap[K, V any](setup *Setup, name string, key KeyCodec[K], codec Codec[V], options ...SpaceOption) *Map[K, V] {
	m := &Map[K, V]{newCells(setup, name, codec, options), key, map[string]bool{}}
	setup.shared.spaces = append(setup.shared.spaces, m)
	return m
}

func (m *Map[K, V]) load([]string) {
	m.forget()
	clear(m.complete)
}

func (m *Map[K, V]) at(key K) place {
	at := place{m.shared.current(), string(m.key.Key(key))}
	if _, there := m.cells.cells[at]; !there {
		if m.complete[at.key] {
			m.cells.cells[at] = &cell[V]{}
		} else {
			m.fetch([]place{at})
		}
	}
	return at
}

// Get is the value of a sub-key under the current key, and whether there is one.
func (m *Map[K, V]) Get(key K) (V, bool) {
	one := m.cells.cells[m.at(key)]
	return one.value, one.there
}

// Set sets the value of a sub-key.
func (m *Map[K, V]) Set(key K, value V) { m.change(m.at(key), value, true) }

// Delete deletes the value of a sub-key.
func (m *Map[K, V]) Delete(key K) {
	var none V
	m.change(m.at(key), none, false)
}

// All goes through the entries of the current key in the order of their sub-keys.
func (m *Map[K, V]) All() func(yield func(K, V) bool) {
	return func(yield func(K, V) bool) {
		for _, at := range m.own() {
			if !yield(m.key.Unkey([]byte(at.subkey)), m.cells.cells[at].value) {
				return
			}
		}
	}
}

// Clear deletes all entries of the current key.
func (m *Map[K, V]) Clear() {
	var none V
	for _, at := range m.own() {
		m.change(at, none, false)
	}
}

func (m *Map[K, V]) own() []place {
	key := m.shared.current()
	if !m.complete[key] {
		m.scan(key)
	}
	var own []place
	for at := range maps.Keys(m.cells.cells) {
		if at.key == key && m.cells.cells[at].there {
			own = append(own, at)
		}
	}
	slices.SortFunc(own, func(one, other place) int { return compare(one.subkey, other.subkey) })
	return own
}

func compare(one, other string) int {
	switch {
	case one < other:
		return -1
	case one > other:
		return 1
	}
	return 0
}

func (m *Map[K, V]) scan(key string) {
	var start []byte
	for {
		subkeys, values := m.shared.host.Scan(m.number, []byte(key), start, page)
		for i := range subkeys.Ends {
			at := place{key, string(subkeys.Row(i))}
			// What is in memory is as new or newer.
			if _, there := m.cells.cells[at]; !there {
				m.cells.cells[at] = &cell[V]{value: m.decode(values.Row(i)), there: true}
			}
		}
		if len(subkeys.Ends) < page {
			break
		}
		start = append(slices.Clone(subkeys.Row(page-1)), 0)
	}
	m.complete[key] = true
}
