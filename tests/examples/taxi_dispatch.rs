//! `examples/taxi-dispatch`, dispatched once more acceptance by acceptance. Nothing here is shared with
//! the job.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{integer, root, run, text};

const JOB: &str = "examples/taxi-dispatch/job.toml";
/// Milliseconds: how far the watermark is behind, the gap between sessions and the lateness.
const BOUND: i64 = 5_000;
const GAP: i64 = 30_000;
const LATENESS: i64 = 120_000;

/// Acceptances of one ride that belong together.
#[derive(Debug)]
struct Session {
    start: i64,
    end: i64,
    /// When it was accepted first, and by whom.
    first: (i64, i64),
}

#[derive(Debug, Default)]
struct Expected {
    sessions: BTreeMap<String, Vec<Session>>,
    late: u64,
    /// How often a ride went to another taxi.
    handed_over: usize,
}

fn expected() -> Expected {
    let lines = std::fs::read_to_string(root().join("examples/taxi-dispatch/acceptances.jsonl")).expect("the input");
    let (mut expected, mut complete) = (Expected::default(), i64::MIN);
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let (at, taxi) = (integer(&row, "at"), integer(&row, "taxi"));
        let sessions = expected.sessions.entry(text(&row, "ride").to_owned()).or_default();
        let alive = |session: &Session| session.end + LATENESS > complete;
        let meets = |session: &Session| session.start < at + GAP && at < session.end;
        match sessions.iter_mut().find(|session| alive(session) && meets(session)) {
            Some(session) => {
                (session.start, session.end) = (session.start.min(at), session.end.max(at + GAP));
                if (at, taxi) < session.first {
                    session.first = (at, taxi);
                    expected.handed_over += 1;
                }
            }
            None if at + GAP + LATENESS > complete => {
                sessions.push(Session { start: at, end: at + GAP, first: (at, taxi) });
            }
            None => expected.late += 1,
        }
        complete = complete.max(at - BOUND);
    }
    expected
}

#[test]
fn each_ride_is_left_with_the_taxi_that_accepted_it_first() {
    let expected = expected();
    assert_eq!((expected.late, expected.handed_over), (40, 71), "the oracle has something to say");
    let ran = run(JOB, &["orders"], &[]);
    let (mut standing, mut kinds) = (BTreeMap::<String, Vec<(i64, i64)>>::new(), BTreeMap::<String, usize>::new());
    for order in ran.rows("orders") {
        let assignment = &order["value"];
        let (ride, taxi) =
            (text(assignment, "ride").to_owned(), (integer(assignment, "at"), integer(assignment, "taxi")));
        assert_eq!(text(&order, "key"), ride);
        let kind = text(&order, "pane");
        *kinds.entry(kind.to_owned()).or_default() += 1;
        let stands = standing.entry(ride).or_default();
        match kind {
            "retraction" => {
                let at = stands.iter().position(|other| *other == taxi).expect("only what was ordered is cancelled");
                stands.remove(at);
            }
            _ => stands.push(taxi),
        }
    }
    let want = expected.sessions.iter().filter(|(_, sessions)| !sessions.is_empty());
    let want: BTreeMap<String, Vec<(i64, i64)>> =
        want.map(|(ride, sessions)| (ride.clone(), sessions.iter().map(|session| session.first).collect())).collect();
    assert_eq!(standing, want);
    assert_eq!(ran.number("late"), expected.late);
    assert_eq!(kinds["retraction"], expected.handed_over, "nothing is cancelled but for another taxi");
    assert!(kinds["early"] > 300 && kinds["correction"] > 10, "{kinds:?}");
}
