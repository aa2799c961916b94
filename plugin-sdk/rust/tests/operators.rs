//! Operators as an author writes them, run by `testing`.

use std::time::Duration;

use wasmill_sdk::prelude::*;
use wasmill_sdk::testing::{Tester, WindowTester, logs};

wasmill_sdk::filter!(Long, |event| Ok(event.value().len() > 1));
wasmill_sdk::map!(Doubled, |event| Ok(event.value().repeat(2)));
wasmill_sdk::flat_map!(Letters, |event, ctx| {
    event.text()?.chars().for_each(|c| ctx.emit(c.to_string()));
    Ok(())
});

#[test]
fn a_filter_crosses_as_a_bitmap_and_a_map_as_values() {
    let mut test = Tester::<Long>::new("");
    test.send_all([("k", "a"), ("k", "bb"), ("k", "c")]);
    test.send_all([("k", "aa"), ("k", "bb")]);
    test.send_all([("k", "a")]);
    assert_eq!(test.values(), ["bb", "aa", "bb"]);
    assert_eq!(test.forms(), ["keep", "unchanged"]);

    let mut test = Tester::<Doubled>::new("");
    test.send_all([("k", "a"), ("k", "")]);
    assert_eq!((test.values(), test.forms()), (vec!["aa".to_owned(), String::new()], &["values"][..]));

    let mut test = Tester::<Letters>::new("");
    test.send_all([("k", "ab"), ("l", ""), ("m", "c")]);
    test.send_all([("k", "a"), ("l", "b")]);
    test.send_all([("k", "a"), ("l", "")]);
    assert_eq!(test.values(), ["a", "b", "c", "a", "b", "a"]);
    assert_eq!(test.forms(), ["rows", "values", "rows"]);
    assert_eq!(test.rows()[2].key, b"m");
}

/// Does with an event what its value says.
struct Script;

impl Operator for Script {
    type Config = ();
    const OUTPUTS: &'static [&'static str] = &["out", "late"];

    fn open(_: (), _: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        for step in event.text()?.split(' ') {
            match step {
                "forward" => ctx.forward(),
                "emit" => ctx.emit("new"),
                "key" => ctx.row().key("own").emit("keyed"),
                "time" => ctx.row().time(7).emit("timed"),
                "late" => ctx.port("late").forward(),
                "json" => ctx.emit_json(&[1, 2])?,
                "bad" => ctx.emit_json(&std::collections::BTreeMap::from([((), 1)]))?,
                "reject" => wasmill_sdk::reject!("row {}", event.row()),
                _ => {}
            }
        }
        Ok(())
    }
}

wasmill_sdk::operator!(Script);

type Rows = Vec<(u16, i64, String, String)>;

/// Rows, forms and reasons.
fn script(events: &[&str]) -> (Rows, Vec<&'static str>, Vec<String>) {
    let mut test = Tester::<Script>::new("");
    test.send_at(0, events.iter().enumerate().map(|(i, value)| (i as i64 + 100, format!("k{i}"), value)));
    let rows = test.rows().iter();
    let rows = rows.map(|row| (row.port, row.time, String::from_utf8_lossy(&row.key).into_owned(), row.text()));
    (rows.collect(), test.forms().to_vec(), test.rejected().iter().map(|one| one.reason.clone()).collect())
}

fn row(port: u16, time: i64, key: &str, value: &str) -> (u16, i64, String, String) {
    (port, time, key.to_owned(), value.to_owned())
}

#[test]
fn forms_change_within_a_batch_without_loss() {
    let (rows, forms, _) = script(&["forward", "emit", "forward forward", "-", "emit"]);
    let expected = [
        row(0, 100, "k0", "forward"),
        row(0, 101, "k1", "new"),
        row(0, 102, "k2", "forward forward"),
        row(0, 102, "k2", "forward forward"),
        row(0, 104, "k4", "new"),
    ];
    assert_eq!((&rows[..], &forms[..]), (&expected[..], &["rows"][..]));

    let (rows, _, _) = script(&["emit", "key", "time", "emit"]);
    let expected =
        [row(0, 100, "k0", "new"), row(0, 101, "own", "keyed"), row(0, 7, "k2", "timed"), row(0, 103, "k3", "new")];
    assert_eq!(rows, expected);
}

