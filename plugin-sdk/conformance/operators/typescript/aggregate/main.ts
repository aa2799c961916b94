// Adds up integers by window.

import { Reject, aggregate, decodeText, u64 } from 'wasmill';
import type { Event, Pane } from 'wasmill';

export default aggregate({
  accumulator: u64,
  start: () => 0,

  fold(accumulator: number, event: Event) {
    if (!/^[0-9]+$/.test(event.text())) throw new Reject('no number');
    return accumulator + Number(event.text());
  },

  merge: (into: number, other: number) => into + other,

  *finish(pane: Pane, accumulator: number) {
    yield `${pane.start}..${pane.end} ${decodeText(pane.key)} ${accumulator}`;
    if (accumulator > 100) yield 'much';
  },
});
