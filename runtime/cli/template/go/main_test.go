package operator

import (
	"slices"
	"testing"

	"wasmill/wasmilltest"
)

func TestOnlyRecordsGoOn(t *testing.T) {
	test := wasmilltest.New(t, Plugin, `{"field": "n"}`)
	test.SendAll(0, 0, "a", `{"n": 2}`, "a", `{"n": 1}`, "b", `{"n": 1}`, "a", `{"n": 3}`)
	if got := test.Values(0); !slices.Equal(got, []string{`{"n": 2}`, `{"n": 1}`, `{"n": 3}`}) {
		t.Error(got)
	}
}

func TestRecordsOutliveAnInstance(t *testing.T) {
	test := wasmilltest.New(t, Plugin, `{"field": "n"}`)
	test.Send("a", `{"n": 2}`)
	test.Restart()
	test.Send("a", `{"n": 1}`)
	if len(test.Out) != 1 {
		t.Error(test.Out)
	}
}

func TestAnEventWithoutTheNumberIsRejected(t *testing.T) {
	test := wasmilltest.New(t, Plugin, `{"field": "n"}`)
	test.Send("a", `{}`)
	if !slices.Equal(test.Rejected, []string{"field `n` is missing, expected a number"}) {
		t.Error(test.Rejected)
	}
}
