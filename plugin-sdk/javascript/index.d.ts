/**
 * Write Wasmill operators in JavaScript and TypeScript. The default export of the operator's module
 * is what {@link operator}, {@link aggregate}, {@link filter}, {@link map} or {@link flatMap} return.
 *
 * What a handler yields leaves by the first port: an event goes on as it came, text and bytes are new
 * values, a {@link Row} has more to say. An exception rejects the event at hand: it goes to the dead
 * letters with the exception's text, and what it had changed and emitted is undone.
 */
export type Bytes = Uint8Array;
export type Clock = 'event' | 'processing';
export type Column = 'times' | 'keys' | 'values';

/** One event of a batch. Times are microseconds since the Unix epoch. */
export interface Event {
  readonly row: number;
  readonly port: number;
  readonly time: number;
  readonly key: Bytes;
  readonly value: Bytes;
  /** The value as text. One that is not UTF-8 is rejected. */
  text(): string;
  /** The key as text. One that is not UTF-8 is rejected. */
  keyText(): string;
  /** The value as JSON. One that is none is rejected. */
  json(): any;
}

/** A row to emit. What is left out is the event's. */
export interface Row extends RowOptions {
  value: string | Bytes;
}

export interface RowOptions {
  key?: string | Bytes;
  time?: number;
  port?: number | string;
}

/** The events of one call, in columns. A column that was not asked for is empty. */
export interface Batch extends Iterable<Event> {
  readonly port: number;
  readonly length: number;
  readonly times: ArrayLike<number | bigint>;
  readonly keys: readonly Bytes[];
  readonly values: readonly Bytes[];
  /** The event of a row. */
  at(row: number): Event;
}

export interface Timer {
  readonly clock: Clock;
  readonly time: number;
  readonly key: Bytes;
  readonly tag: Bytes;
}

/** Emits rows, sets timers, asks for the time. Rows leave by the first port unless told. */
export interface Context {
  /** Lets the event out as it came in. */
  forward(port?: number | string): void;
  emit(value: string | Bytes, options?: RowOptions): void;
  emitJson(value: unknown, options?: RowOptions): void;
  /** In `batch`: one new value for every event, in order, and nothing else by this port. */
  emitValues(values: readonly (string | Bytes)[], port?: number | string): void;
  /** In `batch`: new values that come from the events of these rows, and nothing else by this port. */
  emitRows(rows: readonly number[], values: readonly (string | Bytes)[], port?: number | string): void;
  /** In `batch`: lets the events of these rows out, in ascending order, and nothing else by this port. */
  keep(rows: readonly number[], port?: number | string): void;
  /** In `batch`: rejects an event. Rows that come from it do not leave. */
  reject(event: Event, reason: string): void;
  /** The watermark of the stage, or the wall clock at the start of the call. */
  now(clock?: Clock): number;
  /** Sets a timer for the key of the event. One per clock, key and tag: setting it again moves it. */
  setTimer(at: number, tag?: string | Bytes, clock?: Clock): void;
  deleteTimer(tag?: string | Bytes, clock?: Clock): void;
}

/** One value per event key. */
export interface Value<T> {
  get(): T | undefined;
  get(fallback: T): T;
  set(value: T): void;
  delete(): void;
  /** In `batch`: the values of keys of the batch. */
  getAll(keys: readonly Bytes[]): (T | undefined)[];
  getAll(keys: readonly Bytes[], fallback: T): T[];
  /** In `batch`: sets the values of keys of the batch, which differ from each other. */
  setAll(keys: readonly Bytes[], values: readonly T[]): void;
}

/** A map per event key. */
export interface KeyedMap<K, V> {
  get(key: K): V | undefined;
  get(key: K, fallback: V): V;
  set(key: K, value: V): void;
  delete(key: K): void;
  /** All entries of the current key in the order of their sub-keys. */
  entries(): [K, V][];
  clear(): void;
}

