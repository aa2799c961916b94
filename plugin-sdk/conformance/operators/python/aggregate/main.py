"""Adds up integers by window."""

import wasmill


@wasmill.aggregate
class Sum:
    accumulator = wasmill.u64

    def start(self):
        return 0

    def fold(self, accumulator, event):
        if not event.value.isdigit():
            raise wasmill.Reject("no number")
        return accumulator + int(event.value)

    def merge(self, into, other):
        return into + other

    def finish(self, pane, accumulator):
        yield b"%d..%d %s %d" % (pane.start, pane.end, pane.key, accumulator)
        if accumulator > 100:
            yield "much"
