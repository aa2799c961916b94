"""How typed state and accumulators become bytes.

The formats are those of the Rust SDK and do not change: a plugin in one language goes on with the
state of a plugin in another. Numbers are little-endian and of fixed width, text is UTF-8. Keys
within a map are big-endian, so that they sort as their values do.
"""

import json
import struct
from typing import Any, Callable, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Codec(NamedTuple, Generic[T]):
    """Two functions, each the other's reverse. ``key`` and ``unkey`` are for keys within a map."""

    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]
    key: Callable[[T], bytes] | None = None
    unkey: Callable[[bytes], T] | None = None


def _fixed(name: str, form: str, flip: int | None = None) -> Codec:
    little, big = struct.Struct("<" + form), struct.Struct(">Q")

    def decode(data: bytes) -> Any:
        if len(data) != little.size:
            raise ValueError(f"{name} is {little.size} bytes, found {len(data)}")
        return little.unpack(data)[0]

    if flip is None:
        return Codec(little.pack, decode)
    return Codec(
        little.pack,
        decode,
        lambda value: big.pack((value + flip) & 0xFFFF_FFFF_FFFF_FFFF),
        lambda data: big.unpack(data)[0] - flip,
    )


#: Integers from 0 to 2^64 - 1.
u64: Codec[int] = _fixed("u64", "Q", 0)
#: Integers from -2^63 to 2^63 - 1.
i64: Codec[int] = _fixed("i64", "q", 1 << 63)
#: Numbers.
f64: Codec[float] = _fixed("f64", "d")
#: True or false.
bool_: Codec[bool] = Codec(lambda value: b"\1" if value else b"\0", lambda data: data == b"\1")
#: Text.
text: Codec[str] = Codec(str.encode, bytes.decode, str.encode, bytes.decode)
#: Bytes as they are.
bytes_: Codec[bytes] = Codec(bytes, bytes, bytes, bytes)
#: Whatever JSON can hold.
json_: Codec[Any] = Codec(
    lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), json.loads
)
