package wasmill_test

import (
	"reflect"
	"strconv"
	"strings"
	"testing"

	"wasmill"
	"wasmill/wasmilltest"
)

type count struct{ seen *wasmill.Value[uint64] }

func (c *count) Open(_ *wasmill.Config, setup *wasmill.Setup) error {
	c.seen = wasmill.NewValue(setup, "seen", wasmill.U64)
	return nil
}

func (c *count) Event(event wasmill.Event, ctx *wasmill.Context) error {
	n := c.seen.GetOr(0) + 1
	c.seen.Set(n)
	ctx.EmitText(strconv.FormatUint(n, 10))
	switch string(event.Value) {
	case "bad":
		return wasmill.Reject("it is bad")
	case "worse":
		panic("it is worse")
	}
	return nil
}

func same(t *testing.T, got, expected any) {
	t.Helper()
	if !reflect.DeepEqual(got, expected) {
		t.Errorf("expected %v, got %v", expected, got)
	}
}

func TestStateOutlivesAnInstanceAndRejectedEventsLeaveNoTrace(t *testing.T) {
	test := wasmilltest.New(t, wasmill.Operator(func() wasmill.Handler { return &count{} }), "")
	test.SendAll(0, 0, "a", "x", "b", "x", "a", "bad", "a", "worse", "a", "x")
	test.Restart()
	test.Send("a", "x")
	same(t, test.Values(0), []string{"1", "1", "2", "3"})
	same(t, test.Rejected[0], "it is bad")
	if !strings.HasPrefix(test.Rejected[1], "panic: it is worse (at sdk_test.go:") {
		t.Error(test.Rejected[1])
	}
}

type baskets struct {
	items *wasmill.Map[int64, string]
	wait  int64
}

func (b *baskets) Open(config *wasmill.Config, setup *wasmill.Setup) error {
	b.items = wasmill.NewMap(setup, "items", wasmill.I64Key, wasmill.Text)
	b.wait = config.IntOr("wait", 10)
	return nil
}

func (b *baskets) Event(event wasmill.Event, ctx *wasmill.Context) error {
	number, err := strconv.ParseInt(string(event.Value), 10, 64)
	if err != nil {
		return err
	}
	b.items.Set(number, string(event.Value))
	ctx.SetTimer(wasmill.EventTime, event.Time+b.wait, "close")
	return nil
}

func (b *baskets) Timer(_ wasmill.Timer, ctx *wasmill.Context) error {
	var all []string
	for _, value := range b.items.All() {
		all = append(all, value)
	}
	b.items.Clear()
	ctx.EmitText(strings.Join(all, ","))
	return nil
}

var basket = wasmill.Operator(func() wasmill.Handler { return &baskets{} })

func TestMapsAreSortedAndTimersFire(t *testing.T) {
	test := wasmilltest.New(t, basket, `{"wait": 5}`)
	for _, value := range []string{"3", "-1", "20"} {
		test.SendAll(0, 1, "k", value)
	}
	test.Watermark(5)
	same(t, len(test.Out), 0)
	test.Watermark(6)
	same(t, test.Values(0), []string{"-1,3,20"})
	test.SendAll(0, 1, "k", "7")
	test.Watermark(9)
	same(t, test.Values(0), []string{"-1,3,20", "7"})
}

func TestErrorsOfAConfigurationNameTheField(t *testing.T) {
	for config, expected := range map[string]string{
		`{"wait":"x"}`: "config: `wait`: expected an integer, found \"x\"",
		`{"wiat":1}`:   "config: `wiat`: unknown field `wiat`, expected `wait`",
		`[1]`:          "config: expected an object, found [1]",
	} {
		if _, err := basket.Open([]byte(config), nil, true); err == nil || err.Error() != expected {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func TestRowsComeOutWhateverTheirForm(t *testing.T) {
	at := int64(7)
	test := wasmilltest.New(t, wasmill.FlatMap(func(event wasmill.Event, ctx *wasmill.Context) error {
		switch string(event.Value) {
		case "drop":
		case "key":
			ctx.EmitRow(wasmill.Row{Value: []byte("keyed"), Key: []byte("k2"), Time: &at})
		default:
			ctx.Forward()
		}
		return nil
	}), "")
	test.SendAll(0, 1, "k", "a", "k", "drop", "k", "key", "k", "b")
	test.SendAll(0, 2, "k", "c", "k", "drop")
	same(t, test.Out, []wasmilltest.Row{{0, 1, "k", "a"}, {0, 7, "k2", "keyed"}, {0, 1, "k", "b"}, {0, 2, "k", "c"}})
}

type counted struct{ count }

func (c *counted) Open(_ *wasmill.Config, setup *wasmill.Setup) error {
	text := wasmill.Migrate(1, wasmill.U64, func(old []byte) (uint64, bool, error) {
		number, err := strconv.ParseUint(string(old), 10, 64)
		return number, number > 0, err
	})
	c.seen = wasmill.NewValue(setup, "seen", wasmill.U64, wasmill.Version(2), text)
	return nil
}

func TestEntriesOfAKnownVersionAreTakenOver(t *testing.T) {
	test := wasmilltest.New(t, wasmill.Operator(func() wasmill.Handler { return &counted{} }), "")
	if err := test.Migrate(0, 1, "a", "41", "b", "0"); err != nil {
		t.Fatal(err)
	}
	test.SendAll(0, 0, "a", "", "b", "")
	same(t, test.Values(0), []string{"42", "1"})
	for _, wrong := range []error{test.Migrate(0, 7), test.Migrate(0, 1, "k", "x")} {
		if wrong == nil || !strings.Contains(wrong.Error(), "version") {
			t.Error(wrong)
		}
	}
}
