use std::collections::BTreeMap;

use wasmill_sdk::testing::Tester;

use super::Find;
use super::parse::{Pattern, parse};

const SECOND: i64 = 1_000_000;

/// Events are letters: the kind of each is what it is called.
fn config(pattern: &str, overlap: bool) -> String {
    let names: BTreeMap<String, String> = parse(pattern)
        .expect("a pattern")
        .names()
        .map(|name| (name.text.clone(), format!(".k == \"{}\"", name.text)))
        .collect();
    wasmill_sdk::serde_json::json!({"pattern": pattern, "events": names, "overlap": overlap}).to_string()
}

fn event(kind: char, number: usize) -> String {
    format!("{{\"k\":\"{kind}\",\"n\":{number}}}")
}

/// The numbers of the events of each match, in the order of the steps, with its time.
fn found(test: &mut Tester<Find>) -> Vec<(i64, Vec<usize>)> {
    let mut matches: Vec<(i64, Vec<usize>)> = Vec::new();
    for row in test.take_rows().iter().filter(|row| row.port == 0) {
        let numbers = row.text().split("\"n\":").skip(1).map(number).collect();
        matches.push((row.time, numbers));
    }
    matches
}

fn number(text: &str) -> usize {
    text.split('}').next().and_then(|text| text.parse().ok()).expect("a number")
}

/// Matches of a pattern over letters a second apart.
fn over(pattern: &str, overlap: bool, letters: &str) -> Vec<(i64, Vec<usize>)> {
    let mut test = Tester::<Find>::new(&config(pattern, overlap));
    for (place, kind) in letters.chars().enumerate().filter(|(_, kind)| *kind != '.') {
        test.send_at(0, [(place as i64 * SECOND, "k", event(kind, place))]);
    }
    test.watermark(i64::MAX);
    assert!(test.timers().is_empty() && test.state("progress").is_empty() && test.state("waiting").is_empty());
    found(&mut test).into_iter().map(|(time, numbers)| (time / SECOND, numbers)).collect()
}

#[test]
fn sequences() {
    assert_eq!(over("a then b in 10s", false, "axb"), [(2, vec![0, 2])]);
    assert_eq!(over("a next b in 10s", false, "axbab"), [(4, vec![3, 4])]);
    assert_eq!(over("a then b in 3s", false, "a..b"), [(3, vec![0, 3])]);
    assert_eq!(over("a then b in 3s", false, "a...b"), []);
    assert_eq!(over("a then b within 1s then c in 9s", false, "ab.cabc"), [(3, vec![0, 1, 3]), (6, vec![4, 5, 6])]);
    assert_eq!(over("a then b within 1s in 9s", false, "a.ba"), []);
}

#[test]
fn overlap_says_whether_matches_share_events() {
    assert_eq!(over("a then b in 10s", false, "aab"), [(2, vec![0, 2])]);
    assert_eq!(over("a then b in 10s", true, "aab"), [(2, vec![0, 2]), (2, vec![1, 2])]);
}

#[test]
fn repetition_takes_as_many_as_it_may() {
    assert_eq!(over("a{2,3} then b in 20s", false, "aaaab"), [(4, vec![0, 1, 2, 4])]);
    assert_eq!(over("a{3} then b in 4s", false, "aaaab.....aab"), [(4, vec![0, 1, 2, 4])]);
    assert_eq!(over("a+ then b in 20s", false, "aaab"), [(3, vec![0, 1, 2, 3])]);
    assert_eq!(over("a{2} in 20s", false, "aaaa"), [(1, vec![0, 1]), (3, vec![2, 3])]);
    // The first run is over when the `b` comes; the one of the second `a` is not.
    assert_eq!(over("a{2} then b in 4s", false, "a.aa.b"), [(5, vec![2, 3, 5])]);
}

#[test]
fn what_must_not_come() {
    assert_eq!(over("a then not c then b in 10s", false, "acbab"), [(4, vec![3, 4])]);
    assert_eq!(over("a then not b in 3s", false, "a"), [(3, vec![0])]);
    assert_eq!(over("a then not b in 3s", false, "a..b"), []);
    assert_eq!(over("a then b then not c within 2s in 9s", false, "ab.a.b.c"), [(3, vec![0, 1])]);
    assert_eq!(over("a then not b then not c in 5s", false, "ac"), []);
}

