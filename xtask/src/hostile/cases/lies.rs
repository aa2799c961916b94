//! Guests that trap, return what is not so, or speak out of turn.

use anyhow::ensure;
use serde_json::json;

use super::super::guest::{Guest, encode};
use super::super::lab::{Lab, through};
use super::{Case, are_letters, case, fails, is_inert, letters, refused, undeployable};

fn doing(export: &str, body: &str) -> Guest {
    Guest::doing("stateless", export, body)
}

fn traps(world: &str, export: &str) -> Guest {
    Guest::doing(world, export, "(call $breaks) (unreachable)").and("(func $breaks (unreachable))")
}

/// What `process` returns, in place of the batch as it is.
fn returns(lab: &mut Lab, body: &str, words: &str) -> anyhow::Result<String> {
    letters(lab, &doing("process", &format!("{body} (call $one_emission)")), "", "error", words)
}

/// A timer for every call, at once.
const TIMER: &str = "(call $set_timers (i32.const 0) (i32.const 4096) (i32.const 1) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4104) (i32.const 1))";

/// Two jobs in one: rows with these times go through a window.
fn into_window(time: i64, window: &str) -> (Guest, String) {
    // Rows begin at 2056: times, ends and data of keys, ends and data of values, origins.
    let body = format!(
        "(i32.store8 (i32.const 2052) (i32.const 3)) (i64.store (i32.const 4096) (i64.const {time}))
         (i32.store (i32.const 2056) (i32.const 4096)) (i32.store (i32.const 2060) (i32.const 1))
         (i32.store (i32.const 2080) (i32.const 4112)) (i32.store (i32.const 2084) (i32.const 1))
         (i32.store (i32.const 2096) (i32.const 4112)) (i32.store (i32.const 2100) (i32.const 1))
         (call $one_emission)"
    );
    let more = format!(
        "[stage.sum]\nplugin = \"std:aggregate\"\ninput = \"work\"\nwindow = {{ {window} }}\n\
         config = {{ count = true }}\n[sink.sums]\nconnector = \"topic\"\ntopic = \"sums\"\npartitions = 1\n\
         input = \"sum\"\n"
    );
    (doing("process", &body), more)
}

/// A guest that swaps its way into a job, and what becomes of it.
fn swaps_in(lab: &mut Lab, guest: &Guest) -> anyhow::Result<String> {
    let attacker = lab.attacker()?;
    attacker.employ(&Guest::doing("stateful", "flush", "(i32.const 1232)"), "")?;
    attacker.out(3)?;
    let digest = attacker.push(&guest.module())?;
    let answer = attacker.post("/v1/jobs/evil/swap", &json!({"stage": "work", "plugin": digest}))?;
    ensure!([409, 422].contains(&answer.status), "the swap was answered {}: {}", answer.status, answer.text);
    let said = format!("{} {}: {}", answer.status, answer.code(), super::text(&answer.body["detail"]));
    attacker.produce("{\"value\":4}\n")?;
    super::goes_on(&attacker, 4)?;
    Ok(format!("{said}; the old version goes on"))
}