#[test]
fn ports_have_forms_of_their_own() {
    let (rows, forms, _) = script(&["forward late", "late", "forward late"]);
    assert_eq!(forms, ["keep", "unchanged"]);
    assert_eq!(rows.iter().filter(|row| row.0 == 1).count(), 3);
}

#[test]
fn rejected_rows_do_not_go_out_and_the_form_stays_small() {
    let (rows, forms, reasons) = script(&["emit", "reject", "emit", "emit reject"]);
    assert_eq!((rows.len(), forms, reasons), (2, vec!["values"], vec!["row 1".to_owned(), "row 3".to_owned()]));

    let (rows, forms, reasons) = script(&["json", "bad", "json"]);
    assert_eq!((rows.len(), rows[1].3.as_str(), forms), (2, "[1,2]", vec!["values"]));
    assert_eq!(reasons, ["key must be a string"]);
}

/// Everything that state offers, driven by words.
struct Keeper {
    count: Value<u64>,
    seats: Map<i64, String>,
    log: List<String>,
    recent: Value<Json<Vec<u32>>>,
}

impl Operator for Keeper {
    type Config = ();

    fn open(_: (), setup: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self {
            count: setup.value("count"),
            seats: setup.map("seats"),
            log: setup.list("log"),
            recent: setup.space("recent").ttl(Clock::Event, Duration::from_micros(100)).version(3).value(),
        })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let words: Vec<&str> = event.text()?.split(' ').collect();
        match words[..] {
            ["count"] => ctx.emit(
                self.count
                    .update(|count| {
                        *count += 1;
                        *count
                    })
                    .to_string(),
            ),
            ["count", "reject"] => {
                self.count.update(|count| *count += 1);
                self.seats.insert(&99, "nobody".into());
                self.log.push(&"nothing".into());
                ctx.set_timer(Clock::Event, 1, "never");
                wasmill_sdk::reject!("no");
            }
            ["drop"] => ctx.emit(format!("{:?}", self.count.take())),
            ["sit", seat, name] => {
                self.seats.insert(&seat.parse()?, name.to_owned());
            }
            ["leave", seat] => {
                self.seats.remove(&seat.parse()?);
            }
            ["seats"] => ctx.emit(format!("{:?}", self.seats.entries())),
            ["range", from, to] => ctx.emit(format!("{:?}", self.seats.range(&from.parse()?, &to.parse()?))),
            ["first"] => ctx.emit(format!("{:?}", self.seats.first_key())),
            ["leave", seat, "reject"] => {
                self.seats.remove(&seat.parse()?);
                let first = self.seats.first_key();
                wasmill_sdk::reject!("first is {first:?}");
            }
            ["clear"] => self.seats.clear(),
            ["log", text] => self.log.push(&text.to_owned()),
            ["pop"] => ctx.emit(format!("{:?}", self.log.pop_front())),
            ["list"] => ctx.emit(format!("{:?} {}", self.log.to_vec(), self.log.len())),
            ["recent", n] => {
                let n = n.parse()?;
                let seen = self.recent.with(|recent| recent.is_some_and(|recent| recent.contains(&n)));
                self.recent.update(|recent| recent.push(n));
                ctx.emit(seen.to_string());
            }
            _ => wasmill_sdk::reject!("what is {words:?}?"),
        }
        Ok(())
    }
}

wasmill_sdk::operator!(Keeper, stateful);

fn keeper(events: &[(&str, &str)]) -> Vec<String> {
    // The same, whatever is a call and wherever a cut falls.
    let mut whole = Tester::<Keeper>::new("");
    whole.send_all(events.iter().copied());
    let mut cut = Tester::<Keeper>::new("");
    for event in events {
        cut.send_all([*event]);
        cut.restart();
    }
    assert_eq!(whole.values(), cut.values());
    for space in ["count", "seats", "log", "recent"] {
        assert_eq!(whole.state(space), cut.state(space), "{space}");
    }
    whole.values()
}

#[test]
fn values_belong_to_keys_and_survive_a_restart() {
    assert_eq!(
        keeper(&[("a", "count"), ("b", "count"), ("a", "count"), ("a", "drop"), ("a", "count"), ("b", "count")]),
        ["1", "1", "2", "Some(2)", "1", "2"]
    );
}