/// By definition, for one start: the whole input at hand, and no state.
fn from_start(pattern: &Pattern, events: &[(i64, char)], start: usize) -> Option<(i64, Vec<usize>)> {
    let is = |place: usize, name: &str| name.starts_with(events[place].1);
    let (mut taken, mut step, mut count, mut place) = (vec![start], 0, 1, start);
    let end = events[start].0 + pattern.length;
    loop {
        let here = &pattern.steps[step];
        let enough = count >= here.min;
        let next = pattern.steps.get(step + 1);
        if next.is_none() && pattern.absent.is_none() && enough {
            return Some((events[place].0, taken));
        }
        // The first event behind `place` that does something.
        let last = events[place].0;
        let mut found = None;
        for (other, &(time, _)) in events.iter().enumerate().skip(place + 1) {
            if time > end {
                break;
            }
            let (absent, within) = match (next, &pattern.absent) {
                (Some(next), _) => (&next.absent[..], next.within),
                (None, Some((absent, within))) => (&absent[..], *within),
                (None, None) => (&[][..], None),
            };
            let in_time = within.is_none_or(|within| time <= last + within);
            let may_take = here.max.is_none_or(|max| count < max);
            if enough && !in_time && (!may_take || next.is_none()) {
                break;
            }
            if enough && absent.iter().any(|name| is(other, &name.text)) {
                return None;
            }
            if enough && in_time && next.is_some_and(|next| is(other, &next.kind.text)) {
                found = Some((other, true));
                break;
            }
            if may_take && is(other, &here.kind.text) {
                found = Some((other, false));
                break;
            }
            if enough && next.is_some_and(|next| next.next) {
                return None;
            }
        }
        match found {
            Some((other, true)) => (step, count) = (step + 1, u32::from(taken_push(&mut taken, other))),
            Some((other, false)) => count += u32::from(taken_push(&mut taken, other)),
            None if next.is_none() && enough => {
                let within = pattern.absent.as_ref().and_then(|(_, within)| *within);
                return Some((within.map_or(end, |within| end.min(last + within)), taken));
            }
            None => return None,
        }
        place = *taken.last()?;
    }
}

fn taken_push(taken: &mut Vec<usize>, event: usize) -> bool {
    taken.push(event);
    true
}

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn every_match_is_found_in_any_order_of_arrival() {
    let patterns = [
        "a then b in 6s",
        "a next b then c in 9s",
        "a{2,3} as x then not c then b within 2s in 8s",
        "a+ then b next c in 9s",
        "a then b{2} then not c in 7s",
        "a{2} then not b within 3s in 9s",
        "a then b{1,3} as bs then not c within 2s in 9s",
        "a then a as again then b in 9s",
        "a{2,} then b within 1s then c+ as cs then d in 12s",
    ];
    let mut seen = 0;
    for seed in 0..54 {
        let text = patterns[seed as usize % patterns.len()];
        let pattern = parse(text).expect("a pattern");
        let mut numbers = Numbers(seed);
        // In order of time; ties stay as they came.
        let mut time = 0;
        let mut events: Vec<(i64, char)> = Vec::new();
        for _ in 0..60 {
            time += numbers.below(3) as i64 * SECOND;
            events.push((time, ['a', 'a', 'b', 'b', 'c', 'd', 'x'][numbers.below(7) as usize]));
        }
        let mut want: Vec<(i64, Vec<usize>)> = (0..events.len())
            .filter(|start| pattern.steps[0].kind.text.starts_with(events[*start].1))
            .filter_map(|start| from_start(&pattern, &events, start))
            .collect();
        // They arrive within a bound of 4 s, those of one time in their order.
        let mut arrivals: Vec<(i64, usize)> =
            (0..events.len()).map(|place| (events[place].0 + numbers.below(5) as i64 * SECOND, place)).collect();
        for place in 1..arrivals.len() {
            if events[place].0 == events[place - 1].0 {
                arrivals[place].0 = arrivals[place].0.max(arrivals[place - 1].0);
            }
        }
        arrivals.sort();
        let mut test = Tester::<Find>::new(&config(text, true));
        for (arrives, place) in arrivals {
            test.watermark(arrives - 5 * SECOND);
            test.send_at(0, [(events[place].0, "k", event(events[place].1, place))]);
            match numbers.below(30) {
                0 => test.restart(),
                1 => test.flush(),
                _ => {}
            }
        }
        test.watermark(i64::MAX);
        assert!(test.rejected().is_empty() && test.port(1).is_empty(), "{text}, seed {seed}");
        let mut got = found(&mut test);
        got.sort();
        want.sort();
        assert_eq!(got, want, "{text}, seed {seed}: {events:?}");
        seen += want.len();
    }
    assert!(seen > 150, "{seen} matches");
}