export interface SpaceOptions<T> {
  /** Raised when the meaning of the bytes changes. */
  version?: number;
  /**
   * For each older version whose entries are taken over: makes a value of their bytes, or `undefined`
   * where the entry goes.
   */
  migrate?: { [fromVersion: number]: (old: Bytes) => T | undefined };
  /** Entries vanish this many microseconds after they were last written. */
  ttl?: { clock: Clock; micros: number };
}

/** Declares state and metrics. The same configuration declares the same. */
export interface Setup {
  /** Names of the output ports, the default first; may be replaced. */
  outputs: string[];
  value<T>(name: string, codec: Codec<T>, options?: SpaceOptions<T>): Value<T>;
  map<K, V>(name: string, key: KeyCodec<K>, codec: Codec<V>, options?: SpaceOptions<V>): KeyedMap<K, V>;
  counter(name: string): { add(delta?: number): void };
  gauge(name: string): { set(value: number): void };
  histogram(name: string): { observe(value: number): void };
}

/** Fields of the stage's `config`. One that nobody asked for is an error. */
export interface Config {
  get(name: string, fallback?: unknown): any;
  string(name: string, fallback?: string): string;
  integer(name: string, fallback?: number): number;
  number(name: string, fallback?: number): number;
  boolean(name: string, fallback?: boolean): boolean;
}

export type Emitted = Iterable<Event | Row | string | Bytes>;

export interface Operator {
  inputs?: string[];
  outputs?: string[];
  columns?: Column[];
  open?(config: Config, setup: Setup): void;
  event?(event: Event, ctx: Context): Emitted | void;
  batch?(batch: Batch, ctx: Context): void;
  timer?(timer: Timer, ctx: Context): Emitted | void;
  watermark?(watermark: number, ctx: Context): Emitted | void;
}

export interface Pane {
  readonly start: number;
  readonly end: number;
  readonly key: Bytes;
}

export interface Aggregate<A> {
  columns?: Column[];
  accumulator: Codec<A>;
  open?(config: Config): void;
  start(): A;
  fold(accumulator: A, event: Event): A;
  merge(into: A, other: A): A;
  finish(pane: Pane, accumulator: A): Iterable<string | Bytes>;
}

export interface Plugin {
  readonly kind: 'operator' | 'aggregate';
}

/** Makes an object the operator of this plugin. `S` is what `open` adds to `this`. */
export function operator<S extends object>(made: Operator & S & ThisType<Operator & S & Record<string, any>>): Plugin;
export function aggregate<A, S extends object = {}>(
  made: Aggregate<A> & S & ThisType<Aggregate<A> & S & Record<string, any>>,
): Plugin;
/** Lets events through for which a function says so. */
export function filter(keeps: (event: Event) => boolean): Plugin;
/** Makes one new value of every event. */
export function map(change: (event: Event) => string | Bytes): Plugin;
/** Makes any number of rows of every event. */
export function flatMap(change: (event: Event) => Emitted): Plugin;

/** How a type becomes bytes: the same in every language. */
export interface Codec<T> {
  encode(value: T): Bytes;
  decode(bytes: Bytes): T;
}
export interface KeyCodec<T> extends Codec<T> {
  key(value: T): Bytes;
  unkey(bytes: Bytes): T;
}
/** Beyond 2^53 integers are `bigint`. */
export const u64: KeyCodec<number>;
export const i64: KeyCodec<number>;
export const f64: Codec<number>;
export const bool: Codec<boolean>;
export const text: KeyCodec<string>;
export const bytes: KeyCodec<Bytes>;
export const json: Codec<any>;

/** The event at hand cannot be processed: it goes to the dead letters with these words. */
export class Reject extends Error {}
/** The call may succeed later. Nothing of it counts. */
export class Retry extends Error {}
/** The call fails always. Nothing of it counts. */
export class Fatal extends Error {}
export class ConfigError extends Error {
  constructor(message: string, field?: string);
}

export function decodeText(bytes: Bytes): string;
export function encodeText(text: string): Bytes;
export namespace log {
  function debug(message: unknown): void;
  function info(message: unknown): void;
  function warn(message: unknown): void;
  function error(message: unknown): void;
}
