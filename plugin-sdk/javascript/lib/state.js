// State by the key of the event at hand. A call fetches the values of its keys together, keeps them
// for the call, and writes what has changed together at its end. Nothing is kept between calls: an
// instance can be replaced at any of them.

import { bit, column, rows } from './columns.js';
import { Fatal, reason } from './failure.js';
import { identity } from './text.js';

const ABSENT = Symbol('absent');
const PAGE = 1024;
const NO_SUBKEY = new Uint8Array(0);

/** What the spaces of one operator share: the host, and the key of the row at hand. */
export class Shared {
  key = null;
  id = null;
  spaces = [];
  journal = [];

  constructor(host) {
    this.host = host;
  }

  begin(keys) {
    if (!this.spaces.length) return;
    const distinct = new Map();
    for (const key of keys) {
      const id = identity(key);
      if (!distinct.has(id)) distinct.set(id, key);
    }
    for (const space of this.spaces) space.load(distinct);
  }

  enter(key) {
    this.key = key;
    this.id = null;
    if (this.journal.length) this.journal = [];
  }

  undo() {
    for (const { space, id, old, dirty } of this.journal.reverse()) {
      space.cells.set(id, old);
      if (!dirty) space.dirty.delete(id);
    }
    this.journal = [];
  }

  finish() {
    this.key = null;
    this.journal = [];
    for (const space of this.spaces) space.write();
  }

  current() {
    if (this.key === null) {
      throw new Error('state and timers belong to the key of an event or a timer, and there is none here');
    }
    return (this.id ??= identity(this.key));
  }
}

class Space {
  cells = new Map();
  dirty = new Set();

  constructor(shared, name, codec, options) {
    const { version = 1, ttl, migrate = {} } = options;
    Object.assign(this, { shared, name, codec, version, ttl, turns: migrate });
    this.number = shared.spaces.length;
    shared.spaces.push(this);
  }

  decode(bytes) {
    try {
      return this.codec.decode(bytes);
    } catch (error) {
      throw new Fatal(
        `an entry of state space \`${this.name}\` cannot be read: ${error.message}; ` +
          'if its type has changed, raise the version of the space',
      );
    }
  }

  /** Entries of an older version as this one has them, and the places of those that go. */
  migrate(fromVersion, keys, values) {
    const turn = this.turns[fromVersion];
    if (!turn) {
      throw new Fatal(
        `state space \`${this.name}\` has version ${this.version}, and no migration from version ${fromVersion}`,
      );
    }
    const dropped = [];
    const made = values.map((value, row) => {
      try {
        const now = turn(value);
        if (now !== undefined) return this.codec.encode(now);
      } catch (error) {
        const key = identity(keys[row]);
        throw new Fatal(
          `an entry of state space \`${this.name}\`, key ${key}, is none of version ${fromVersion}: ${reason(error)}`,
        );
      }
      dropped.push(row);
      return NO_SUBKEY;
    });
    return { values: column(made), dropped: Uint32Array.from(dropped) };
  }

  change(id, place, value) {
    const old = this.cells.get(id);
    this.shared.journal.push({ space: this, id, old, dirty: this.dirty.has(id) });
    this.cells.set(id, { place: old?.place ?? place, value });
    this.dirty.add(id);
  }

  /** Brings these places in: pairs of a key and a sub-key, by their ids. */
  fetch(ids, places) {
    const keys = column(places.map((place) => place[0]));
    const [found, column_] = this.shared.host.getMany(this.number, keys, column(places.map((place) => place[1])));
    const values = rows(column_);
    for (let i = 0; i < ids.length; i++) {
      this.cells.set(ids[i], { place: places[i], value: bit(found, i) ? this.decode(values[i]) : ABSENT });
    }
  }

  write() {
    const put = [];
    const gone = [];
    for (const id of this.dirty) {
      const cell = this.cells.get(id);
      (cell.value === ABSENT ? gone : put).push(cell);
    }
    const keys = (cells) => column(cells.map((cell) => cell.place[0]));
    const subkeys = (cells) => column(cells.map((cell) => cell.place[1]));
    const { host } = this.shared;
    if (put.length) {
      const values = column(put.map((cell) => this.codec.encode(cell.value)));
      host.putMany(this.number, keys(put), subkeys(put), values);
    }
    if (gone.length) host.deleteMany(this.number, keys(gone), subkeys(gone));
    this.reset();
  }

  reset() {
    this.cells = new Map();
    this.dirty = new Set();
  }
}

export class Value extends Space {
  load(distinct) {
    this.reset();
    if (distinct.size) this.fetch([...distinct.keys()], [...distinct.values()].map((key) => [key, NO_SUBKEY]));
  }

  get(fallback) {
    const { value } = this.cells.get(this.shared.current());
    return value === ABSENT ? fallback : value;
  }

  set(value) {
    this.change(this.shared.current(), [this.shared.key, NO_SUBKEY], value);
  }

  getAll(keys, fallback) {
    return keys.map((key) => {
      const { value } = this.cells.get(identity(key));
      return value === ABSENT ? fallback : value;
    });
  }

  setAll(keys, values) {
    for (let i = 0; i < keys.length; i++) {
      const id = identity(keys[i]);
      this.cells.set(id, { place: [keys[i], NO_SUBKEY], value: values[i] });
      this.dirty.add(id);
    }
  }

  delete() {
    this.set(ABSENT);
  }
}

export class KeyedMap extends Space {
  complete = new Set();

  constructor(shared, name, keyCodec, codec, options) {
    super(shared, name, codec, options);
    this.keyCodec = keyCodec;
  }

  load() {
    this.reset();
    this.complete = new Set();
  }

  #at(subkey) {
    // Lengths keep keys and sub-keys apart.
    const key = this.shared.current();
    const id = `${key.length}:${key}${identity(subkey)}`;
    const place = [this.shared.key, subkey];
    if (!this.cells.has(id)) {
      if (this.complete.has(key)) this.cells.set(id, { place, value: ABSENT });
      else this.fetch([id], [place]);
    }
    return [id, place];
  }

  get(key, fallback) {
    const { value } = this.cells.get(this.#at(this.keyCodec.key(key))[0]);
    return value === ABSENT ? fallback : value;
  }

  set(key, value) {
    this.change(...this.#at(this.keyCodec.key(key)), value);
  }

  delete(key) {
    this.set(key, ABSENT);
  }

  entries() {
    this.#scan();
    const current = this.shared.current();
    const prefix = `${current.length}:${current}`;
    const own = [...this.cells].filter(([id, cell]) => id.startsWith(prefix) && cell.value !== ABSENT);
    own.sort(([one], [other]) => (one < other ? -1 : 1));
    return own.map(([, { place, value }]) => [this.keyCodec.unkey(place[1]), value]);
  }

  clear() {
    for (const [key] of this.entries()) this.delete(key);
  }

  #scan() {
    const current = this.shared.current();
    if (this.complete.has(current)) return;
    let start = NO_SUBKEY;
    for (;;) {
      const [subkeys, values] = this.shared.host.scan(this.number, this.shared.key, start, PAGE).map(rows);
      subkeys.forEach((subkey, i) => {
        const id = `${current.length}:${current}${identity(subkey)}`;
        // What is in memory is as new or newer.
        if (!this.cells.has(id)) this.cells.set(id, { place: [this.shared.key, subkey], value: this.decode(values[i]) });
      });
      if (subkeys.length < PAGE) break;
      start = new Uint8Array(subkeys[PAGE - 1].length + 1);
      start.set(subkeys[PAGE - 1]);
    }
    this.complete.add(current);
  }
}
