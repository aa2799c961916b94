// The configuration of a stage.

import { decodeText } from './text.js';
import { ConfigError } from './failure.js';

export class Config {
  #fields;
  #asked = [];

  constructor(data) {
    const given = decodeText(data).trim();
    let value;
    try {
      value = given ? JSON.parse(given) : {};
    } catch (error) {
      throw new ConfigError(error.message);
    }
    value ??= {};
    if (typeof value !== 'object' || Array.isArray(value)) {
      throw new ConfigError(`expected an object, found ${JSON.stringify(value)}`);
    }
    this.#fields = value;
  }

  get(name, fallback) {
    this.#asked.push(name);
    return Object.hasOwn(this.#fields, name) ? this.#fields[name] : fallback;
  }

  string(name, fallback) {
    return this.#typed(name, fallback, 'a string', (value) => typeof value === 'string');
  }

  integer(name, fallback) {
    return this.#typed(name, fallback, 'an integer', Number.isInteger);
  }

  number(name, fallback) {
    return this.#typed(name, fallback, 'a number', (value) => typeof value === 'number');
  }

  boolean(name, fallback) {
    return this.#typed(name, fallback, 'true or false', (value) => typeof value === 'boolean');
  }

  #typed(name, fallback, what, fits) {
    const value = this.get(name, fallback);
    if (value === undefined) throw new ConfigError(`missing field \`${name}\``);
    if (Object.hasOwn(this.#fields, name) && !fits(value)) {
      throw new ConfigError(`expected ${what}, found ${JSON.stringify(value)}`, name);
    }
    return value;
  }

  done() {
    for (const name of Object.keys(this.#fields)) {
      if (this.#asked.includes(name)) continue;
      const known = this.#asked.map((asked) => `\`${asked}\``).join(' or ');
      throw new ConfigError(`unknown field \`${name}\`, ${known ? `expected ${known}` : 'this operator takes none'}`, name);
    }
  }
}
