// Upper-cases events with an "x" and counts them by key, batch by batch: what `xtask bench languages`
// measures.

import { decodeText, encodeText, operator, u64 } from 'wasmill';

export default operator({
  columns: ['keys', 'values'],

  open(config, setup) {
    this.seen = setup.value('seen', u64);
  },

  batch(batch, ctx) {
    const rows = [];
    const values = [];
    const counts = new Map();
    for (let row = 0; row < batch.length; row++) {
      let text;
      try {
        text = decodeText(batch.values[row]);
      } catch {
        ctx.reject(batch.at(row), 'not UTF-8');
        continue;
      }
      if (!text.includes('x')) continue;
      rows.push(row);
      values.push(encodeText(text.toUpperCase()));
      const id = decodeText(batch.keys[row]);
      const count = counts.get(id);
      if (count) count.more++;
      else counts.set(id, { key: batch.keys[row], more: 1 });
    }
    const counted = [...counts.values()];
    const keys = counted.map(({ key }) => key);
    const before = this.seen.getAll(keys, 0);
    this.seen.setAll(keys, counted.map(({ more }, i) => before[i] + more));
    ctx.emitRows(rows, values);
  },
});