#[test]
fn late_rows_leave_by_their_port() {
    let mut test = Tester::<Find>::new(&config("a then b in 9s", false));
    test.watermark(5 * SECOND);
    test.send_at(0, [(5 * SECOND, "k", event('a', 0)), (6 * SECOND, "k", event('a', 1))]);
    assert_eq!(test.port(1), [event('a', 0)]);
}

#[test]
fn runs_beyond_the_bound_are_given_up_and_counted() {
    let text = r#"{"pattern": "a then b in 1h", "events": {"a": ".k == \"a\"", "b": ".k == \"b\""}, "runs": 2, "overlap": true}"#;
    let mut test = Tester::<Find>::new(text);
    for (place, kind) in "aaab".chars().enumerate() {
        test.send_at(0, [(place as i64, "k", event(kind, place))]);
    }
    test.watermark(10);
    assert_eq!(found(&mut test), [(3, vec![1, 3]), (3, vec![2, 3])]);
    assert_eq!(test.counter("runs_given_up"), 1);
}

#[test]
fn wrong_patterns_say_where() {
    for (text, message) in [
        ("", "at character 1: expected a kind of event, found the end"),
        ("a then in 5s", "at character 8: expected a kind of event, found `in`"),
        (
            "a then b",
            "at character 9: expected `then`, `next`, or `in` with how long a match takes at most, such as `in 10m`, found the end",
        ),
        ("a then b in 5", "at character 13: expected a length of time such as 30s, 10m or 2h, found `5`"),
        ("a then b in 5s c", "at character 16: expected nothing more, found `c`"),
        ("a? then b in 5s", "at character 2: `?` would let a step be left out; a step takes at least one event"),
        ("not a then b in 5s", "at character 1: a pattern begins with an event that comes"),
        ("a next not b in 5s", "at character 8: `not` goes behind `then`: `next` names the very next event"),
        ("a then not b within 1s then c in 5s", "at character 29: `not … within 1s` goes at the end of a pattern"),
        ("a within 1s in 5s", "at character 3: `within` counts from the step before, and this is the first"),
        ("a{0} then b in 5s", "at character 3: expected at least 1: a step takes at least one event, found `0`"),
        ("a{3,2} then b in 5s", "at character 1: `a` is to come at least 3 times and less"),
        ("a then b{2,} in 5s", "at character 8: the last step is complete with 2: write `b{2}`"),
        ("a then a in 5s", "at character 8: two steps are called `a`: write `a as NAME`"),
        ("a; b in 5s", "at character 2: ';' means nothing in a pattern"),
    ] {
        assert_eq!(parse(text).map_err(|error| error.to_string()), Err(message.to_owned()), "{text}");
    }
    let error = |config: &str| Tester::<Find>::open(config).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(
        error(r#"{"pattern": "a then c in 5s", "events": {"a": ".x", "b": ".y"}}"#),
        "config: `pattern`: at character 8: `events` does not say what `c` is; it has a, b"
    );
    assert_eq!(
        error(r#"{"pattern": "a in 5s", "events": {"a": ".x", "b": ".y"}}"#),
        "config: `events.b`: the pattern does not name it"
    );
    assert!(error(r#"{"pattern": "a in 5s", "events": {"a": ".x ="}}"#).starts_with("config: `events.a`: at"));
}
