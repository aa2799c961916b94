//! `cargo xtask hostile`: guests, components, requests and files that mean harm, against the real binary.
//!
//! One `wasmill serve` has two tenants. One works: rows go through its job at a steady rate, and each is
//! timed. The other does what a row of docs/hostile.md says. A row is met where the attack came to what
//! was expected, the service lives, nothing of it panicked, its memory is back, and every row of the
//! tenant who works came out, once, in order, and hardly later than before.

mod cases;
#[path = "../../../tests/guests/guest.rs"]
mod guest;
mod http;
mod lab;
mod neighbour;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::json;

use crate::steps::{now, say};
use crate::{document, root};
use cases::{Case, NOT_APPLICABLE};
use lab::Lab;
use neighbour::Neighbour;

const DOCUMENT: &str = "docs/hostile.md";
/// For so long the tenant who works is alone, first of all.
const ALONE: Duration = Duration::from_secs(10);
/// For so long an attack is repeated where its neighbour is timed: a quantile of a few rows says nothing.
const REPEATED: Duration = Duration::from_secs(4);
/// The 99th percentile of the neighbour may become so many times what it was alone.
const SLOWER_MAX: f64 = 1.5;
/// So often an attack is made where the neighbour seems slower or memory stays, beside new figures of before.
const TRIES: usize = 3;
/// Memory is back at this share of what it was, or at so many bytes more, after this long.
const MEMORY_SHARE: f64 = 1.05;
const MEMORY_ROOM: u64 = 16 << 20;
const MEMORY_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be attacked, and how closely it is looked at.
pub(crate) struct Options {
    /// Rows; all of them where none is named.
    pub(crate) rows: Vec<u16>,
    /// Only what is quick; nobody is timed, and nothing weighed.
    pub(crate) quick: bool,
    pub(crate) json: bool,
    pub(crate) wasmill: PathBuf,
}

/// What came of an attack.
struct Outcome {
    row: u16,
    attack: &'static str,
    /// What it came to, or what is wrong.
    said: String,
    met: bool,
    /// Of the neighbour, beside the attack.
    p99_micros: u64,
    /// The same before it; as long as can be where nobody is timed.
    alone_micros: u64,
    rows_beside: usize,
    memory_before: u64,
    memory_after: u64,
}

impl Outcome {
    /// Whether the attack came to what was expected at the cost of its neighbour.
    fn is_slow(&self) -> bool {
        self.met && self.p99_micros as f64 > self.alone_micros as f64 * SLOWER_MAX
    }

    /// Whether it came to what was expected, and memory stays.
    fn is_heavy(&self) -> bool {
        self.met && self.alone_micros < u64::MAX && self.memory_after > most(self.memory_before)
    }
}

/// Attacks, prints what came of it, and fails where something was not contained.
pub(crate) fn hostile(options: &Options) -> anyhow::Result<()> {
    let Options { rows, quick, wasmill, .. } = options;
    ensure!(wasmill.is_file(), "there is no {}; build it with: cargo build --package wasmill", wasmill.display());
    let wasmill = wasmill.canonicalize().with_context(|| format!("cannot find {}", wasmill.display()))?;
    let root = root()?;
    let all = cases::all();
    let chosen: Vec<&Case> = all
        .iter()
        .copied()
        .filter(|case| (rows.is_empty() || rows.contains(&case.row)) && !(*quick && case.is_long))
        .collect();
    ensure!(!chosen.is_empty(), "no attack has such a row");

    let mut lab = Lab::start(&wasmill, &root.join("target/hostile"), !quick)?;
    let neighbour = Neighbour::start(&lab.tenant("neighbour")?)?;
    // What is made once for every tenant is there: code of the standard plugins, threads, caches.
    warm_up(&mut lab)?;
    let mark = neighbour.mark();
    if !quick {
        std::thread::sleep(ALONE);
    }
    neighbour.is_complete()?;
    let alone = neighbour.p99(mark).0;
    let mut outcomes = Vec::new();
    for case in chosen {
        let outcome = attack(case, &mut lab, &neighbour, alone, *quick)?;
        report(&outcome, options.json, *quick);
        outcomes.push(outcome);
    }
    neighbour.end()?;
    let wrong = outcomes.iter().filter(|outcome| !outcome.met).count();
    for (row, attack, why) in NOT_APPLICABLE {
        if options.json && (rows.is_empty() || rows.contains(row)) {
            print(&json!({"row": row, "attack": attack, "outcome": format!("not applicable: {why}"), "met": true}));
        }
    }
    say(&format!("{} attacks, {wrong} not contained", outcomes.len()));
    if wrong > 0 {
        bail!("see the rows that are not met");
    }
    if rows.is_empty() && !quick {
        document::replace(&root.join(DOCUMENT), "attacks", &table(&outcomes))?;
    }
    Ok(())
}

