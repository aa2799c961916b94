// Package operator is every case of the conformance suite that is an operator: config.op says which.
package operator

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"wasmill"
)

// Plugin is what the component exports.
var Plugin = wasmill.Operator(func() wasmill.Handler { return &conformance{} }).
	Inputs("left", "right").Outputs("out", "side")

type conformance struct {
	handle func(*conformance, wasmill.Event, *wasmill.Context) error
	seen   *wasmill.Value[uint64]
	last   *wasmill.Value[[]byte]
	items  *wasmill.Map[string, []byte]
	places *wasmill.Map[int64, string]
	events wasmill.Counter
}

var ops = map[string]func(*conformance, wasmill.Event, *wasmill.Context) error{
	"filter": func(_ *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		if bytes.Contains(event.Value, []byte("x")) {
			ctx.Forward()
		}
		return nil
	},
	"map": func(_ *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		out := slices.Clone(event.Value)
		for i, b := range out {
			if b >= 'a' && b <= 'z' {
				out[i] = b - 32
			}
		}
		ctx.Emit(out)
		return nil
	},
	"flat-map": func(_ *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		for _, word := range bytes.Split(event.Value, []byte(" ")) {
			if len(word) > 0 {
				ctx.Emit(word)
			}
		}
		return nil
	},
	"count": func(c *conformance, _ wasmill.Event, ctx *wasmill.Context) error {
		ctx.EmitText(strconv.FormatUint(c.count(), 10))
		return nil
	},
	"migrate": func(c *conformance, _ wasmill.Event, ctx *wasmill.Context) error {
		ctx.EmitText(strconv.FormatUint(c.count(), 10))
		ctx.EmitText(c.listed())
		return nil
	},
	"timers": func(_ *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		if string(event.Value) == "cancel" {
			ctx.DeleteTimer(wasmill.EventTime, "a")
		} else {
			ctx.SetTimer(wasmill.EventTime, event.Time+10, string(event.Value))
		}
		return nil
	},
	"two-inputs": func(c *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		if event.Port == 0 {
			c.last.Set(slices.Clone(event.Value))
			return nil
		}
		ctx.EmitText(string(c.last.GetOr([]byte("nothing"))) + "|" + string(event.Value))
		return nil
	},
	"side": func(_ *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		if len(event.Value)%2 == 0 {
			ctx.Forward()
		} else {
			at := event.Time + 1
			ctx.EmitRow(wasmill.Row{Value: event.Value, Key: []byte("odd"), Time: &at, Port: 1})
		}
		return nil
	},
	"reject": func(c *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		ctx.EmitText(strconv.FormatUint(c.count(), 10))
		ctx.SetTimer(wasmill.EventTime, event.Time+10, "t")
		if string(event.Value) == "bad" {
			return wasmill.Reject("the value is bad")
		}
		return nil
	},
	"map-state": func(c *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		name, value, _ := strings.Cut(string(event.Value), "=")
		switch {
		case name == "*":
			ctx.EmitText(c.listed())
		case strings.HasSuffix(name, "?"):
			if value, there := c.items.Get(strings.TrimSuffix(name, "?")); there {
				ctx.Emit(value)
			} else {
				ctx.EmitText("none")
			}
		case strings.HasSuffix(name, "!"):
			c.items.Delete(strings.TrimSuffix(name, "!"))
		default:
			c.items.Set(name, []byte(value))
		}
		return nil
	},
	"numbers": func(c *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		if string(event.Value) != "*" {
			number, err := strconv.ParseInt(string(event.Value), 10, 64)
			c.places.Set(number, string(event.Value))
			return err
		}
		var all []string
		for place, text := range c.places.All() {
			all = append(all, fmt.Sprintf("%d:%s", place, text))
		}
		c.places.Clear()
		ctx.EmitText(strings.Join(all, ","))
		return nil
	},
	"text": func(_ *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		text, err := event.Text()
		if err == nil {
			ctx.EmitText(strconv.Itoa(utf8.RuneCountInString(text)))
		}
		return err
	},
	"bytes": func(_ *conformance, event wasmill.Event, ctx *wasmill.Context) error {
		key, value := slices.Clone(event.Key), slices.Clone(event.Value)
		slices.Reverse(key)
		slices.Reverse(value)
		ctx.EmitRow(wasmill.Row{Value: value, Key: append([]byte{}, key...)})
		return nil
	},
}

func (c *conformance) count() uint64 {
	count := c.seen.GetOr(0) + 1
	c.seen.Set(count)
	return count
}

func (c *conformance) listed() string {
	var all []string
	for key, value := range c.items.All() {
		all = append(all, key+"="+string(value))
	}
	return strings.Join(all, ",")
}

func (c *conformance) Open(config *wasmill.Config, setup *wasmill.Setup) error {
	op := config.String("op")
	c.handle = ops[op]
	if limit := config.IntOr("limit", 1); limit < 1 {
		return &wasmill.ConfigError{Field: "limit", Message: "expected at least 1"}
	}
	// What version 1 has left: counts in text, "0" for none, and items without a mark.
	version := wasmill.Version(1)
	if op == "migrate" {
		version = wasmill.Version(2)
	}
	count := wasmill.Migrate(1, wasmill.U64, func(old []byte) (uint64, bool, error) {
		count, err := strconv.ParseUint(string(old), 10, 64)
		return count, count > 0, err
	})
	item := wasmill.Migrate(1, wasmill.Bytes, func(old []byte) ([]byte, bool, error) {
		return append(slices.Clone(old), '!'), true, nil
	})
	c.seen = wasmill.NewValue(setup, "seen", wasmill.U64, version, count)
	c.last = wasmill.NewValue(setup, "last", wasmill.Bytes)
	c.items = wasmill.NewMap(setup, "items", wasmill.TextKey, wasmill.Bytes, version, item)
	c.places = wasmill.NewMap(setup, "places", wasmill.I64Key, wasmill.Text)
	c.events = setup.Counter("events")
	return nil
}

func (c *conformance) Event(event wasmill.Event, ctx *wasmill.Context) error {
	c.events.Add(1)
	return c.handle(c, event, ctx)
}

func (c *conformance) Timer(timer wasmill.Timer, ctx *wasmill.Context) error {
	ctx.EmitText(fmt.Sprintf("%s at %d, number %d", timer.Tag, timer.Time, c.count()))
	return nil
}
