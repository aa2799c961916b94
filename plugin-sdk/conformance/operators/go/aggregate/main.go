// Package operator adds up integers by window.
package operator

import (
	"fmt"
	"strconv"

	"wasmill"
)

// Plugin is what the component exports.
var Plugin = wasmill.Aggregate(wasmill.U64, func() wasmill.Folder[uint64] { return sum{} })

type sum struct{}

func (sum) Open(*wasmill.Config) error { return nil }
func (sum) Start() uint64              { return 0 }

func (sum) Fold(accumulator uint64, event wasmill.Event) (uint64, error) {
	number, err := strconv.ParseUint(string(event.Value), 10, 64)
	if err != nil {
		return 0, wasmill.Reject("no number")
	}
	return accumulator + number, nil
}

func (sum) Merge(into, other uint64) uint64 { return into + other }

func (sum) Finish(pane wasmill.Pane, accumulator uint64, emit func([]byte)) error {
	emit(fmt.Appendf(nil, "%d..%d %s %d", pane.Start, pane.End, pane.Key, accumulator))
	if accumulator > 100 {
		emit([]byte("much"))
	}
	return nil
}
