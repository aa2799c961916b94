// What the worlds of operators share.

import { Driver } from '../lib/driver.js';
import { describe, guarded, made } from './common.js';

/** The exports of an operator over a host. */
export function exportsOf(host, stateful) {
  let driver;
  const open = (config) => new Driver(made(), config, host, stateful);
  return {
    plugin: {
      describe: (config) => guarded(() => describe((config) => open(config).descriptor, config)),
      open: (config) => guarded(() => void (driver = open(config))),
    },
    operator: {
      process: (port, input) => guarded(() => driver.process(port, input)),
      flush() {},
    },
    timed: {
      onTimers: (clock, fired) => guarded(() => driver.onTimers(clock, fired)),
      onWatermark: (watermark) => guarded(() => driver.onWatermark(watermark)),
    },
    migration: {
      migrate: (space, fromVersion, entries) => guarded(() => driver.migrate(space, fromVersion, entries)),
    },
  };
}
