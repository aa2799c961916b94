// What an operator declares when it is opened.

import { KeyedMap, Shared, Value } from './state.js';

class Metric {
  #pending;
  #kind;
  #name;

  constructor(pending, kind, name) {
    [this.#pending, this.#kind, this.#name] = [pending, kind, name];
  }

  add(delta = 1) {
    this.#pending.push([this.#kind, this.#name, delta]);
  }

  set(value) {
    this.add(value);
  }

  observe(value) {
    this.add(value);
  }
}

export class Setup {
  metrics = [];

  constructor(host, outputs) {
    this.shared = new Shared(host);
    this.outputs = [...outputs];
  }

  value(name, codec, options = {}) {
    return new Value(this.shared, name, codec, options);
  }

  map(name, key, codec, options = {}) {
    if (!key.key) throw new TypeError('the key of a map is u64, i64, text or bytes');
    return new KeyedMap(this.shared, name, key, codec, options);
  }

  counter(name) {
    return new Metric(this.metrics, 'add', name);
  }

  gauge(name) {
    return new Metric(this.metrics, 'set', name);
  }

  histogram(name) {
    return new Metric(this.metrics, 'observe', name);
  }
}