#[test]
fn a_rejected_row_leaves_no_trace() {
    let mut test = Tester::<Keeper>::new("");
    test.send_all([("a", "count"), ("a", "count reject"), ("b", "count reject"), ("a", "count")]);
    assert_eq!(test.values(), ["1", "2"]);
    assert_eq!(test.rejected().len(), 2);
    assert_eq!(test.state("count").len(), 1);
    assert!(test.state("seats").is_empty() && test.state("log").is_empty() && test.timers().is_empty());
}

#[test]
fn maps_are_read_in_the_order_of_their_keys() {
    assert_eq!(
        keeper(&[
            ("a", "sit 5 eve"),
            ("a", "sit -3 adam"),
            ("b", "sit 1 bob"),
            ("a", "sit 5 ada"),
            ("a", "seats"),
            ("a", "leave 5"),
            ("a", "seats"),
            ("a", "clear"),
            ("a", "seats"),
            ("b", "seats"),
        ]),
        [r#"[(-3, "adam"), (5, "ada")]"#, r#"[(-3, "adam")]"#, "[]", r#"[(1, "bob")]"#]
    );
}

#[test]
fn maps_are_read_by_range_and_from_the_front() {
    let events: Vec<(&str, &str)> = [
        "first",
        "sit 3 c",
        "sit -1 a",
        "sit 2 b",
        "first",
        "range -1 2",
        "range 0 1",
        "range 3 -1",
        "leave -1",
        "first",
        "leave 2",
        "first",
        "range -5 9",
        "sit 1 d",
        "first",
        "range -5 9",
        "leave 1 reject",
        "first",
        "clear",
        "first",
        "sit -9 e",
        "first",
    ]
    .map(|what| ("k", what))
    .to_vec();
    let pairs = [
        "None",
        "Some(-1)",
        r#"[(-1, "a"), (2, "b")]"#,
        "[]",
        "[]",
        "Some(2)",
        "Some(3)",
        r#"[(3, "c")]"#,
        "Some(1)",
        r#"[(1, "d"), (3, "c")]"#,
        "Some(1)",
        "None",
        "Some(-9)",
    ];
    assert_eq!(keeper(&events), pairs);
}

#[test]
fn a_map_longer_than_a_page_is_read_whole() {
    let mut test = Tester::<Keeper>::new("");
    test.send_all((0..3000).map(|i| ("a", format!("sit {i} x"))));
    test.restart();
    test.send_all([("a", "sit 9999 y"), ("a", "leave 7"), ("a", "clear"), ("a", "seats")]);
    assert_eq!(test.values(), ["[]"]);
    assert!(test.state("seats").is_empty());
}

#[test]
fn lists_grow_at_the_back_and_shrink_at_the_front() {
    assert_eq!(
        keeper(&[
            ("a", "log x"),
            ("a", "log y"),
            ("a", "list"),
            ("a", "pop"),
            ("a", "log z"),
            ("a", "list"),
            ("a", "pop"),
            ("a", "pop"),
            ("a", "pop"),
            ("a", "list")
        ]),
        [r#"["x", "y"] 2"#, r#"Some("x")"#, r#"["y", "z"] 2"#, r#"Some("y")"#, r#"Some("z")"#, "None", "[] 0"]
    );
}

#[test]
fn an_entry_with_a_ttl_is_gone_after_it() {
    let mut test = Tester::<Keeper>::new("");
    test.watermark(0);
    test.send("a", "recent 1");
    test.send("a", "recent 1");
    test.watermark(99);
    test.send("b", "recent 1");
    test.send("a", "recent 2");
    test.watermark(199);
    test.send_all([("a", "recent 2"), ("a", "recent 2")]);
    assert_eq!(test.values(), ["false", "true", "false", "false", "false", "true"]);
}

#[test]
fn state_moves_once_a_batch_and_once_a_flush() {
    let mut test = Tester::<Keeper>::new("");
    test.send_all((0..1000).map(|i| (format!("k{}", i % 100), "count")));
    // One look-ahead for each space of values; the one with a TTL is read every time.
    assert_eq!(test.take_state_calls(), ["get-many", "get-many"]);
    test.send_all((0..1000).map(|i| (format!("k{}", i % 100), "count")));
    assert_eq!(test.take_state_calls(), ["get-many"]);
    test.flush();
    assert_eq!(test.take_state_calls(), ["put-many"]);
    test.flush();
    assert!(test.take_state_calls().is_empty());
}

#[test]
fn a_cache_over_its_bound_is_written_and_forgotten() {
    let mut test = Tester::<Keeper>::new("");
    for round in 0..3 {
        for chunk in 0..50 {
            test.send_all((0..1000).map(|i| (format!("k{}", chunk * 1000 + i), "count")));
        }
        assert!(test.take_state_calls().contains(&"put-many"), "written before any flush");
        let rows = test.take_rows();
        assert!(rows.iter().all(|row| row.text() == (round + 1).to_string()), "round {round}");
    }
    assert_eq!(test.state("count").len(), 50_000);
}

#[test]
fn unreadable_state_fails_the_call_and_says_why() {
    enum Typed {
        Number(Value<u64>),
        Text(Value<Json<String>>),
    }
    impl Operator for Typed {
        type Config = bool;
        fn open(text: bool, setup: &mut Setup) -> Result<Self, ConfigError> {
            Ok(if text { Self::Text(setup.value("x")) } else { Self::Number(setup.value("x")) })
        }
        fn event(&mut self, _: Event<'_>, _: &mut Context<'_>) -> Result<(), Reject> {
            match self {
                Self::Number(x) => x.set(7).map(|_| ()),
                Self::Text(x) => x.set(Json("seven".into())).map(|_| ()),
            };
            Ok(())
        }
    }
    let error = Tester::<Typed>::open("7").err().expect("not a bool");
    assert_eq!(error.to_string(), "config: invalid type: integer `7`, expected a boolean");
    let mut test = Tester::<Typed>::new("false");
    test.send("k", "");
    assert_eq!(test.state("x")[0].value, 7u64.to_le_bytes());
    test.restart_with("true");
    let Err(Failure::Fatal(reason)) = test.try_send_at(0, [(0, "k", "")]) else { panic!("read as text") };
    assert_eq!(
        reason,
        "an entry of state space `x` cannot be read: expected value at line 1 column 1; \
         if its type has changed, raise the version of the space"
    );
}

/// Emits a reminder, some time after the last event of a key.
struct Idle {
    reminders: wasmill_sdk::metrics::Counter,
}

impl Operator for Idle {
    type Config = ();
    const INPUTS: &'static [&'static str] = &["events", "cancel"];
    const WATERMARKS: bool = true;

    fn open(_: (), setup: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self { reminders: setup.counter("reminders") })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        if event.port() == 1 {
            ctx.delete_timer(Clock::Event, "idle");
            return Ok(());
        }
        wasmill_sdk::info!("seen at {}", event.time());
        ctx.set_timer(Clock::Event, event.time() + 10, "idle");
        ctx.set_timer_in(Clock::Processing, Duration::from_micros(5), "wall");
        Ok(())
    }

    fn timer(&mut self, timer: Timer<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        self.reminders.add(1);
        ctx.emit([timer.tag(), b" ", timer.key()].concat());
        Ok(())
    }

    fn watermark(&mut self, watermark: i64, ctx: &mut Context<'_>) -> Result<(), Failure> {
        ctx.emit(format!("watermark {watermark}"));
        Ok(())
    }
}

