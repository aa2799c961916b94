//! The attacks, one file a family. Numbers are those of docs/hostile.md.

mod components;
mod files;
mod floods;
mod grows;
mod lies;
mod loops;
mod requests;
mod tenants;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::guest::Guest;
use super::lab::{Lab, Tenant, through, until};

/// One attack, and what is to come of it.
pub(super) struct Case {
    /// Its row.
    pub(super) row: u16,
    /// What the attacker does.
    pub(super) attack: &'static str,
    /// Too long for the tests.
    pub(super) is_long: bool,
    /// Does it, and sees that it is contained. Returns how.
    pub(super) run: fn(&mut Lab) -> anyhow::Result<String>,
}

const fn case(row: u16, attack: &'static str, run: fn(&mut Lab) -> anyhow::Result<String>) -> Case {
    Case { row, attack, is_long: false, run }
}

const fn long(row: u16, attack: &'static str, run: fn(&mut Lab) -> anyhow::Result<String>) -> Case {
    Case { row, attack, is_long: true, run }
}

/// All of them, by row.
pub(super) fn all() -> Vec<&'static Case> {
    let families = [
        loops::CASES,
        grows::CASES,
        floods::CASES,
        lies::CASES,
        components::CASES,
        requests::CASES,
        tenants::CASES,
        files::CASES,
    ];
    let mut cases: Vec<&Case> = families.into_iter().flatten().collect();
    cases.sort_by_key(|case| case.row);
    cases
}

/// Rows that have no part here.
pub(super) const NOT_APPLICABLE: &[(u16, &str, &str)] = &[
    (
        19,
        "a host call that waits",
        "no host call waits for anything outside; a sink whose target does not answer gives up after its timeout, \
      which tests of the connector hold",
    ),
    (
        33,
        "side channel: fine clock, contention, Spectre",
        "a plugin has no clock but the one of its call; tenants who \
      must not share a processor belong into processes of their own",
    ),
    (41, "options of Kafka and PostgreSQL clients", "there are no such connectors, and unknown options are errors"),
    (42, "SQL injection", "there is no SQL"),
    (50, "watermarks and barriers made by a plugin", "the interface has no word for either"),
    (55, "dependencies that attack the build", "not at run time: cargo-deny, a lockfile and the tidy tests hold it"),
];

/// Every row fails, and goes to the dead letters as `kind` with these words; the job goes on.
fn letters(lab: &mut Lab, guest: &Guest, stage: &str, kind: &str, words: &str) -> anyhow::Result<String> {
    let attacker = lab.attacker()?;
    attacker.employ(guest, stage)?;
    all_letters(&attacker, kind, words)
}

fn all_letters(attacker: &Tenant, kind: &str, words: &str) -> anyhow::Result<String> {
    are_letters(attacker, &attacker.letters(3)?, kind, words)
}

fn are_letters(attacker: &Tenant, letters: &[Value], kind: &str, words: &str) -> anyhow::Result<String> {
    ensure!(letters.len() == 3, "{} dead letters of 3 rows", letters.len());
    for letter in letters {
        let reason = letter["reason"].as_str().unwrap_or_default();
        ensure!(letter["kind"] == kind, "a letter of kind {} instead of {kind}: {reason}", letter["kind"]);
        ensure!(reason.contains(words), "{words:?} is not in {reason:?}");
        is_inert(reason)?;
    }
    let (phase, reason) = attacker.evil()?;
    ensure!(["running", "starting"].contains(&phase.as_str()), "the job is {phase}: {reason}");
    Ok(format!("dead letters, {kind}: {}", text(&letters[0]["reason"])))
}

/// The job fails, and says why.
fn fails(lab: &mut Lab, guest: &Guest, stage: &str, words: &str) -> anyhow::Result<String> {
    let attacker = lab.attacker()?;
    attacker.employ(guest, stage)?;
    let reason = failed(&attacker)?;
    ensure!(reason.contains(words), "{words:?} is not in {reason:?}");
    Ok(format!("job failed: {}", short(&reason)))
}

fn failed(attacker: &Tenant) -> anyhow::Result<String> {
    until("the job has failed", || {
        let (phase, reason) = attacker.evil()?;
        Ok((phase == "failed").then_some(reason))
    })
}

/// The plugin is refused when it is sent.
fn refused(lab: &mut Lab, plugin: &[u8], words: &str) -> anyhow::Result<String> {
    let attacker = lab.attacker()?;
    attacker.send("POST", "/v1/plugins", plugin)?.says(422, words)
}

/// The plugin is taken in, and no job runs with it.
fn undeployable(lab: &mut Lab, guest: &Guest, words: &str) -> anyhow::Result<String> {
    let attacker = lab.attacker()?;
    let digest = attacker.push(&guest.module())?;
    attacker.deploy("evil", &through(&digest, ""))?.says(422, words)
}

/// Rows go on, and come out.
fn goes_on(attacker: &Tenant, rows: usize) -> anyhow::Result<()> {
    attacker.out(rows).with_context(|| format!("the job is {:?}", attacker.evil().unwrap_or_default()))?;
    Ok(())
}

/// A loop in a guest that runs `body` so many times; the guest needs [`LEFT`].
fn repeat(times: u32, body: &str) -> String {
    format!(
        "(global.set $left (i32.const {times}))
         (loop $again {body}
           (global.set $left (i32.sub (global.get $left) (i32.const 1)))
           (br_if $again (global.get $left)))
         (call $one_emission)"
    )
}

const LEFT: &str = "(global $left (mut i32) (i32.const 0))";

/// Nothing in it moves a cursor or forges a line.
fn is_inert(text: &str) -> anyhow::Result<()> {
    ensure!(!text.chars().any(|c| c.is_control() && c != '\n'), "control characters in {text:?}");
    Ok(())
}

fn text(value: &Value) -> String {
    short(value.as_str().unwrap_or_default())
}

fn short(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(100).collect()
}
