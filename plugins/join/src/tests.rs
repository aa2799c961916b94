use wasmill_sdk::Codec;
use wasmill_sdk::testing::Tester;

use super::Join;
use super::pair::{Held, Rows};

/// Numbers that look random, always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// (port, key, time, number).
type Sent = (u16, &'static str, i64, usize);

/// Rows within `bound` of order, and what comes of them, with restarts and crashes in between.
fn run(config: &str, seed: u64, bound: i64) -> (Vec<Sent>, Vec<(i64, String, String)>) {
    let mut numbers = Numbers(seed);
    let mut test = Tester::<Join>::new(config);
    let (mut sent, mut latest) = (Vec::new(), 0);
    for number in 0..120 {
        let key = ["a", "b"][numbers.below(2) as usize];
        let time = (latest - numbers.below(bound as u64 + 1) as i64 + numbers.below(4) as i64 * 1_000).max(0);
        latest = latest.max(time);
        let port = numbers.below(2) as u16;
        test.send_at(port, [(time, key, format!("{number}"))]);
        sent.push((port, key, time, number));
        match numbers.below(8) {
            0 => test.restart(),
            1 => test.watermark(latest - bound - 1),
            _ => {}
        }
    }
    test.watermark(i64::MAX);
    assert!(test.timers().is_empty(), "{config}");
    for space in ["left", "right", "rows", "sessions"] {
        if space == "sessions" && !config.contains("session") {
            continue;
        }
        if !config.contains("table") && (space == "rows") == config.contains("version") {
            assert!(test.state(space).is_empty(), "{config}: the end of time leaves nothing in {space}");
        }
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut rows: Vec<_> = test.rows().iter().map(|row| (row.time, text(&row.key), text(&row.value))).collect();
    rows.sort();
    (sent, rows)
}

fn pair(left: Option<usize>, right: Option<usize>) -> String {
    let text = |side: Option<usize>| side.map_or("null".to_owned(), |number| number.to_string());
    format!("{{\"left\":{},\"right\":{}}}", text(left), text(right))
}

/// Every pair for which the times say so, and who is alone.
fn model(
    sent: &[Sent],
    outer: [bool; 2],
    fits: impl Fn(i64, i64) -> bool,
    last: impl Fn(usize, i64) -> i64,
) -> Vec<(i64, String, String)> {
    let mut rows = Vec::new();
    for &(port, key, time, number) in sent {
        let (mut alone, left) = (true, port == 0);
        for &(other_port, other_key, other_time, other) in sent {
            let (from, to) = if left { (time, other_time) } else { (other_time, time) };
            if other_port != port && other_key == key && fits(from, to) {
                alone = false;
                if left {
                    rows.push((time.max(other_time), key.to_owned(), pair(Some(number), Some(other))));
                }
            }
        }
        if alone && outer[usize::from(port)] {
            let (l, r) = if left { (Some(number), None) } else { (None, Some(number)) };
            rows.push((last(usize::from(port), time).max(time), key.to_owned(), pair(l, r)));
        }
    }
    rows.sort();
    rows
}

#[test]
fn an_interval_join_gives_every_pair_once_in_any_order() {
    for seed in 0..60 {
        let (from, to) = [(-2_000, 3_000), (0, 0), (1_000, 5_000), (-4_000, -1_000)][seed as usize % 4];
        let outer = [("none", [false, false]), ("left", [true, false]), ("both", [true, true])][seed as usize % 3];
        let (from_ms, to_ms) = (from / 1_000, to / 1_000);
        let config = format!(r#"{{"kind":"interval","from":"{from_ms}ms","to":"{to_ms}ms","outer":"{}"}}"#, outer.0);
        let (sent, rows) = run(&config, seed, 3_000);
        let last = |side: usize, time: i64| if side == 0 { time + to } else { time - from };
        assert_eq!(rows, model(&sent, outer.1, |l, r| (from..=to).contains(&(r - l)), last), "{config}, seed {seed}");
    }
}

#[test]
fn a_window_join_pairs_rows_of_one_window() {
    for seed in 0..40 {
        let outer = [("none", [false, false]), ("right", [false, true])][seed as usize % 2];
        let config = format!(r#"{{"kind":"window","size":"5ms","outer":"{}"}}"#, outer.0);
        let (sent, rows) = run(&config, seed, 4_000);
        let window = |time: i64| time.div_euclid(5_000);
        let want = model(&sent, outer.1, |l, r| window(l) == window(r), |_, time| window(time) * 5_000 + 4_999);
        assert_eq!(rows, want, "seed {seed}");
    }
}

#[test]
fn a_join_of_sliding_windows_gives_a_pair_once_where_some_window_holds_both() {
    for seed in 0..40 {
        let (size, every) = [(5, 2), (6, 3), (7, 1), (4, 4)][seed as usize % 4];
        let outer = [("none", [false, false]), ("both", [true, true])][seed as usize % 2];
        let windows = format!(r#""size":"{size}ms","every":"{every}ms""#);
        let config = format!(r#"{{"kind":"window",{windows},"outer":"{}"}}"#, outer.0);
        let (sent, rows) = run(&config, seed, 4_000);
        let (size, every) = (size * 1_000, every * 1_000);
        let starts = |time: i64| {
            let begun = (time - size).div_euclid(every) * every..=time;
            begun.step_by(every as usize).filter(move |at| (*at..at + size).contains(&time))
        };
        let together = |l: i64, r: i64| starts(l).any(|at| (at..at + size).contains(&r));
        let last = |_: usize, time: i64| starts(time).max().expect("a window") + size - 1;
        assert_eq!(rows, model(&sent, outer.1, together, last), "{config}, seed {seed}");
    }
}

/// Sessions found in all rows at once: every pair of each, and who is alone in one.
fn sessions(sent: &[Sent], outer: [bool; 2], gap: i64) -> Vec<(i64, String, String)> {
    let mut rows = Vec::new();
    for key in ["a", "b"] {
        let mut of_key: Vec<_> = sent.iter().filter(|(_, of, ..)| *of == key).collect();
        of_key.sort_by_key(|(_, _, time, _)| *time);
        for session in of_key.chunk_by(|(_, _, time, _), (_, _, next, _)| next - time < gap) {
            let end = session[session.len() - 1].2 + gap - 1;
            let numbers =
                |side| session.iter().filter(move |(port, ..)| *port == side).map(|(.., number)| Some(*number));
            let alone =
                |side| if numbers(side).next().is_none() && outer[1 - usize::from(side)] { Some(None) } else { None };
            for left in numbers(0).chain(alone(0)) {
                rows.extend(numbers(1).chain(alone(1)).map(|right| (end, key.to_owned(), pair(left, right))));
            }
        }
    }
    rows.sort();
    rows
}

#[test]
fn a_join_of_sessions_gives_every_pair_of_a_session_once_in_any_order() {
    let (mut alone, mut pairs) = (0, 0);
    for seed in 0..80 {
        let gap = [1, 2, 4, 7][seed as usize % 4];
        let outer = [("none", [false, false]), ("left", [true, false]), ("both", [true, true])][seed as usize % 3];
        let config = format!(r#"{{"kind":"session","gap":"{gap}ms","outer":"{}"}}"#, outer.0);
        let (sent, rows) = run(&config, seed, [1_000, 3_000, 9_000][seed as usize / 4 % 3]);
        assert_eq!(rows, sessions(&sent, outer.1, gap * 1_000), "{config}, seed {seed}");
        let nulls = rows.iter().filter(|(.., pair)| pair.contains("null")).count();
        alone += nulls;
        pairs += rows.len() - nulls;
    }
    assert!(alone > 100 && pairs > 1_000, "{alone} alone, {pairs} pairs");
}

#[test]
fn a_row_between_two_sessions_makes_them_one_and_a_late_one_is_alone() {
    let mut test = Tester::<Join>::new(r#"{"kind":"session","gap":"3ms","outer":"both"}"#);
    test.send_at(0, [(10_000, "k", "1"), (10_000, "k", "2")]);
    test.send_at(1, [(14_000, "k", "3")]);
    test.watermark(11_000);
    test.send_at(0, [(12_000, "k", "4")]);
    test.restart();
    test.watermark(16_998);
    assert!(test.values().is_empty());
    test.watermark(16_999);
    assert_eq!(test.values(), [(1, 3), (2, 3), (4, 3)].map(|(left, right)| pair(Some(left), Some(right))));
    assert!(test.state("sessions").is_empty() && test.timers().is_empty());
    test.send_at(1, [(13_000, "k", "5")]);
    assert_eq!(test.values()[3..], [pair(None, Some(5))]);
}

#[test]
fn a_row_finds_the_version_of_its_time() {
    for seed in 0..40 {
        let (sent, rows) = run(r#"{"kind":"version","outer":"left"}"#, seed, 3_000);
        let mut want = Vec::new();
        for &(_, key, time, number) in sent.iter().filter(|(port, ..)| *port == 0) {
            let versions = sent.iter().filter(|(port, of, at, _)| *port == 1 && *of == key && *at <= time);
            // Of one time the one that came last.
            let newest = versions.max_by_key(|(_, _, at, number)| (*at, *number)).map(|(.., number)| *number);
            want.push((time, key.to_owned(), pair(Some(number), newest)));
        }
        want.sort();
        assert_eq!(rows, want, "seed {seed}");
    }
}

#[test]
fn tables_follow_every_change() {
    let config = r#"{"kind":"table","left":"/id","changes":true,"as":["auction","seller"]}"#;
    let mut test = Tester::<Join>::new(config);
    test.send_at(0, [(0, "s", r#"{"id":1}"#), (1, "s", r#"{"id":2}"#), (1, "t", r#"{"id":1}"#)]);
    test.send_at(1, [(2, "s", r#""Ann""#)]);
    test.restart();
    test.send_at(1, [(3, "s", r#""Bob""#), (3, "s", r#""Bob""#)]);
    test.send_at(0, [(4, "s", r#"{"id":2,"x":0}"#), (4, "s", "{}")]);
    test.send_at(1, [(5, "s", "null")]);
    let row =
        |op: &str, auction: &str, seller: &str| format!(r#"{{"op":"{op}","auction":{auction},"seller":"{seller}"}}"#);
    let (one, two, new) = (r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":2,"x":0}"#);
    let expected = [
        row("insert", one, "Ann"),
        row("insert", two, "Ann"),
        row("delete", one, "Ann"),
        row("delete", two, "Ann"),
        row("insert", one, "Bob"),
        row("insert", two, "Bob"),
        row("delete", two, "Bob"),
        row("insert", new, "Bob"),
        row("delete", one, "Bob"),
        row("delete", new, "Bob"),
    ];
    assert_eq!(test.values(), expected);
    assert_eq!(test.rejected()[0].reason, "there is no id at `/id`");
}

#[test]
fn old_versions_are_forgotten() {
    let mut test = Tester::<Join>::new(r#"{"kind":"version"}"#);
    for time in 0..100 {
        test.send_at(1, [(time, "k", time.to_string())]);
        test.watermark(time - 2);
        test.flush();
        assert!(test.state("versions").len() <= 4, "{} at {time}", test.state("versions").len());
    }
    test.send_at(0, [(98, "k", "0")]);
    test.watermark(99);
    assert_eq!(test.values(), [r#"{"left":0,"right":98}"#]);
}

#[test]
fn a_late_row_finds_what_is_left_and_does_not_stay() {
    let mut test = Tester::<Join>::new(r#"{"kind":"interval","from":"0s","to":"2s","outer":"both"}"#);
    test.send_at(1, [(2_000_000, "k", "1")]);
    test.watermark(1_500_000);
    test.send_at(0, [(1_000_000, "k", "2"), (-5_000_000, "k", "3"), (1_000_000, "k", "{")]);
    assert_eq!(test.values(), [pair(Some(2), Some(1)), pair(Some(3), None)]);
    assert_eq!(test.rejected().len(), 1);
    test.watermark(i64::MAX);
    assert_eq!(test.values().len(), 2);
}

#[test]
fn stored_rows_are_frozen() {
    let rows = Rows(vec![Held { matched: true, value: b"ab".to_vec() }, Held { matched: false, value: vec![] }]);
    let mut bytes = Vec::new();
    rows.encode(&mut bytes);
    assert_eq!(bytes, [1, 2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0, 0]);
    assert_eq!(Rows::decode(&bytes), Ok(rows));
    assert!(Rows::decode(&bytes[..6]).is_err());
}

#[test]
fn wrong_configurations_say_where() {
    let error = |config: &str| Tester::<Join>::open(config).err().map(|error| error.to_string()).unwrap_or_default();
    for (config, start) in [
        (r#"{"kind":"interval","from":"5","to":"1s"}"#, "config: `from`: expected a time such as \"-5s\""),
        (r#"{"kind":"interval","from":"5s","to":"1s"}"#, "config: `to`: is before `from`"),
        (r#"{"kind":"window","size":"0s"}"#, "config: `size`: a window has a length"),
        (
            r#"{"kind":"window","size":"1s","every":"2s"}"#,
            "config: `every`: is longer than nothing, and at most `size`",
        ),
        (r#"{"kind":"session","gap":"0s"}"#, "config: `gap`: a silence has a length"),
        (r#"{"kind":"window","size":"1s","as":["x","x"]}"#, "config: `as`: both sides are called \"x\""),
        (r#"{"kind":"version","outer":"both"}"#, "config: `outer`: versions do not leave alone"),
        (r#"{"kind":"table","left":"id"}"#, "config: `left`: \"id\" is not a JSON pointer"),
        (r#"{"kind":"table","size":"1s"}"#, "config: unknown field `size`"),
    ] {
        assert!(error(config).starts_with(start), "{config}: {}", error(config));
    }
}