wasmill_sdk::operator!(Idle, stateful);

#[test]
fn timers_fire_once_in_order_with_their_key() {
    let _ = logs();
    let mut test = Tester::<Idle>::new("");
    test.send_at(0, [(0, "a", ""), (5, "b", ""), (7, "a", ""), (8, "c", "")]);
    test.send_at(1, [(9, "c", "")]);
    test.watermark(14);
    assert_eq!(test.values(), ["watermark 14"]);
    test.watermark(17);
    assert_eq!(test.values()[1..], ["idle b", "idle a", "watermark 17"]);
    assert_eq!((test.rows()[1].time, test.rows()[2].time), (15, 17));
    test.clock(5);
    assert_eq!(test.values()[4..], ["wall a", "wall b", "wall c"]);
    assert_eq!((test.counter("reminders"), logs().len()), (5, 4));
}

/// Fails a whole call.
struct Whole(Value<u64>);

impl Operator for Whole {
    type Config = ();
    fn open(_: (), setup: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self(setup.value("x")))
    }
    fn event(&mut self, _: Event<'_>, _: &mut Context<'_>) -> Result<(), Reject> {
        self.0.update(|x| *x += 1);
        Ok(())
    }
    fn batch(&mut self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        if ctx.events().values().get(0) == b"early" {
            return Err(Failure::Retry("not yet".into()));
        }
        ctx.each(|event, ctx| self.event(event, ctx));
        if ctx.events().values().get(0) == b"late" { Err(Failure::Fatal("no".into())) } else { Ok(()) }
    }
}

