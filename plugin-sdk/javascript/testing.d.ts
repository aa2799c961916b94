import type { Bytes, Plugin } from './index.js';

export { ConfigError } from './index.js';

/** An operator with its host in its author's hands. */
export class Tester {
  constructor(plugin: Plugin, config?: string | object);
  readonly log: [level: string, message: string][];
  readonly out: { port: number; time: number; key: Bytes; value: Bytes }[];
  readonly host: { metrics: Record<string, unknown>; entries: Map<string, { key: string; value: Bytes }> };
  /** A fresh instance goes on with the same state. */
  restart(): void;
  /** Takes over what an older version has left in a space: of a map with its sub-keys. */
  migrate(
    space: number,
    fromVersion: number,
    entries: ([key: string | Bytes, value: string | Bytes] | [key: string | Bytes, subkey: string | Bytes, value: string | Bytes])[],
  ): void;
  /** One event, as a call of its own. */
  send(key: string | Bytes, value: string | Bytes, options?: { time?: number; port?: number }): void;
  /** Events in one call. */
  sendAll(events: [string | Bytes, string | Bytes][], options?: { time?: number; port?: number }): void;
  /** The watermark rises: event timers fire. */
  watermark(time: number): void;
  /** The wall clock moves on: processing timers fire. */
  wall(time: number): void;
  /** Values that came out of a port, as text. */
  values(port?: number): string[];
  /** Why events were rejected. */
  rejected(): string[];
}

/** An aggregate over tumbling windows of `size` microseconds. */
export class WindowTester {
  constructor(plugin: Plugin, config?: string | object, size?: number);
  send(time: number, key: string, value: string | Bytes): void;
  watermark(time: number): void;
  values(): string[];
  rejected(): string[];
}
