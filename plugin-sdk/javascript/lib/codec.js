// How typed state and accumulators become bytes. The formats are those of the Rust SDK and do not
// change: a plugin in one language goes on with the state of a plugin in another.

import { decodeText, encodeText } from './text.js';

const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const fixed = (name, write, read) => ({
  encode(value) {
    const out = new Uint8Array(8);
    write(view(out), value);
    return out;
  },
  decode(bytes) {
    if (bytes.length !== 8) throw new RangeError(`${name} is 8 bytes, found ${bytes.length}`);
    return read(view(bytes));
  },
});

// Numbers that are safe stay numbers; larger ones are BigInt.
const narrow = (value) => (value >= -9007199254740991n && value <= 9007199254740991n ? Number(value) : value);

const integer = (name, write, read, flip) => ({
  ...fixed(name, (at, value) => write(at, BigInt(value), true), (at) => narrow(read(at, true))),
  key(value) {
    const out = new Uint8Array(8);
    view(out).setBigUint64(0, BigInt.asUintN(64, BigInt(value) + flip), false);
    return out;
  },
  unkey: (bytes) => narrow(view(bytes).getBigUint64(0, false) - flip),
});

export const u64 = integer(
  'u64',
  (at, value, little) => at.setBigUint64(0, value, little),
  (at, little) => at.getBigUint64(0, little),
  0n,
);
export const i64 = integer(
  'i64',
  (at, value, little) => at.setBigInt64(0, value, little),
  (at, little) => at.getBigInt64(0, little),
  1n << 63n,
);
export const f64 = fixed('f64', (at, value) => at.setFloat64(0, value, true), (at) => at.getFloat64(0, true));
export const bool = { encode: (value) => Uint8Array.of(value ? 1 : 0), decode: (bytes) => bytes[0] === 1 };
export const text = { encode: encodeText, decode: decodeText, key: encodeText, unkey: decodeText };
export const bytes = {
  encode: (value) => value.slice(),
  decode: (value) => value.slice(),
  key: (value) => value.slice(),
  unkey: (value) => value.slice(),
};
export const json = {
  encode: (value) => encodeText(JSON.stringify(value)),
  decode: (value) => JSON.parse(decodeText(value)),
};
