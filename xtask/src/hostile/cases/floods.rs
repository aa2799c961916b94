//! Guests that give much: rows, state, timers, lines, names.

use anyhow::{bail, ensure};
use serde_json::json;

use super::super::guest::Guest;
use super::{Case, LEFT, case, goes_on, is_inert, letters, repeat};

/// Puts one entry under a key of `key` bytes that counts up, with a value of `value` bytes.
fn put(key: u32, value: u32) -> Guest {
    let body = format!(
        "(drop (memory.grow (i32.const 40)))
         (i32.store (i32.const 4096) (i32.const {key})) (i32.store (i32.const 4100) (i32.const {value}))
         (global.set $left (i32.add (global.get $left) (i32.const 1)))
         (i32.store (i32.const 65536) (global.get $left))
         (call $put_many (i32.const 0)
           (i32.const 4096) (i32.const 1) (i32.const 65536) (i32.const {key})
           (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
           (i32.const 4100) (i32.const 1) (i32.const 65536) (i32.const {value}))
         (call $one_emission)"
    );
    Guest::doing("stateful", "process", &body).and(SPACE).and(LEFT)
}

/// One space, `seen`.
const SPACE: &str = r#"(data (i32.const 1060) "\40\10\00\00\01\00\00\00")
    (data (i32.const 4160) "\80\10\00\00\04\00\00\00\01\00\00\00") (data (i32.const 4224) "seen")"#;

/// Sets so many timers of one key and no tag at once, `times` times. Every byte of the lists is 0.
fn timers(times: u32, each: u32) -> Guest {
    let body = repeat(
        times,
        &format!(
            "(call $set_timers (i32.const 0)
               (i32.const 262144) (i32.const {each}) (i32.const 0) (i32.const 0)
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
               (i32.const 262144) (i32.const {each}))"
        ),
    );
    Guest::doing("stateful", "process", &format!("(drop (memory.grow (i32.const 8))) {body}")).and(LEFT)
}

/// Sets one timer at this time.
fn timer_at(time: i64) -> Guest {
    let body = format!(
        "(i64.store (i32.const 4104) (i64.const {time})) (i32.store (i32.const 4096) (i32.const 0))
         (call $set_timers (i32.const 0) (i32.const 4096) (i32.const 1) (i32.const 0) (i32.const 0)
           (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4104) (i32.const 1))
         (call $one_emission)"
    );
    Guest::doing("stateful", "process", &body)
}

/// Gives every batch so many times.
fn amplifies(times: u32) -> Guest {
    let pages = times.div_ceil(1_000) + 1;
    let body = format!(
        "(drop (memory.grow (i32.const {pages})))
         (i32.store (i32.const 1204) (i32.const 65536)) (i32.store (i32.const 1208) (i32.const {times}))
         (memory.fill (i32.const 65536) (i32.const 0) (i32.const {})) (i32.const 1200)",
        times * 56
    );
    Guest::doing("stateless", "process", &body)
}

