// Rows of bytes, side by side: what crosses between host and plugin.

/** The rows of a column. */
export function rows({ ends, data }) {
  const out = new Array(ends.length);
  let start = 0;
  for (let i = 0; i < ends.length; i++) {
    const end = ends[i];
    out[i] = data.subarray(start, end);
    start = end;
  }
  return out;
}

/** A column of these rows. */
export function column(rows) {
  const ends = new Uint32Array(rows.length);
  let length = 0;
  for (let i = 0; i < rows.length; i++) ends[i] = length += rows[i].length;
  const data = new Uint8Array(length);
  for (let i = 0; i < rows.length; i++) data.set(rows[i], i ? ends[i - 1] : 0);
  return { ends, data };
}

export const empty = () => ({ ends: new Uint32Array(0), data: new Uint8Array(0) });

/** A bitmap of `count` rows in which these are set. */
export function bitmap(rows, count) {
  const halves = new Uint32Array(2 * Math.ceil(count / 64));
  for (const row of rows) halves[row >>> 5] |= 1 << (row & 31);
  return new BigUint64Array(halves.buffer);
}

/** Whether a bit of a bitmap is set. */
export const bit = (words, row) => (BigInt(words[row >>> 6]) >> BigInt(row & 63)) & 1n;
