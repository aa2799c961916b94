// Events, and what an operator acts through during a call.

import { bitmap, column, empty, rows } from './columns.js';
import { Reject } from './failure.js';
import { decodeText, encodeText, toBytes } from './text.js';

const NOTHING = new Uint8Array(0);

export class Event {
  constructor(row, port, time, key, value) {
    this.row = row;
    this.port = port;
    this.time = time;
    this.key = key;
    this.value = value;
  }

  text() {
    try {
      return decodeText(this.value);
    } catch {
      throw new Reject('not UTF-8');
    }
  }

  keyText() {
    try {
      return decodeText(this.key);
    } catch {
      throw new Reject('the key is not UTF-8');
    }
  }

  json() {
    const text = this.text();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Reject(`not JSON: ${error.message}`);
    }
  }
}

export class Batch {
  constructor(port, { times, keys, values }) {
    this.port = port;
    this.times = times;
    this.keys = rows(keys);
    this.values = rows(values);
    this.length = Math.max(times.length, this.keys.length, this.values.length);
  }

  at(row) {
    const { port, times, keys, values } = this;
    return new Event(row, port, Number(times[row] ?? 0), keys[row] ?? NOTHING, values[row] ?? NOTHING);
  }

  *[Symbol.iterator]() {
    for (let row = 0; row < this.length; row++) yield this.at(row);
  }
}

export class Context {
  rejected = [];
  #shared;
  #names;
  #count;
  #kind;
  #ports;
  #marks = [];
  #event = new Event(0, 0, 0, NOTHING, NOTHING);
  #timers = [];
  #settled = 0;
  #now = {};

  constructor(setup, count, kind) {
    [this.#shared, this.#names, this.#count, this.#kind] = [setup.shared, setup.outputs, count, kind];
    // Of each port: the event each row comes from, its value (null where the event goes on as it
    // was), its own key and time.
    this.#ports = setup.outputs.map(() => ({ events: [], values: [], keys: [], times: [], own: false }));
  }

  #port(port) {
    const at = typeof port === 'string' ? this.#names.indexOf(port) : port;
    if (!(at in this.#ports)) throw new RangeError(`no output port ${port}; this operator declares ${this.#names}`);
    return this.#ports[at];
  }

  forward(port = 0) {
    if (this.#kind !== 'input') throw new Error('only events can be forwarded: a timer or a watermark emits rows');
    this.#add(this.#port(port), null);
  }

  emit(value, options) {
    const port = this.#port(options?.port ?? 0);
    const key = options?.key === undefined ? undefined : toBytes(options.key);
    this.#add(port, toBytes(value), key, options?.time);
  }

  emitJson(value, options) {
    this.emit(encodeText(JSON.stringify(value)), options);
  }

  emitValues(values, port = 0) {
    if (values.length !== this.#count) throw new RangeError(`${values.length} values for ${this.#count} events`);
    this.#port(port).done = { tag: 'values', val: column(values.map(toBytes)) };
  }

  emitRows(rows, values, port = 0) {
    if (values.length !== rows.length) throw new RangeError(`${values.length} values for ${rows.length} rows`);
    const batch = { times: new BigInt64Array(0), keys: empty(), values: column(values.map(toBytes)) };
    this.#port(port).done = { tag: 'rows', val: { batch, origins: Uint32Array.from(rows) } };
  }

  keep(rows, port = 0) {
    this.#port(port).done = this.#kept(rows);
  }

  reject(event, reason) {
    this.rejected.push({ row: event.row, reason });
  }

  #add(port, value, key, time) {
    port.events.push(this.#event);
    port.values.push(value);
    port.keys.push(key);
    port.times.push(time);
    port.own ||= key !== undefined || time !== undefined;
  }

  now(clock = 'event') {
    return (this.#now[clock] ??= this.#shared.host.now(clock));
  }

  setTimer(at, tag = '', clock = 'event') {
    this.#shared.current();
    this.#timers.push({ clock, key: this.#shared.key, tag: toBytes(tag), at });
  }

  deleteTimer(tag = '', clock = 'event') {
    this.setTimer(null, tag, clock);
  }

  enter(event) {
    this.#event = event;
    this.#shared.enter(event.key);
    this.#settled = this.#timers.length;
    this.#marks = this.#ports.map((port) => port.events.length);
  }

  undo(reason) {
    this.#shared.undo();
    this.#timers.length = this.#settled;
    this.#ports.forEach((port, i) => {
      for (const part of [port.events, port.values, port.keys, port.times]) part.length = this.#marks[i];
    });
    this.rejected.push({ row: this.#event.row, reason });
  }

  sendTimers() {
    const { host } = this.#shared;
    let run = [];
    for (const change of [...this.#timers, undefined]) {
      const last = run[0];
      if (last && (change?.clock !== last.clock || (change.at === null) !== (last.at === null))) {
        const keys = column(run.map((one) => one.key));
        const tags = column(run.map((one) => one.tag));
        if (last.at === null) host.deleteTimers(last.clock, keys, tags);
        else host.setTimers(last.clock, keys, tags, BigInt64Array.from(run, (one) => BigInt(one.at)));
        run = [];
      }
      run.push(change);
    }
  }

  /** What leaves by each port, in the smallest form that says it. */
  outcome() {
    const emissions = [];
    this.#ports.forEach((rows, port) => {
      const output = this.#output(rows);
      if (output) emissions.push({ port, output });
    });
    return { emissions, rejected: this.rejected };
  }

  #output({ events, values, keys, times, own, done }) {
    if (done) return done.val?.length === 0 || done.val?.origins?.length === 0 ? null : done;
    const count = events.length;
    if (!count) return null;
    if (this.#kind === 'input' && !own) {
      const forwarded = values.reduce((sum, value) => sum + (value === null), 0);
      if (forwarded === count && events.every((event, i) => !i || events[i - 1].row < event.row)) {
        return this.#kept(events.map((event) => event.row));
      }
      if (!forwarded && count === this.#count && events.every((event, i) => event.row === i)) {
        return { tag: 'values', val: column(values) };
      }
    }
    const ownTimes = times.some((time) => time !== undefined);
    const ownKeys = keys.some((key) => key !== undefined);
    return {
      tag: 'rows',
      val: {
        batch: {
          times: ownTimes ? BigInt64Array.from(times, (time, i) => BigInt(time ?? events[i].time)) : new BigInt64Array(0),
          keys: ownKeys ? column(keys.map((key, i) => key ?? events[i].key)) : empty(),
          values: column(values.map((value, i) => value ?? events[i].value)),
        },
        origins: this.#kind === 'watermark' ? new Uint32Array(0) : Uint32Array.from(events, (event) => event.row),
      },
    };
  }

  #kept(rows) {
    if (rows.length === this.#count) return { tag: 'unchanged' };
    return { tag: 'keep', val: rows.length ? bitmap(rows, this.#count) : [] };
  }
}