pub(super) const CASES: &[Case] = &[
    case(11, "300,000 rows out of one", |lab| letters(lab, &amplifies(300_000), "", "limit", "in one call")),
    case(11, "10,000 rows out of each of many, within the limits", |lab| {
        let attacker = lab.attacker()?;
        attacker.employ(&amplifies(10_000), "")?;
        for _ in 0..10 {
            attacker.produce("{\"key\":\"k\",\"value\":1}\n")?;
        }
        goes_on(&attacker, 1_000)?;
        Ok("as fast as its topic takes them".to_owned())
    }),
    case(12, "a key of its own in state for every row", |lab| {
        let budget = json!({"requests_per_second": 100_000, "changes_per_minute": 100_000, "state_bytes": 8 << 20});
        let attacker = lab.attacker_with(budget)?;
        attacker.employ(&put(8, 1 << 20), "")?;
        for row in 0..2_000 {
            let line = format!("{{\"key\":\"k\",\"value\":{row}}}\n");
            let answer = attacker.send("POST", "/v1/topics/in/records", line.as_bytes())?;
            let (phase, reason) = attacker.evil()?;
            let view = attacker.get("/v1/usage")?.is(200)?.body;
            if answer.status == 403 && answer.code() == "over-budget" {
                return Ok(format!("403 over-budget: {}", super::text(&answer.body["detail"])));
            }
            if phase != "running" && phase != "starting" && reason.contains("state") {
                return Ok(format!("job {phase}: {}", super::short(&reason)));
            }
            if view["has"]["state_bytes"].as_u64().unwrap_or(0) > 8 << 20 {
                // What is not stopped is refused what it asks for next.
                let again = attacker.deploy("evil", &super::super::lab::plain())?;
                return again.says(403, "state");
            }
        }
        bail!("2,000 MiB of state, and nobody minds")
    }),
    case(13, "a key of 5,000 bytes in state", |lab| letters(lab, &put(5_000, 1), "", "limit", "4096 bytes in a key")),
    case(13, "a value of more than 1 MiB in state", |lab| {
        letters(lab, &put(8, (1 << 20) + 1), "", "limit", "1048576 bytes in a value")
    }),
    case(14, "all of the state in one scan", |lab| {
        let body = "(call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const -1) (i32.const 4096)) (call $one_emission)";
        letters(lab, &Guest::doing("stateful", "process", body), "", "limit", "16384 entries")
    }),
    case(15, "120,000 timers in one call", |lab| letters(lab, &timers(4, 30_000), "", "limit", "100000 timers")),
    case(15, "timers of the same instant, in the past", |lab| {
        let attacker = lab.attacker()?;
        attacker.employ(&timers(1, 30_000), "")?;
        goes_on(&attacker, 3)?;
        Ok("they fire, in turns".to_owned())
    }),
    case(15, "timers at the ends of time", |lab| {
        for time in [i64::MIN, i64::MIN + 1, -1, i64::MAX - 1, i64::MAX] {
            let attacker = lab.attacker()?;
            attacker.employ(&timer_at(time), "")?;
            goes_on(&attacker, 3)?;
            attacker.post("/v1/jobs/evil/drain", &json!({}))?.is(200)?;
            let (phase, reason) = attacker.evil()?;
            ensure!(phase != "failed", "a timer at {time}: {reason}");
        }
        Ok("they fire, or never come due".to_owned())
    }),
    case(16, "500 lines a call, with escapes and forged lines", |lab| {
        let flood = repeat(500, "(call $log (i32.const 1) (i32.const 4096) (i32.const 14))");
        let data = r#"(data (i32.const 4096) "\1b[2Jx\0aERROR y\0d")"#;
        let attacker = lab.attacker()?;
        attacker.employ(&Guest::doing("stateless", "process", &flood).and(LEFT).and(data), "")?;
        attacker.said("more lines dropped")?;
        for line in attacker.said("ERROR y")? {
            is_inert(&line)?;
            ensure!(!line.contains('\n'), "a forged line: {line:?}");
        }
        Ok("100 lines a call, escaped, the rest counted".to_owned())
    }),
    case(16, "a line of 1 MiB", |lab| {
        let body = "(drop (memory.grow (i32.const 20)))
            (memory.fill (i32.const 65536) (i32.const 97) (i32.const 1048576))
            (call $log (i32.const 1) (i32.const 65536) (i32.const 1048576)) (call $one_emission)";
        let attacker = lab.attacker()?;
        attacker.employ(&Guest::doing("stateless", "process", body), "")?;
        let longest = attacker.said("aaaa")?.iter().map(String::len).max().unwrap_or(0);
        ensure!(longest <= 8_200, "a line of {longest} bytes");
        Ok(format!("cut to {longest} bytes"))
    }),
    case(17, "250 metrics, again and again under other names", |lab| {
        let digits: String = [(4096, 100_000), (4097, 10_000), (4098, 1_000), (4099, 100), (4100, 10), (4101, 1)]
            .iter()
            .map(|(at, divisor)| {
                format!(
                    "(i32.store8 (i32.const {at}) (i32.add (i32.const 48)
                       (i32.rem_u (i32.div_u (i32.add (global.get $left) (i32.load8_u (local.get 9)))
                         (i32.const {divisor})) (i32.const 10))))"
                )
            })
            .collect();
        let body = repeat(250, &format!("{digits} (call $add (i32.const 4096) (i32.const 6) (i64.const 1))"));
        let attacker = lab.attacker()?;
        attacker.employ(&Guest::doing("stateless", "process", &body).and(LEFT), "")?;
        attacker.said("an instance may name 200")?;
        let metrics = attacker.get("/metrics")?.is(200)?.text;
        let series = metrics.lines().filter(|line| line.starts_with("wasmill_plugin_metric{")).count();
        ensure!((1..=1_000).contains(&series), "{series} series");
        Ok(format!("{series} series, the rest refused in the log"))
    }),
    case(57, "every row rejected, with a reason of 2,000 characters", |lab| {
        let attacker = lab.attacker()?;
        attacker.employ(&Guest::named("flags_two"), "")?;
        let letters = attacker.letters(2)?;
        let longest = letters.iter().filter_map(|letter| letter["reason"].as_str()).map(str::len).max();
        ensure!(longest.is_some_and(|longest| longest <= 1_030), "a reason of {longest:?} bytes");
        Ok("dead letters, reasons cut to 1,024 characters".to_owned())
    }),
];
