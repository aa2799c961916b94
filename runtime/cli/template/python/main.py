"""Lets an event through when its number is a new record for its key."""

import wasmill


@wasmill.operator
class Records:
    """Its state belongs to the key of the event at hand."""

    def open(self, config, setup):
        self.field = config.str("field")
        self.highest = setup.value("highest", wasmill.f64)

    def event(self, event, ctx):
        number = event.json().get(self.field)
        if not isinstance(number, (int, float)):
            # It goes to the dead letters, the rest goes on.
            raise wasmill.Reject(f"field `{self.field}` is missing, expected a number")
        highest = self.highest.get()
        if highest is None or number > highest:
            self.highest.set(number)
            yield event
