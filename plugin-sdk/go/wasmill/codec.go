package wasmill

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
)

// A Codec turns values into bytes and back. The formats are those of the Rust SDK and do not change:
// a plugin in one language goes on with the state of a plugin in another.
type Codec[T any] struct {
	Append func(to []byte, value T) []byte
	Decode func(data []byte) (T, error)
}

// A KeyCodec turns keys within a map into bytes that sort as the keys do.
type KeyCodec[T any] struct {
	Key   func(value T) []byte
	Unkey func(data []byte) T
}

func fixed[T any](name string, to func(T) uint64, from func(uint64) T) Codec[T] {
	return Codec[T]{
		func(out []byte, value T) []byte { return binary.LittleEndian.AppendUint64(out, to(value)) },
		func(data []byte) (value T, err error) {
			if len(data) != 8 {
				return value, fmt.Errorf("%s is 8 bytes, found %d", name, len(data))
			}
			return from(binary.LittleEndian.Uint64(data)), nil
		},
	}
}

var (
	// U64 is eight bytes.
	U64 = fixed("u64", func(v uint64) uint64 { return v }, func(v uint64) uint64 { return v })
	// I64 is eight bytes.
	I64 = fixed("i64", func(v int64) uint64 { return uint64(v) }, func(v uint64) int64 { return int64(v) })
	// F64 is eight bytes.
	F64 = fixed("f64", math.Float64bits, math.Float64frombits)
	// Bool is one byte.
	Bool = Codec[bool]{
		func(out []byte, value bool) []byte {
			if value {
				return append(out, 1)
			}
			return append(out, 0)
		},
		func(data []byte) (bool, error) { return len(data) == 1 && data[0] == 1, nil },
	}
	// Text is as it is.
	Text = Codec[string]{
		func(out []byte, value string) []byte { return append(out, value...) },
		func(data []byte) (string, error) { return string(data), nil },
	}
	// Bytes are as they are.
	Bytes = Codec[[]byte]{
		func(out []byte, value []byte) []byte { return append(out, value...) },
		func(data []byte) ([]byte, error) { return append([]byte(nil), data...), nil },
	}
	// TextKey is a key of text.
	TextKey = KeyCodec[string]{func(v string) []byte { return []byte(v) }, func(d []byte) string { return string(d) }}
	// BytesKey is a key of bytes.
	BytesKey = KeyCodec[[]byte]{
		func(v []byte) []byte { return v },
		func(d []byte) []byte { return append([]byte(nil), d...) },
	}
	// U64Key is a key of eight bytes.
	U64Key = KeyCodec[uint64]{func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }, binary.BigEndian.Uint64}
	// I64Key is a key of eight bytes.
	I64Key = KeyCodec[int64]{
		func(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)^1<<63) },
		func(d []byte) int64 { return int64(binary.BigEndian.Uint64(d) ^ 1<<63) },
	}
)

// JSON keeps a type as JSON.
func JSON[T any]() Codec[T] {
	return Codec[T]{
		func(out []byte, value T) []byte {
			text, err := json.Marshal(value)
			if err != nil {
				panic(err)
			}
			return append(out, text...)
		},
		func(data []byte) (value T, err error) {
			err = json.Unmarshal(data, &value)
			return value, err
		},
	}
}
