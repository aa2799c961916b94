import * as state from 'wasmill:operator/state@0.1.0';
import * as timers from 'wasmill:operator/timers@0.1.0';
import { metric, register as registerAs } from './common.js';
import { exportsOf } from './operator.js';

const host = {
  metric,
  getMany: (space, keys, subkeys) => state.getMany(space, keys, subkeys),
  putMany: (space, keys, subkeys, values) => state.putMany(space, keys, subkeys, values),
  deleteMany: (space, keys, subkeys) => state.deleteMany(space, keys, subkeys),
  scan: (space, key, start, limit) => state.scan(space, key, start, limit),
  now: (clock) => Number(timers.now(clock)),
  setTimers: (clock, keys, tags, times) => timers.setMany(clock, keys, tags, times),
  deleteTimers: (clock, keys, tags) => timers.deleteMany(clock, keys, tags),
};

export const register = (plugin, names) => registerAs('operator', plugin, names);
export const { plugin, operator, timed, migration } = exportsOf(host, true);
