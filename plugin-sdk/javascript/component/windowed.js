import { AggregateDriver } from '../lib/aggregate.js';
import { blank } from '../lib/driver.js';
import { describe, guarded, made, register as registerAs } from './common.js';

let driver;
const open = (config) => new AggregateDriver(made(), config);

export const register = (plugin, names) => registerAs('aggregate', plugin, names);
export const plugin = {
  describe: (config) => guarded(() => describe((config) => open(config) && blank(made()), config)),
  open: (config) => guarded(() => void (driver = open(config))),
};
export const aggregate = {
  fold: (accumulators, groups, input) => guarded(() => driver.fold(accumulators, groups, input)),
  merge: (accumulators, groups, count) => guarded(() => driver.merge(accumulators, groups, count)),
  finish: (panes, accumulators) => guarded(() => driver.finish(panes, accumulators)),
};
