// Adds up integers by window.

import { Reject, aggregate, decodeText, u64 } from 'wasmill';

export default aggregate({
  accumulator: u64,
  start: () => 0,

  fold(accumulator, event) {
    if (!/^[0-9]+$/.test(event.text())) throw new Reject('no number');
    return accumulator + Number(event.text());
  },

  merge: (into, other) => into + other,

  *finish(pane, accumulator) {
    yield `${pane.start}..${pane.end} ${decodeText(pane.key)} ${accumulator}`;
    if (accumulator > 100) yield 'much';
  },
});
