// Package operator lets an event through when its number is a new record for its key.
package operator

import "wasmill"

// Plugin is what the component exports.
var Plugin = wasmill.Operator(func() wasmill.Handler { return &records{} })

type records struct {
	field string
	// It belongs to the key of the event at hand.
	highest *wasmill.Value[float64]
}

func (r *records) Open(config *wasmill.Config, setup *wasmill.Setup) error {
	r.field = config.String("field")
	r.highest = wasmill.NewValue(setup, "highest", wasmill.F64)
	return nil
}

func (r *records) Event(event wasmill.Event, ctx *wasmill.Context) error {
	var fields map[string]any
	if err := event.JSON(&fields); err != nil {
		return err
	}
	number, ok := fields[r.field].(float64)
	if !ok {
		// It goes to the dead letters, the rest goes on.
		return wasmill.Reject("field `%s` is missing, expected a number", r.field)
	}
	if highest, there := r.highest.Get(); !there || number > highest {
		r.highest.Set(number)
		ctx.Forward()
	}
	return nil
}
