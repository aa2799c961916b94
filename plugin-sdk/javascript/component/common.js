// The glue between an operator and the generated bindings: only in a component.

import * as hostLog from 'wasmill:operator/log@0.1.0';
import * as hostMetrics from 'wasmill:operator/metrics@0.1.0';
import { ConfigError, Fatal, Retry, reason, story } from '../lib/failure.js';
import * as log from '../lib/log.js';
import { blank } from '../lib/driver.js';

log.sink.write = (level, message) => hostLog.write(level, message);

export const metric = (kind, name, value) => hostMetrics[kind](name, value);

const registered = {};

/** Says which operator this component is. */
export function register(kind, plugin, names) {
  if (plugin?.kind !== kind) {
    throw new TypeError(`the default export has to be made with ${kind === 'operator' ? 'operator' : 'aggregate'}({…})`);
  }
  Object.assign(registered, names, { made: plugin.made });
}

export const made = () => registered.made;

/** Runs a call; what it throws is the call's failure. */
export function guarded(call) {
  try {
    return call();
  } catch (error) {
    if (error instanceof Retry) throw { tag: 'retry', val: error.message };
    if (error instanceof Fatal || error instanceof ConfigError) throw { tag: 'fatal', val: error.message };
    log.error(story(error));
    throw { tag: 'fatal', val: reason(error) };
  }
}

/** What the plugin says about itself. */
export function describe(open, config) {
  let described;
  try {
    described = open(config);
  } catch (error) {
    // Without a configuration there is nothing wrong with one.
    if (config.length) throw error;
    described = blank(registered.made);
  }
  return { name: registered.name, version: registered.version, ...described };
}
