"""Every case of the conformance suite that is an operator: `config.op` says which."""

import wasmill


@wasmill.operator
class Conformance:
    inputs = ("left", "right")
    outputs = ("out", "side")

    def open(self, config, setup):
        self.handle = getattr(self, "op_" + config.str("op").replace("-", "_"))
        self.limit = config.int("limit", 1)
        if self.limit < 1:
            raise wasmill.ConfigError("expected at least 1", "limit")
        # What version 1 has left: counts in text, "0" for none, and items without a mark.
        version, turns = 1, {}
        if self.handle == self.op_migrate:
            version, turns = 2, {"seen": {1: lambda old: int(old) or None}, "items": {1: lambda old: old + b"!"}}
        self.seen = setup.value("seen", wasmill.u64, version, migrate=turns.get("seen"))
        self.last = setup.value("last", wasmill.bytes_)
        self.items = setup.map("items", wasmill.text, wasmill.bytes_, version, migrate=turns.get("items"))
        self.places = setup.map("places", wasmill.i64, wasmill.text)
        self.events = setup.counter("events")

    def event(self, event, ctx):
        self.events.add()
        return self.handle(event, ctx)

    def op_filter(self, event, ctx):
        if b"x" in event.value:
            yield event

    def op_map(self, event, ctx):
        yield event.value.upper()

    def op_flat_map(self, event, ctx):
        for word in event.value.split(b" "):
            if word:
                yield word

    def op_count(self, event, ctx):
        count = self.seen.get(0) + 1
        self.seen.set(count)
        yield str(count)

    def op_migrate(self, event, ctx):
        yield from self.op_count(event, ctx)
        yield b",".join(key.encode() + b"=" + value for key, value in self.items.items())

    def op_timers(self, event, ctx):
        if event.value == b"cancel":
            ctx.delete_timer("a")
        else:
            ctx.set_timer(event.time + 10, event.value)

    def timer(self, timer, ctx):
        count = self.seen.get(0) + 1
        self.seen.set(count)
        yield b"%s at %d, number %d" % (timer.tag, timer.time, count)

    def op_two_inputs(self, event, ctx):
        if event.port == 0:
            self.last.set(event.value)
        else:
            yield self.last.get(b"nothing") + b"|" + event.value

    def op_side(self, event, ctx):
        if len(event.value) % 2 == 0:
            yield event
        else:
            yield wasmill.Row(event.value, key="odd", time=event.time + 1, port="side")

    def op_reject(self, event, ctx):
        count = self.seen.get(0) + 1
        self.seen.set(count)
        yield str(count)
        ctx.set_timer(event.time + 10, "t")
        if event.value == b"bad":
            raise wasmill.Reject("the value is bad")

    def op_map_state(self, event, ctx):
        name, _, value = event.text().partition("=")
        if name == "*":
            yield b",".join(key.encode() + b"=" + value for key, value in self.items.items())
        elif name.endswith("?"):
            yield self.items.get(name[:-1], b"none")
        elif name.endswith("!"):
            self.items.delete(name[:-1])
        else:
            self.items.set(name, value.encode())

    def op_numbers(self, event, ctx):
        if event.value == b"*":
            yield ",".join(f"{place}:{text}" for place, text in self.places.items())
            self.places.clear()
        else:
            self.places.set(int(event.value), event.text())

    def op_text(self, event, ctx):
        try:
            text = event.value.decode()
        except UnicodeDecodeError:
            raise wasmill.Reject("not UTF-8") from None
        yield str(len(text))

    def op_bytes(self, event, ctx):
        yield wasmill.Row(event.value[::-1], key=event.key[::-1])
