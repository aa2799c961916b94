// Aggregates: pure functions over the accumulators of windows, which the host keeps.

import { column, rows } from './columns.js';
import { Config } from './config.js';
import { Batch } from './context.js';
import { Fatal, Reject, Retry, reason, story } from './failure.js';
import * as log from './log.js';
import { toBytes } from './text.js';

export class AggregateDriver {
  constructor(made, config) {
    const fields = new Config(config);
    this.aggregate = Object.create(made);
    this.aggregate.open?.(fields);
    fields.done();
  }

  #open(bytes) {
    if (!bytes.length) return this.aggregate.start();
    try {
      return this.aggregate.accumulator.decode(bytes);
    } catch (error) {
      throw new Fatal(`an accumulator cannot be read: ${error.message}`);
    }
  }

  #close(accumulators) {
    return column(accumulators.map((one) => this.aggregate.accumulator.encode(one)));
  }

  fold(accumulators, groups, input) {
    const open = rows(accumulators).map((bytes) => this.#open(bytes));
    const rejected = [];
    for (const event of new Batch(0, input)) {
      const group = groups[event.row];
      try {
        open[group] = this.aggregate.fold(open[group], event);
      } catch (error) {
        if (error instanceof Retry || error instanceof Fatal) throw error;
        rejected.push({ row: event.row, reason: reason(error) });
        if (!(error instanceof Reject)) log.error(story(error));
      }
    }
    return { accumulators: this.#close(open), rejected };
  }

  merge(accumulators, groups, count) {
    const merged = new Array(count);
    rows(accumulators).forEach((bytes, i) => {
      const [group, one] = [groups[i], this.#open(bytes)];
      merged[group] = merged[group] === undefined ? one : this.aggregate.merge(merged[group], one);
    });
    return this.#close(Array.from(merged, (one) => one ?? this.aggregate.start()));
  }

  finish({ starts, ends, keys }, accumulators) {
    const values = [];
    const panes = [];
    const names = rows(keys);
    rows(accumulators).forEach((bytes, i) => {
      const pane = { start: Number(starts[i]), end: Number(ends[i]), key: names[i] };
      for (const value of this.aggregate.finish(pane, this.#open(bytes)) ?? []) {
        values.push(toBytes(value));
        panes.push(i);
      }
    });
    return { values: column(values), panes: Uint32Array.from(panes) };
  }
}
