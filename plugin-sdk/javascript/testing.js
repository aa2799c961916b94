// Runs an operator without a host, for its author's tests.

import { AggregateDriver } from './lib/aggregate.js';
import { bit, bitmap, column, rows } from './lib/columns.js';
import { Driver } from './lib/driver.js';
import { ConfigError } from './lib/failure.js';
import * as log from './lib/log.js';
import { decodeText, identity, toBytes } from './lib/text.js';

export { ConfigError };

const joined = (...parts) => parts.map((part) => `${part.length}:${part}`).join('');

/** State, timers, metrics and time in memory. */
class Host {
  entries = new Map();
  timers = new Map();
  metrics = {};
  watermark = 0;
  wall = 0;

  #each(keys, subkeys) {
    const inner = rows(subkeys);
    return rows(keys).map((key, i) => [identity(key), identity(inner[i])]);
  }

  getMany(space, keys, subkeys) {
    const found = this.#each(keys, subkeys).map(([key, sub]) => this.entries.get(joined(`${space}`, key, sub))?.value);
    const there = found.flatMap((value, i) => (value ? [i] : []));
    return [bitmap(there, found.length), column(found.map((value) => value ?? new Uint8Array(0)))];
  }

  putMany(space, keys, subkeys, values) {
    const all = rows(values);
    this.#each(keys, subkeys).forEach(([key, sub], i) => {
      this.entries.set(joined(`${space}`, key, sub), { space, key, sub, subkey: rows(subkeys)[i].slice(), value: all[i].slice() });
    });
  }

  deleteMany(space, keys, subkeys) {
    for (const [key, sub] of this.#each(keys, subkeys)) this.entries.delete(joined(`${space}`, key, sub));
  }

  scan(space, key, start, limit) {
    const own = [...this.entries.values()]
      .filter((entry) => entry.space === space && entry.key === identity(key) && entry.sub >= identity(start))
      .sort((one, other) => (one.sub < other.sub ? -1 : 1))
      .slice(0, limit);
    return [column(own.map((entry) => entry.subkey)), column(own.map((entry) => entry.value))];
  }

  now(clock) {
    return clock === 'event' ? this.watermark : this.wall;
  }

  setTimers(clock, keys, tags, times) {
    this.#each(keys, tags).forEach(([key, tag], i) => {
      this.timers.set(joined(clock, key, tag), { clock, key: rows(keys)[i], tag: rows(tags)[i], at: Number(times[i]) });
    });
  }

  deleteTimers(clock, keys, tags) {
    for (const [key, tag] of this.#each(keys, tags)) this.timers.delete(joined(clock, key, tag));
  }

  metric(kind, name, value) {
    if (kind === 'add') this.metrics[name] = (this.metrics[name] ?? 0) + value;
    else if (kind === 'set') this.metrics[name] = value;
    else (this.metrics[name] ??= []).push(value);
  }
}

export class Tester {
  host = new Host();
  log = [];
  out = [];
  #reasons = [];
  #plugin;
  #config;
  #driver;

  constructor(plugin, config = '') {
    this.#plugin = plugin;
    this.#config = toBytes(typeof config === 'string' ? config : JSON.stringify(config));
    this.restart();
  }

  restart() {
    log.sink.write = (level, message) => this.log.push([level, message]);
    this.#driver = new Driver(this.#plugin.made, this.#config, this.host, true);
  }

  migrate(space, fromVersion, entries) {
    const given = entries.map((entry) => (entry.length === 3 ? entry : [entry[0], '', entry[1]]).map(toBytes));
    const [keys, subkeys, values] = [0, 1, 2].map((part) => column(given.map((entry) => entry[part])));
    const made = this.#driver.migrate(space, fromVersion, { keys, subkeys, values });
    this.host.putMany(space, keys, subkeys, made.values);
    const gone = [0, 1].map((part) => column([...made.dropped].map((row) => given[row][part])));
    this.host.deleteMany(space, ...gone);
  }

  send(key, value, options) {
    this.sendAll([[key, value]], options);
  }

  sendAll(events, { time = 0, port = 0 } = {}) {
    const given = events.map(([key, value]) => ({ time, key: toBytes(key), value: toBytes(value) }));
    const times = BigInt64Array.from(given, (event) => BigInt(event.time));
    const columns = ['keys', 'values'].map((name) => [name, column(given.map((event) => event[name.slice(0, -1)]))]);
    this.#take(this.#driver.process(port, { times, ...Object.fromEntries(columns) }), given);
  }

