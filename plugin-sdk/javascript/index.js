// Write Wasmill operators in JavaScript and TypeScript. What each part does stands in index.d.ts.

export { operator, aggregate, filter, map, flatMap } from './lib/plugin.js';
export { u64, i64, f64, bool, text, bytes, json } from './lib/codec.js';
export { Reject, Retry, Fatal, ConfigError } from './lib/failure.js';
export { decodeText, encodeText } from './lib/text.js';
export * as log from './lib/log.js';