fn warm_up(lab: &mut Lab) -> anyhow::Result<()> {
    for case in cases::all().into_iter().filter(|case| [1, 6, 30].contains(&case.row)) {
        // What comes of it is looked at when it is its turn.
        drop((case.run)(lab));
        lab.clear()?;
    }
    Ok(())
}

/// Attacks once, or again where the neighbour seems slower or memory stays: what else the machine does passes, and so
/// does what an allocator keeps at hand; harm does not, and a leak shows each time.
fn attack(case: &Case, lab: &mut Lab, neighbour: &Neighbour, alone: u64, quick: bool) -> anyhow::Result<Outcome> {
    let mut outcome = attack_once(case, lab, neighbour, alone, quick)?;
    for _ in 1..TRIES {
        if !outcome.is_slow() && !outcome.is_heavy() {
            break;
        }
        let mark = neighbour.mark();
        std::thread::sleep(REPEATED);
        neighbour.is_complete()?;
        outcome = attack_once(case, lab, neighbour, neighbour.p99(mark).0, quick)?;
    }
    let Outcome { p99_micros, alone_micros, memory_before, memory_after, .. } = outcome;
    let wrong = if outcome.is_slow() {
        Some(format!("the neighbour's p99 is {p99_micros} us, alone it was {alone_micros} us"))
    } else {
        (outcome.is_heavy()).then(|| format!("{} MiB of memory stay", memory_after.saturating_sub(memory_before) >> 20))
    };
    if let Some(wrong) = wrong {
        (outcome.met, outcome.said) = (false, wrong);
    }
    Ok(outcome)
}

fn attack_once(case: &Case, lab: &mut Lab, neighbour: &Neighbour, alone: u64, quick: bool) -> anyhow::Result<Outcome> {
    let memory_before = lab.resident()?;
    let (began, mark) = (now(), neighbour.mark());
    let mut done = made(case, lab);
    lab.clear()?;
    while !quick && done.is_ok() && began.elapsed() < REPEATED {
        done = made(case, lab);
        lab.clear()?;
    }
    let well = lab.is_well().and_then(|()| neighbour.is_complete());
    let (p99_micros, rows_beside) = neighbour.p99(mark);
    let memory_after = if quick { lab.resident()? } else { settled(lab, memory_before)? };
    let (said, met) = match (done, well) {
        (_, Err(error)) => (format!("{error:#}"), false),
        (Err(error), _) => (format!("{error:#}"), false),
        (Ok(said), _) => (said, true),
    };
    Ok(Outcome {
        row: case.row,
        attack: case.attack,
        said,
        met,
        p99_micros,
        alone_micros: if quick { u64::MAX } else { alone },
        rows_beside,
        memory_before,
        memory_after,
    })
}

/// Makes an attack, at the lowest priority: who attacks has processors of their own, and what their requests and
/// commands cost here is not what the service does to a neighbour.
fn made(case: &Case, lab: &mut Lab) -> anyhow::Result<String> {
    let attack = || {
        rustix::process::nice(19)?;
        (case.run)(lab)
    };
    std::thread::scope(|scope| scope.spawn(attack).join().map_err(|_| anyhow!("the attack panicked"))?)
}

fn most(before: u64) -> u64 {
    ((before as f64 * MEMORY_SHARE) as u64).max(before + MEMORY_ROOM)
}

/// Memory of the service once it is back, or after its patience.
fn settled(lab: &Lab, before: u64) -> anyhow::Result<u64> {
    let began = now();
    loop {
        let resident = lab.resident()?;
        if resident <= most(before) || began.elapsed() > MEMORY_PATIENCE {
            return Ok(resident);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn report(outcome: &Outcome, as_json: bool, quick: bool) {
    let Outcome { row, attack, said, met, p99_micros, alone_micros, rows_beside, memory_before, memory_after } =
        outcome;
    if as_json {
        let mut line = json!({
            "row": row, "attack": attack, "outcome": said, "met": met,
            "memory_before_bytes": memory_before, "memory_after_bytes": memory_after, "rows_beside": rows_beside,
        });
        if !quick {
            line["p99_micros"] = (*p99_micros).into();
            line["p99_alone_micros"] = (*alone_micros).into();
        }
        print(&line);
    }
    say(&format!("{} {row:>3}  {attack}: {said}", if *met { "    met" } else { "NOT MET" }));
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(line: &serde_json::Value) {
    println!("{line}");
}

fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from("| row | attack | what comes of it | p99 beside, alone |\n| --- | --- | --- | --- |\n");
    for Outcome { row, attack, said, p99_micros, alone_micros, .. } in outcomes {
        let (beside, alone) = (p99_micros / 1_000, alone_micros / 1_000);
        text.push_str(&format!("| {row} | {attack} | {} | {beside}, {alone} ms |\n", said.replace('|', "\\|")));
    }
    for (row, attack, why) in NOT_APPLICABLE {
        text.push_str(&format!("| {row} | {attack} | not applicable: {why} | |\n"));
    }
    text
}
