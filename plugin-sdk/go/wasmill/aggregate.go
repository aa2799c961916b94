package wasmill

// Folder is a pure function over the accumulators of windows, which the host keeps.
type Folder[A any] interface {
	Open(config *Config) error
	// Start is a new accumulator.
	Start() A
	// Fold adds an event. An error rejects it.
	Fold(accumulator A, event Event) (A, error)
	// Merge adds what another accumulator knows, of events that come after those of into.
	Merge(into, other A) A
	// Finish yields the results of a window that fires.
	Finish(pane Pane, accumulator A, emit func(value []byte)) error
}

// Pane is a window that fires, for one key: [Start, End) in microseconds since the Unix epoch.
type Pane struct {
	Start, End int64
	Key        []byte
}

type anyAggregate interface {
	open(config []byte) error
	fold(accumulators Column, groups []uint32, batch *Batch) (Column, []Rejected, error)
	merge(accumulators Column, groups []uint32, count uint32) (Column, error)
	finish(starts, ends []int64, keys, accumulators Column) (Column, []uint32, error)
}

// Aggregate makes a plugin of a folder and the codec of its accumulators.
func Aggregate[A any](codec Codec[A], make func() Folder[A]) *Definition {
	return &Definition{
		inputs: []string{"in"}, outputs: []string{"out"}, columns: AllColumns,
		aggregate: func() anyAggregate { return &folding[A]{make(), codec} },
	}
}

type folding[A any] struct {
	folder Folder[A]
	codec  Codec[A]
}

func (f *folding[A]) open(config []byte) error {
	fields, err := parseConfig(config)
	if err != nil {
		return err
	}
	opened := f.folder.Open(fields)
	if fields.err != nil {
		return fields.err
	}
	if opened != nil {
		return opened
	}
	return fields.done()
}

func (f *folding[A]) decode(data []byte) A {
	if len(data) == 0 {
		return f.folder.Start()
	}
	value, err := f.codec.Decode(data)
	if err != nil {
		panic(Fatal("an accumulator cannot be read: %v", err))
	}
	return value
}

func (f *folding[A]) encode(all []A) (column Column) {
	for _, one := range all {
		column.Data = f.codec.Append(column.Data, one)
		column.Ends = append(column.Ends, uint32(len(column.Data)))
	}
	return column
}

func (f *folding[A]) fold(accumulators Column, groups []uint32, batch *Batch) (column Column, rejected []Rejected, err error) {
	err = guarded(func() error {
		open := make([]A, len(accumulators.Ends))
		for i := range open {
			open[i] = f.decode(accumulators.Row(i))
		}
		for event := range batch.Events() {
			group := groups[event.Row]
			err := guarded(func() error {
				folded, err := f.folder.Fold(open[group], event)
				if err == nil {
					open[group] = folded
				}
				return err
			})
			if failure, ok := err.(*Failure); ok {
				return failure
			}
			if err != nil {
				rejected = append(rejected, Rejected{uint32(event.Row), cut(err.Error())})
			}
		}
		column = f.encode(open)
		return nil
	})
	return column, rejected, err
}

func (f *folding[A]) merge(accumulators Column, groups []uint32, count uint32) (column Column, err error) {
	err = guarded(func() error {
		merged, there := make([]A, count), make([]bool, count)
		for i, group := range groups {
			one := f.decode(accumulators.Row(i))
			if there[group] {
				one = f.folder.Merge(merged[group], one)
			}
			merged[group], there[group] = one, true
		}
		for i := range merged {
			if !there[i] {
				merged[i] = f.folder.Start()
			}
		}
		column = f.encode(merged)
		return nil
	})
	return column, err
}

func (f *folding[A]) finish(starts, ends []int64, keys, accumulators Column) (values Column, panes []uint32, err error) {
	err = guarded(func() error {
		for i := range accumulators.Ends {
			pane := Pane{starts[i], ends[i], keys.Row(i)}
			err := f.folder.Finish(pane, f.decode(accumulators.Row(i)), func(value []byte) {
				values.Push(value)
				panes = append(panes, uint32(i))
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return values, panes, err
}

// AggregateDriver is an open aggregate. Not for authors.
type AggregateDriver struct{ aggregate anyAggregate }

// OpenAggregate opens the aggregate. Not for authors.
func (d *Definition) OpenAggregate(config []byte) (*AggregateDriver, error) {
	if d.aggregate == nil {
		return nil, Fatal("the plugin is an operator: it needs world = \"stateless\" or \"stateful\" in plugin.toml")
	}
	made := d.aggregate()
	return &AggregateDriver{made}, guarded(func() error { return made.open(config) })
}

// Fold adds rows to their groups.
func (d *AggregateDriver) Fold(accumulators Column, groups []uint32, batch *Batch) (Column, []Rejected, error) {
	return d.aggregate.fold(accumulators, groups, batch)
}

// Merge merges accumulators of a group, in order.
func (d *AggregateDriver) Merge(accumulators Column, groups []uint32, count uint32) (Column, error) {
	return d.aggregate.merge(accumulators, groups, count)
}

// Finish makes results of panes, and names the pane of each.
func (d *AggregateDriver) Finish(starts, ends []int64, keys, accumulators Column) (Column, []uint32, error) {
	return d.aggregate.finish(starts, ends, keys, accumulators)
}
