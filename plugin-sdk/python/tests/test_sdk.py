import pytest

import wasmill
from wasmill.testing import Tester, WindowTester


@wasmill.operator
class Count:
    def open(self, config, setup):
        self.seen = setup.value("seen", wasmill.u64)
        self.events = setup.counter("events")

    def event(self, event, ctx):
        count = self.seen.get(0) + 1
        self.seen.set(count)
        self.events.add()
        if event.value == b"bad":
            raise wasmill.Reject("it is bad")
        yield str(count)


def test_state_outlives_an_instance_and_a_rejected_event_leaves_no_trace():
    test = Tester(Count)
    test.send_all([("a", "x"), ("b", "x"), ("a", "bad"), ("a", "x")])
    test.restart()
    test.send("a", "x")
    assert test.values() == [b"1", b"1", b"2", b"3"]
    assert test.rejected() == ["it is bad"]
    assert test.host.entries[0, b"a", b""] == (3).to_bytes(8, "little")


@wasmill.operator
class Forms:
    outputs = ("out", "side")

    def event(self, event, ctx):
        match event.text():
            case "drop":
                pass
            case "twice":
                yield event
                yield b"again"
            case "key":
                yield wasmill.Row("keyed", key="k2", time=7)
            case "side":
                ctx.emit("aside", port="side")
            case _:
                yield event


def _form(values):
    test = Tester(Forms)
    keys = wasmill.context.columns.column([b"k"] * len(values))
    data = wasmill.context.columns.column([value.encode() for value in values])
    emissions, rejected = test._driver.process(0, [1] * len(values), keys, data)
    return emissions, rejected


def test_the_smallest_form_is_taken():
    assert _form(["a", "b"]) == ([(0, ("unchanged", None))], [])
    assert _form(["a", "drop", "b"]) == ([(0, ("keep", [0b101]))], [])
    assert _form(["drop"]) == ([], [])
    (port, (form, what)), = _form(["a", "twice"])[0]
    assert (port, form) == (0, "rows")
    assert what == ([], ([], b""), ([1, 6, 11], b"atwiceagain"), [0, 1, 1])
    (_, (form, what)), = _form(["a", "key"])[0]
    assert (form, what[0], what[1]) == ("rows", [1, 7], ([1, 3], b"kk2"))
    assert _form(["side"])[0] == [(1, ("values", ([5], b"aside")))]


def test_an_exception_rejects_its_event_and_says_where():
    @wasmill.map
    def broken(event):
        return str(1 // len(event.value))

    test = Tester(broken)
    test.send_all([("a", ""), ("a", "x")])
    assert test.values() == [b"1"]
    assert test.rejected()[0].startswith("ZeroDivisionError: ") and "test_sdk.py:" in test.rejected()[0]
    assert test.log[0][0] == "error" and "Traceback" in test.log[0][1]


@wasmill.operator
class Baskets:
    def open(self, config, setup):
        self.items = setup.map("items", wasmill.i64, wasmill.text)
        self.wait = config.int("wait", 10)

    def event(self, event, ctx):
        self.items.set(int(event.value), event.text())
        ctx.set_timer(event.time + self.wait, "close")

    def timer(self, timer, ctx):
        yield ",".join(value for _, value in self.items.items())
        self.items.clear()


def test_maps_are_sorted_and_timers_fire():
    test = Tester(Baskets, '{"wait": 5}')
    for value in ["3", "-1", "20"]:
        test.send("k", value, time=1)
    test.watermark(5)
    assert test.values() == []
    test.watermark(6)
    assert test.values() == [b"-1,3,20"]
    assert test.host.entries == {}


def test_errors_of_a_configuration_name_the_field():
    for config, expected in [
        ('{"wait": "x"}', 'config: `wait`: expected an integer, found "x"'),
        ('{"wiat": 1}', "config: `wiat`: unknown field `wiat`, expected `wait`"),
        ("[1]", "config: expected an object, found [1]"),
    ]:
        with pytest.raises(wasmill.ConfigError, match="config: ") as error:
            Tester(Baskets, config)
        assert str(error.value) == expected


@wasmill.aggregate
class Sum:
    accumulator = wasmill.u64

    def start(self):
        return 0

    def fold(self, accumulator, event):
        return accumulator + int(event.value)

    def merge(self, into, other):
        return into + other

    def finish(self, pane, accumulator):
        yield f"{pane.start}..{pane.end}: {accumulator}"


def test_windows_fire():
    test = WindowTester(Sum, size=10)
    test.send(3, "k", "5")
    test.send(4, "k", "6")
    test.send(4, "k", "x")
    test.watermark(9)
    assert test.values() == [b"0..10: 11"]
    assert len(test.rejected()) == 1


def test_entries_of_a_known_version_are_taken_over():
    @wasmill.operator
    class Counted:
        def open(self, config, setup):
            self.seen = setup.value("seen", wasmill.u64, version=2, migrate={1: lambda old: int(old) or None})

        def event(self, event, ctx):
            self.seen.set(self.seen.get(0) + 1)
            yield str(self.seen.get())

    test = Tester(Counted)
    test.migrate(0, 1, [("a", "41"), ("b", "0")])
    test.send_all([("a", ""), ("b", "")])
    assert test.values() == [b"42", b"1"]
    with pytest.raises(wasmill.Fatal, match="no migration from version 7"):
        test.migrate(0, 7, [])
    with pytest.raises(wasmill.Fatal, match="`seen`, key b'k', is none of version 1"):
        test.migrate(0, 1, [("k", "x")])