  watermark(time) {
    this.host.watermark = time;
    this.#fire('event', time);
    if (this.#driver.descriptor.watermarks) this.#take(this.#driver.onWatermark(BigInt(time)), []);
  }

  wall(time) {
    this.host.wall = time;
    this.#fire('processing', time);
  }

  #fire(clock, now) {
    for (;;) {
      const due = [...this.host.timers].filter(([, timer]) => timer.clock === clock && timer.at <= now);
      if (!due.length) return;
      due.sort(([, one], [, other]) => one.at - other.at);
      for (const [id] of due) this.host.timers.delete(id);
      const fired = due.map(([, timer]) => timer);
      const done = this.#driver.onTimers(clock, {
        times: BigInt64Array.from(fired, (timer) => BigInt(timer.at)),
        keys: column(fired.map((timer) => timer.key)),
        tags: column(fired.map((timer) => timer.tag)),
      });
      this.#take(done, fired.map(({ at, key }) => ({ time: at, key, value: new Uint8Array(0) })));
    }
  }

  #take({ emissions, rejected }, given) {
    const refused = new Set(rejected.map(({ row }) => row));
    this.#reasons.push(...rejected.map(({ reason }) => reason));
    for (const { port, output } of emissions) {
      for (const { origin, ...row } of leaving(output, given)) {
        if (!refused.has(origin)) this.out.push({ port, ...row });
      }
    }
  }

  values(port = 0) {
    return this.out.filter((row) => row.port === port).map((row) => decodeText(row.value));
  }

  rejected() {
    return this.#reasons;
  }
}

function leaving({ tag, val }, given) {
  const input = given.map((row, origin) => ({ origin, ...row }));
  switch (tag) {
    case 'unchanged':
      return input;
    case 'keep':
      return input.filter((_, row) => bit(val, row));
    case 'values':
      return rows(val).map((value, row) => ({ ...input[row], value }));
    default: {
      const [keys, values] = [rows(val.batch.keys), rows(val.batch.values)];
      return values.map((value, i) => {
        const origin = val.origins[i];
        const from = input[origin] ?? { time: 0, key: new Uint8Array(0) };
        const time = val.batch.times.length ? Number(val.batch.times[i]) : from.time;
        return { origin, time, key: keys[i] ?? from.key, value };
      });
    }
  }
}

export class WindowTester {
  #driver;
  #size;
  #panes = new Map();
  #values = [];
  #reasons = [];

  constructor(plugin, config = '', size = 60_000_000) {
    log.sink.write = () => {};
    this.#driver = new AggregateDriver(plugin.made, toBytes(typeof config === 'string' ? config : JSON.stringify(config)));
    this.#size = size;
  }

  send(time, key, value) {
    const start = Math.floor(time / this.#size) * this.#size;
    const id = joined(`${start}`, key);
    const pane = this.#panes.get(id) ?? { start, key: toBytes(key), accumulator: new Uint8Array(0) };
    const input = { times: BigInt64Array.of(BigInt(time)), keys: column([pane.key]), values: column([toBytes(value)]) };
    const { accumulators, rejected } = this.#driver.fold(column([pane.accumulator]), [0], input);
    this.#reasons.push(...rejected.map(({ reason }) => reason));
    if (!rejected.length) {
      const merged = this.#driver.merge(accumulators, [0], 1);
      this.#panes.set(id, { ...pane, accumulator: rows(merged)[0] });
    }
  }

  watermark(time) {
    const due = [...this.#panes].filter(([, pane]) => pane.start + this.#size - 1 <= time);
    due.sort(([, one], [, other]) => one.start - other.start);
    const panes = due.map(([, pane]) => pane);
    for (const [id] of due) this.#panes.delete(id);
    const { values } = this.#driver.finish(
      {
        starts: panes.map((pane) => pane.start),
        ends: panes.map((pane) => pane.start + this.#size),
        keys: column(panes.map((pane) => pane.key)),
      },
      column(panes.map((pane) => pane.accumulator)),
    );
    this.#values.push(...rows(values).map(decodeText));
  }

  values() {
    return this.#values;
  }

  rejected() {
    return this.#reasons;
  }
}
