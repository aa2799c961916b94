// Every case of the conformance suite that is an operator: `config.op` says which.

import { ConfigError, Reject, bytes, decodeText, i64, operator, text, u64 } from 'wasmill';
import type { Context, Emitted, Event, KeyedMap, Timer, Value } from 'wasmill';

interface State {
  handle: (event: Event, ctx: Context) => Emitted | void;
  limit: number;
  seen: Value<number>;
  last: Value<Uint8Array>;
  items: KeyedMap<string, Uint8Array>;
  places: KeyedMap<number, string>;
  events: { add(): void };
}


const ops: Record<string, (this: State, event: Event, ctx: Context) => Emitted | void> = {
  *filter(event) {
    if (event.value.includes(0x78)) yield event;
  },

  *map(event) {
    yield event.value.map((byte) => (byte >= 0x61 && byte <= 0x7a ? byte - 32 : byte));
  },

  *'flat-map'(event) {
    for (const word of event.text().split(' ')) if (word) yield word;
  },

  *count() {
    const count = this.seen.get(0) + 1;
    this.seen.set(count);
    yield `${count}`;
  },

  *migrate() {
    const count = this.seen.get(0) + 1;
    this.seen.set(count);
    yield `${count}`;
    yield this.items.entries().map(([key, value]) => `${key}=${decodeText(value)}`).join(',');
  },

  timers(event, ctx) {
    if (event.text() === 'cancel') ctx.deleteTimer('a');
    else ctx.setTimer(event.time + 10, event.value);
  },

  *'two-inputs'(event) {
    if (event.port === 0) {
      this.last.set(event.value);
      return;
    }
    const last = this.last.get();
    yield `${last ? decodeText(last) : 'nothing'}|${event.text()}`;
  },

  *side(event) {
    if (event.value.length % 2 === 0) yield event;
    else yield { value: event.value, key: 'odd', time: event.time + 1, port: 'side' };
  },

  *reject(event, ctx) {
    const count = this.seen.get(0) + 1;
    this.seen.set(count);
    yield `${count}`;
    ctx.setTimer(event.time + 10, 't');
    if (event.text() === 'bad') throw new Reject('the value is bad');
  },

  *'map-state'(event) {
    const [name, value = ''] = event.text().split('=', 2);
    if (name === '*') yield this.items.entries().map(([key, value]) => `${key}=${decodeText(value)}`).join(',');
    else if (name.endsWith('?')) yield this.items.get(name.slice(0, -1)) ?? 'none';
    else if (name.endsWith('!')) this.items.delete(name.slice(0, -1));
    else this.items.set(name, new Uint8Array([...value].map((letter) => letter.charCodeAt(0))));
  },

  *numbers(event) {
    if (event.text() === '*') {
      yield this.places.entries().map(([place, text]) => `${place}:${text}`).join(',');
      this.places.clear();
    } else {
      this.places.set(Number(event.text()), event.text());
    }
  },

  *text(event) {
    let value: string;
    try {
      value = event.text();
    } catch {
      throw new Reject('not UTF-8');
    }
    yield `${[...value].length}`;
  },

  *bytes(event) {
    yield { value: event.value.slice().reverse(), key: event.key.slice().reverse() };
  },
};

export default operator({
  inputs: ['left', 'right'],
  outputs: ['out', 'side'],

  open(config, setup) {
    this.handle = ops[config.string('op')];
    this.limit = config.integer('limit', 1);
    if (this.limit < 1) throw new ConfigError('expected at least 1', 'limit');
    // What version 1 has left: counts in text, "0" for none, and items without a mark.
    const version = this.handle === ops.migrate ? 2 : 1;
    const count = (old: Uint8Array) => Number(decodeText(old)) || undefined;
    const item = (old: Uint8Array) => Uint8Array.of(...old, 0x21);
    this.seen = setup.value('seen', u64, { version, migrate: { 1: count } });
    this.last = setup.value('last', bytes);
    this.items = setup.map('items', text, bytes, { version, migrate: { 1: item } });
    this.places = setup.map('places', i64, text);
    this.events = setup.counter('events');
  },

  event(event: Event, ctx: Context) {
    this.events.add();
    return this.handle(event, ctx);
  },

  *timer(timer: Timer) {
    const count = this.seen.get(0) + 1;
    this.seen.set(count);
    yield `${decodeText(timer.tag)} at ${timer.time}, number ${count}`;
  },
});
