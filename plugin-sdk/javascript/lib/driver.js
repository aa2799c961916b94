// Runs an operator: from the calls of the interface to the functions of the author, and back.

import { rows } from './columns.js';
import { Config } from './config.js';
import { Batch, Context, Event } from './context.js';
import { ConfigError, Fatal, Reject, Retry, reason, story } from './failure.js';
import * as log from './log.js';
import { Setup } from './setup.js';

const ALL = ['times', 'keys', 'values'];

/** What a plugin says about itself, as far as its definition tells. */
export function blank(made) {
  return {
    inputs: made.inputs ?? ['in'],
    outputs: made.outputs ?? ['out'],
    spaces: [],
    columns: Object.fromEntries(ALL.map((name) => [name, (made.columns ?? ALL).includes(name)])),
    watermarks: made.watermark !== undefined,
  };
}

export class Driver {
  constructor(made, config, host, stateful) {
    this.host = host;
    this.stateful = stateful;
    this.setup = new Setup(host, made.outputs ?? ['out']);
    const fields = new Config(config);
    // Each instance has an object of its own.
    this.operator = Object.create(made);
    this.operator.open?.(fields, this.setup);
    fields.done();
    const spaces = this.setup.shared.spaces;
    for (const [what, names] of [['state space', spaces.map((space) => space.name)], ['output port', this.setup.outputs]]) {
      const twice = names.find((name, i) => names.indexOf(name) !== i);
      if (twice !== undefined) throw new ConfigError(`${what} \`${twice}\` is declared twice`);
    }
    if (!stateful && (spaces.length || made.timer || made.watermark)) {
      throw new ConfigError('state, timers and watermarks need world = "stateful" in plugin.toml');
    }
    this.descriptor = { ...blank(made), outputs: this.setup.outputs };
    this.descriptor.columns.keys ||= spaces.length > 0;
    this.descriptor.spaces = spaces.map(({ name, version, ttl }) => ({
      name,
      schemaVersion: version,
      ttl: ttl && { clock: ttl.clock, micros: BigInt(ttl.micros) },
    }));
  }

  process(port, input) {
    const batch = new Batch(port, input);
    const ctx = new Context(this.setup, batch.length, 'input');
    const keys = batch.keys.length ? batch.keys : batch.length ? [new Uint8Array(0)] : [];
    return this.#call(ctx, keys, () => {
      if (this.operator.batch) this.operator.batch(batch, ctx);
      else this.#each(ctx, batch, (event) => this.operator.event(event, ctx));
    });
  }

  #each(ctx, events, handle) {
    for (const event of events) {
      ctx.enter(event);
      try {
        const out = handle(event);
        if (out !== undefined) emit(ctx, out);
      } catch (error) {
        if (error instanceof Retry || error instanceof Fatal) throw error;
        ctx.undo(reason(error));
        if (!(error instanceof Reject)) log.error(story(error));
      }
    }
  }

  onTimers(clock, fired) {
    const [keys, tags] = [rows(fired.keys), rows(fired.tags)];
    const ctx = new Context(this.setup, keys.length, 'timers');
    const events = keys.map((key, row) => new Event(row, 0, Number(fired.times[row]), key, new Uint8Array(0)));
    return this.#call(ctx, keys, () => {
      this.#each(ctx, events, ({ row, time, key }) => this.operator.timer({ clock, time, key, tag: tags[row] }, ctx));
    });
  }

  onWatermark(watermark) {
    const ctx = new Context(this.setup, 0, 'watermark');
    return this.#call(ctx, [], () => {
      const out = this.operator.watermark(Number(watermark), ctx);
      if (out !== undefined) emit(ctx, out);
    });
  }

  migrate(space, fromVersion, { keys, values }) {
    return this.setup.shared.spaces[space].migrate(fromVersion, rows(keys), rows(values));
  }

  #call(ctx, keys, work) {
    const { setup } = this;
    try {
      if (this.stateful) setup.shared.begin(keys);
      work();
      if (this.stateful) {
        setup.shared.finish();
        ctx.sendTimers();
      }
      for (const [kind, name, value] of setup.metrics) this.host.metric(kind, name, value);
      return ctx.outcome();
    } finally {
      setup.metrics.length = 0;
    }
  }
}

/** What a handler yields: an event goes on as it was, an object has more to say, the rest is a value. */
function emit(ctx, out) {
  if (typeof out === 'string' || out instanceof Uint8Array || typeof out?.[Symbol.iterator] !== 'function') {
    throw new TypeError('a handler yields what it emits, or returns nothing; ctx.emit() emits one value');
  }
  for (const item of out) {
    if (item instanceof Event) ctx.forward();
    else if (typeof item === 'string' || item instanceof Uint8Array) ctx.emit(item);
    else ctx.emit(item.value, item);
  }
}
