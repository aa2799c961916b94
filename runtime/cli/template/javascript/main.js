// Lets an event through when its number is a new record for its key.

import { Reject, f64, operator } from 'wasmill';

export default operator({
  open(config, setup) {
    this.field = config.string('field');
    // It belongs to the key of the event at hand.
    this.highest = setup.value('highest', f64);
  },

  *event(event) {
    const number = event.json()[this.field];
    // It goes to the dead letters, the rest goes on.
    if (typeof number !== 'number') throw new Reject(`field \`${this.field}\` is missing, expected a number`);
    const highest = this.highest.get();
    if (highest === undefined || number > highest) {
      this.highest.set(number);
      yield event;
    }
  },
});
