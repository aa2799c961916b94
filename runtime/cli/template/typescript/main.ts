// Lets an event through when its number is a new record for its key.

import { Reject, f64, operator } from 'wasmill';
import type { Config, Event, Setup, Value } from 'wasmill';

class Records {
  field!: string;
  // It belongs to the key of the event at hand.
  highest!: Value<number>;

  open(config: Config, setup: Setup) {
    this.field = config.string('field');
    this.highest = setup.value('highest', f64);
  }

  *event(event: Event) {
    const number: unknown = event.json()[this.field];
    // It goes to the dead letters, the rest goes on.
    if (typeof number !== 'number') throw new Reject(`field \`${this.field}\` is missing, expected a number`);
    const highest = this.highest.get();
    if (highest === undefined || number > highest) {
      this.highest.set(number);
      yield event;
    }
  }
}

export default operator(new Records());
