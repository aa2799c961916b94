import { metric, register as registerAs } from './common.js';
import { exportsOf } from './operator.js';

export const register = (plugin, names) => registerAs('operator', plugin, names);
export const { plugin, operator } = exportsOf({ metric }, false);