#[test]
fn a_failed_call_leaves_nothing_or_an_instance_that_refuses() {
    let mut test = Tester::<Whole>::new("");
    test.send("k", "");
    assert!(test.try_send_at(0, [(0, "k", "early")]).is_err());
    test.send("k", "");
    assert_eq!(test.state("x")[0].value, 2u64.to_le_bytes());
    assert!(test.try_send_at(0, [(0, "k", "late")]).is_err());
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test.send("k", "")));
    assert!(again.is_err());
    test.crash();
    test.send("k", "");
    assert_eq!(test.state("x")[0].value, 3u64.to_le_bytes());
}

/// Longest word of a window, and every word that has an "x".
struct Words;

impl Aggregate for Words {
    type Config = ();
    type Accumulator = Json<Vec<String>>;

    fn open(_: ()) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn fold(&self, words: &mut Self::Accumulator, event: Event<'_>) -> Result<(), Reject> {
        words.push(event.text()?.to_owned());
        Ok(())
    }

    fn merge(&self, into: &mut Self::Accumulator, mut from: Self::Accumulator) {
        into.append(&mut from);
    }

    fn finish(&self, pane: Pane<'_>, words: Self::Accumulator, out: &mut Results) {
        for word in words.iter().filter(|word| word.contains('x')) {
            out.emit(format!("{} {} {word}", pane.start(), String::from_utf8_lossy(pane.key())));
        }
    }
}

wasmill_sdk::aggregate!(Words);

#[test]
fn windows_fire_with_any_number_of_rows() {
    let mut test = WindowTester::<Words>::sliding("", 10, 5);
    test.send_all([(3, "a", &b"x1"[..]), (7, "a", b"x2"), (7, "b", b"y"), (8, "b", b"\xff")]);
    assert_eq!(test.rejected().len(), 2);
    test.watermark(9);
    assert_eq!(test.values(), ["-5 a x1", "0 a x1", "0 a x2"]);
    test.send(3, "a", "x3");
    test.watermark(100);
    assert_eq!(test.values()[3..], ["5 a x2"]);
    assert_eq!(test.merged(&[(0, "", "a")], &[(0, "", "b")]), br#"["a","b"]"#);
}

/// Counts in text once, in a number now.
struct Counted {
    seen: Value<u64>,
}

impl Operator for Counted {
    type Config = ();

    fn open(_: (), setup: &mut Setup) -> Result<Self, ConfigError> {
        let seen = setup.space("seen").version(3);
        let seen = seen.migrate(1, |old: String| old.parse::<u64>().ok()).migrate(2, |old: u32| Some(u64::from(old)));
        Ok(Self { seen: seen.value() })
    }

    fn event(&mut self, _: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        ctx.emit(self.seen.update(|seen| {
            *seen += 1;
            seen.to_string()
        }));
        Ok(())
    }
}

#[test]
fn entries_of_known_versions_are_taken_over_and_others_refused() {
    let mut test = Tester::<Counted>::new("");
    test.migrate("seen", 1, &[("a", b"", b"41"), ("b", b"", b"none")]).expect("version 1 is known");
    test.migrate("seen", 2, &[("c", b"", &[1, 2, 0, 0])]).expect("version 2 is known");
    test.send_all([("a", ""), ("b", ""), ("c", "")]);
    assert_eq!(test.values(), ["42", "1", "514"]);
    let refused = |result: Result<(), Failure>| format!("{:?}", result.expect_err("it is refused"));
    assert!(refused(test.migrate("seen", 7, &[])).contains("no migration from version 7"));
    assert!(refused(test.migrate("seen", 2, &[("k", b"", b"x")])).contains("is none of version 2: u32 is 4 bytes"));
}

#[test]
#[should_panic(expected = "its migration makes u32")]
fn a_migration_makes_what_the_space_holds() {
    struct Wrong;
    impl Operator for Wrong {
        type Config = ();
        fn open(_: (), setup: &mut Setup) -> Result<Self, ConfigError> {
            let _: Value<u64> = setup.space("seen").version(2).migrate(1, |old: u32| Some(old)).value();
            Ok(Self)
        }
        fn event(&mut self, _: Event<'_>, _: &mut Context<'_>) -> Result<(), Reject> {
            Ok(())
        }
    }
    drop(Tester::<Wrong>::new(""));
}