pub(super) const CASES: &[Case] = &[
    case(10, "a list that is longer than memory", |lab| {
        let body = "(i32.store (i32.const 1208) (i32.const -1)) (i32.const 1200)";
        letters(lab, &doing("process", body), "", "error", "bounds")
    }),
    case(10, "a list that begins behind the end of memory", |lab| {
        let body = "(i32.store (i32.const 1204) (i32.const -8)) (i32.const 1200)";
        letters(lab, &doing("process", body), "", "error", "bounds")
    }),
    case(20, "a trap in describe", |lab| undeployable(lab, &traps("stateless", "describe"), "unreachable")),
    case(20, "a trap in open", |lab| fails(lab, &traps("stateless", "open"), "", "open trapped")),
    case(20, "a trap in process", |lab| letters(lab, &traps("stateless", "process"), "", "trap", "unreachable")),
    case(20, "a trap in a timer", |lab| {
        let attacker = lab.attacker()?;
        let module = Guest::doing("stateful", "process", &format!("{TIMER} (call $one_emission)")).module_with(
            |text| {
                text.replacen(
                    "#on-timers\")\n  (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)\n  \
                (call $one_emission)",
                    "#on-timers\")\n  (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)\n  \
                (unreachable)",
                    1,
                )
            },
            |wit| wit,
        );
        let digest = attacker.push(&module)?;
        attacker.deploy("evil", &through(&digest, ""))?.is(201)?;
        attacker.produce("{\"value\":1}\n")?;
        let letters = attacker.letters(1)?;
        ensure!(letters[0]["subject"] == "timer" && letters[0]["kind"] == "trap", "{}", letters[0]);
        super::goes_on(&attacker, 1)?;
        Ok("dead letters, trap: of the timer; the row goes on".to_owned())
    }),
    case(20, "a trap in on-watermark", |lab| {
        // Asks for watermarks: that is a byte of the descriptor.
        let guest = traps("stateful", "on-watermark").and(r#"(data (i32.const 1069) "\01")"#);
        let attacker = lab.attacker()?;
        attacker.employ(&guest, "")?;
        super::goes_on(&attacker, 3)?;
        let letters = attacker.letters(1)?;
        ensure!(letters[0]["subject"] == "watermark" && letters[0]["kind"] == "trap", "{}", letters[0]);
        Ok("dead letters, trap: of the watermark; rows go on".to_owned())
    }),
    case(21, "a trap in flush", |lab| fails(lab, &traps("stateless", "flush"), "", "flush trapped")),
    case(22, "a version to swap to that traps in open", |lab| swaps_in(lab, &traps("stateful", "open"))),
    case(22, "a version to swap to that traps in process", |lab| swaps_in(lab, &traps("stateful", "process"))),
    case(22, "a version to swap to that traps in flush", |lab| swaps_in(lab, &traps("stateful", "flush"))),
    case(23, "a host function is called while the host gives rows", |lab| {
        let body = "(if (local.get 3) (then (call $log (i32.const 1) (i32.const 4096) (i32.const 1))))
            (call $alloc (local.get 3))";
        letters(lab, &doing("cabi_realloc", body), "", "trap", "cannot leave component instance")
            .or_else(|_| letters(lab, &doing("cabi_realloc", body), "", "error", "cannot leave component instance"))
    }),
    case(25, "a kind of output that does not exist", |lab| {
        returns(lab, "(i32.store8 (i32.const 2052) (i32.const 9))", "discriminant")
    }),
    case(25, "a reason that is no UTF-8", |lab| {
        let body = "(i32.store8 (i32.const 8192) (i32.const 255))
            (i32.store (i32.const 4100) (i32.const 8192)) (i32.store (i32.const 4104) (i32.const 1))
            (i32.store (i32.const 1212) (i32.const 4096)) (i32.store (i32.const 1216) (i32.const 1))";
        returns(lab, body, "utf-8")
    }),
    case(25, "a pointer that is not aligned", |lab| {
        returns(lab, "(i32.store (i32.const 1204) (i32.const 2049))", "aligned")
    }),
    case(26, "relaxed vectors, which differ between machines", |lab| {
        let guest = Guest::named("unchanged")
            .and("(func (export \"odd\") (param v128) (result v128) (i32x4.relaxed_trunc_f32x4_s (local.get 0)))");
        refused(lab, &guest.module(), "relaxed")
    }),
    case(32, "an export of another type", |lab| {
        let signature = "process: func(port: u16, input: batch)";
        let other = |wit: String| wit.replace(signature, "process: func(port: u32, input: batch)");
        let component = encode(&Guest::named("unchanged").module_with(|text| text, other));
        refused(lab, &component, "wasmill:operator/operator@0.1.0#process")
    }),
    case(32, "an interface of another version", |lab| {
        let next = |text: String| text.replace("@0.1.0", "@0.2.0");
        refused(lab, &Guest::named("unchanged").module_with(next, next), "0.2.0")
    }),
    case(35, "rows at the ends of time, into windows", |lab| {
        for window in ["tumbling = \"1m\"", "sliding = \"10s\", every = \"3s\"", "session = \"30s\""] {
            for time in [i64::MIN, i64::MIN + 1, -1, i64::MAX - 1, i64::MAX] {
                let (guest, more) = into_window(time, window);
                let attacker = lab.attacker()?;
                let digest = attacker.push(&guest.module())?;
                attacker.deploy("evil", &format!("{}{more}", through(&digest, "")))?.is(201)?;
                attacker.produce("{\"value\":1}\n")?;
                attacker.out(1)?;
                attacker.post("/v1/jobs/evil/drain", &json!({}))?.is(200)?;
                let (phase, reason) = attacker.evil()?;
                ensure!(phase != "failed", "{window}, a row at {time}: {reason}");
                lab.clear()?;
            }
        }
        Ok("late, or in the last window".to_owned())
    }),
    case(35, "rows from rows that do not exist, and of the wrong number", |lab| {
        let rows = "(i32.store8 (i32.const 2052) (i32.const 3))
            (i32.store (i32.const 2080) (i32.const 4096)) (i32.store (i32.const 2084) (i32.const 1))";
        returns(lab, rows, "0 origins for 1 rows")?;
        let from = format!(
            "{rows} (i32.store (i32.const 4200) (i32.const 3))
             (i32.store (i32.const 2096) (i32.const 4200)) (i32.store (i32.const 2100) (i32.const 1))"
        );
        returns(lab, &from, "from input row 3")
    }),
    case(35, "a port that was not declared", |lab| {
        returns(lab, "(i32.store16 (i32.const 2048) (i32.const 65535))", "port 65535")
    }),
    case(36, "names of functions with markup, escapes and 100,000 letters", |lab| {
        let odd = format!("<script>\u{1b}[31m\n{}", "x".repeat(100_000));
        let named =
            format!("(func $odd (@name \"{}\") (unreachable))", odd.replace('\u{1b}', "\\1b").replace('\n', "\\n"));
        let attacker = lab.attacker()?;
        attacker.employ(&doing("process", "(call $odd) (unreachable)").and(&named), "")?;
        let letters = attacker.letters(3)?;
        let said = are_letters(&attacker, &letters, "trap", "unreachable")?;
        for frame in letters[0]["stack"].as_array().into_iter().flatten() {
            let frame = frame.as_str().unwrap_or_default();
            is_inert(frame)?;
            ensure!(frame.len() < 1_000 && !frame.contains('\n'), "a frame of {} bytes", frame.len());
        }
        Ok(said)
    }),
    case(58, "a descriptor whose outputs lie outside of memory", |lab| {
        let body = "(i32.store (i32.const 1052) (i32.const -1)) (i32.const 1024)";
        undeployable(lab, &doing("describe", body), "describe")
    }),
];
