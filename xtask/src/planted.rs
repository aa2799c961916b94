//! `cargo xtask planted`: lets bugs into debug builds, one after the other, and sees that each is
//! caught by a test, or by kills where no test of a part can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cargo_metadata::Message;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use wasmill_env::{PLANTED_BUGS, PLANTED_VARIABLE};

use crate::crash::{Mode, Options, campaign};
use crate::steps::{cargo, now, say};
use crate::{document, root};

/// A test that takes longer with a bug in it has hung, and so has found it.
const PATIENCE: Duration = Duration::from_secs(60);
/// One without a bug has not hung: the machine is busy.
const PATIENCE_WELL: Duration = Duration::from_secs(900);
/// How often a test may pass with a bug in it: properties try other cases each time.
const TRIES: u32 = 8;
const LOOK_EVERY: Duration = Duration::from_millis(5);
const DOCUMENT: &str = "docs/guarantees.md";

/// What is cheapest to catch a bug with.
enum Catch {
    /// A test: package, target, name.
    Test(&'static str, &'static str, &'static str),
    /// So many kills.
    Kills(Mode, u64),
}

const RECOVERY: (&str, &str) = ("wasmill-engine", "suite");
const DURABLE: (&str, &str) = ("wasmill-store", "durable");
const CONNECTORS: (&str, &str) = ("wasmill-connectors", "wasmill_connectors");

/// The binary, which has tests of its own.
const BINARY_NAME: &str = "wasmill";
const BINARY: (&str, &str) = ("wasmill", "e2e");
const SWAP: &str = "swap::a_swapped_stage_goes_on_with_its_state_and_stays_swapped_after_a_crash";

const fn test(place: (&'static str, &'static str), name: &'static str) -> Catch {
    Catch::Test(place.0, place.1, name)
}

/// What catches each of [`PLANTED_BUGS`].
const CATCHES: &[(&str, Catch)] = &[
    ("acknowledge-before-sync", test(DURABLE, "crash::every_crash_leaves_whole_epochs_and_all_that_were_acknowledged")),
    ("rename-before-sync", test(DURABLE, "crash::every_crash_leaves_whole_epochs_and_all_that_were_acknowledged")),
    ("name-not-synced", test(DURABLE, "crash::every_crash_leaves_whole_epochs_and_all_that_were_acknowledged")),
    ("checksum-not-verified", test(DURABLE, "crash::every_flipped_bit_of_a_closed_store_is_seen")),
    ("last-frame-forgotten", test(DURABLE, "crash::every_crash_leaves_whole_epochs_and_all_that_were_acknowledged")),
    ("failed-sync-forgotten", test(DURABLE, "crash::every_crash_leaves_whole_epochs_and_all_that_were_acknowledged")),
    ("epochs-in-any-order", test(DURABLE, "model::epochs_out_of_order_are_refused_and_change_nothing")),
    ("rescaled-to-others", test(RECOVERY, "recovery::counts_survive_deaths_and_another_parallelism")),
    ("store-reused-after-trap", test(RECOVERY, "faults::a_row_that_fails_in_flush_leaves_no_state")),
    ("undo-skipped", test(("wasmill-store", "wasmill_store"), "memory::tests::undo_takes_back_to_the_last_mark")),
    ("state-not-in-cut", test(RECOVERY, "recovery::counts_survive_deaths_and_another_parallelism")),
    ("timers-not-in-cut", test(RECOVERY, "recovery::timers_survive_deaths")),
    ("panes-not-in-cut", test(RECOVERY, "recovery::windows_survive_deaths")),
    ("held-not-in-cut", test(RECOVERY, "ordering::order_by_time_survives_deaths")),
    ("letters-not-in-cut", test(RECOVERY, "jobs::rejected_rows_are_in_the_cut_and_nowhere_else")),
    ("watermark-of-the-fastest", test(RECOVERY, "jobs::windows_over_an_exchange_wait_for_the_slowest_partition")),
    ("barrier-not-aligned", test(RECOVERY, "jobs::every_cut_is_consistent_over_two_inputs")),
    ("lanes-as-they-stand", test(RECOVERY, "convoy::eight_copies_give_the_order_of_one")),
    ("moved-keys-forgotten", test(RECOVERY, "convoy::keys_of_a_hot_lane_move_with_their_state_and_timers")),
    ("swap-not-recorded", test(BINARY, SWAP)),
    ("swap-trial-counts", test(BINARY, SWAP)),
    ("commit-before-durable", test(RECOVERY, "recovery::counts_survive_deaths_and_another_parallelism")),
    ("positions-before-rows", test(CONNECTORS, "file::sink_tests::the_file_sink_conforms")),
    ("file-not-truncated", test(CONNECTORS, "file::sink_tests::rows_of_no_epoch_are_gone_though_none_follow")),
    (
        "half-a-line-kept",
        test(CONNECTORS, "file::sink_tests::a_direct_writer_shows_rows_at_once_and_takes_nothing_back"),
    ),
    ("most-once-leaves-early", test(RECOVERY, "recovery::rows_leave_before_their_epoch_or_behind_it_as_the_job_asks")),
    ("once-is-at-once", Catch::Kills(Mode::ExactlyOnce, 34)),
];

/// What came of a bug.
struct Outcome {
    bug: &'static str,
    does: &'static str,
    caught_by: String,
    caught: bool,
    seconds: f64,
}

/// Lets in each bug, or those whose names hold `filter`, and writes the list where all were caught.
pub(crate) fn planted(filter: Option<&str>, wasmill: &Path, as_json: bool) -> anyhow::Result<()> {
    let root = root()?;
    let mut outcomes = Vec::new();
    let mut passing = BTreeSet::new();
    let wanted = CATCHES.iter().filter_map(|(_, catch)| match catch {
        Catch::Test(package, target, _) => Some((*package, *target)),
        Catch::Kills(..) => None,
    });
    let tests = executables(&root, &wanted.collect())?;
    for &(bug, does) in PLANTED_BUGS {
        let Some((_, catch)) = CATCHES.iter().find(|(name, _)| *name == bug) else {
            bail!("nothing is said to catch {bug}: add it to CATCHES in xtask/src/planted.rs");
        };
        if filter.is_some_and(|filter| !bug.contains(filter)) {
            continue;
        }
        let began = now();
        let (caught_by, caught) = match catch {
            Catch::Test(package, target, name) => {
                let test = tests.get(&(*package, *target));
                let test = test.with_context(|| format!("there are no tests {target} of {package}"))?;
                if passing.insert(*name) {
                    passes(test, name)?;
                }
                let mut caught = false;
                for _ in 0..TRIES {
                    caught = ends(&mut start(test, name, Some(bug))?, PATIENCE)? != Some(true);
                    if caught {
                        break;
                    }
                }
                (format!("`{name}`, {package}"), caught)
            }
            Catch::Kills(mode, kills) => {
                let (mode, kills) = (*mode, *kills);
                let planted = Some(bug.to_owned());
                let options = Options { kills, seed: 1, mode, wasmill: wasmill.to_owned(), planted };
                // A job that cannot go on is as good as one that goes on wrongly.
                let caught = campaign(&options).map_or(true, |verdict| !verdict.is_clean());
                (format!("`cargo xtask crash --mode {}`, within {kills} kills", mode.name()), caught)
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        let verdict = if caught { "caught" } else { "SURVIVES" };
        say(&format!("{verdict:>8}  {bug}: {does}; {caught_by} ({seconds:.1} s)"));
        outcomes.push(Outcome { bug, does, caught_by, caught, seconds });
    }
    ensure!(!outcomes.is_empty(), "no planted bug has such a name");
    let survivors = outcomes.iter().filter(|outcome| !outcome.caught).count();
    if as_json {
        print(&outcomes);
    }
    say(&format!("{} planted bugs, {survivors} survive", outcomes.len()));
    ensure!(survivors == 0, "a bug was let in and nothing caught it");
    if outcomes.len() == PLANTED_BUGS.len() {
        document::replace(&root.join(DOCUMENT), "planted", &table(&outcomes))?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(outcomes: &[Outcome]) {
    for Outcome { bug, does, caught_by, caught, seconds } in outcomes {
        let line = json!({"bug": bug, "does": does, "caught": caught, "by": caught_by, "seconds": seconds});
        println!("{line}");
    }
}

fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from("| bug | what it does | what catches it |\n| --- | --- | --- |\n");
    for Outcome { bug, does, caught_by, .. } in outcomes {
        text.push_str(&format!("| `{bug}` | {does} | {caught_by} |\n"));
    }
    text
}

/// Test programs by package and target. Builds what has changed.
pub(crate) fn executables(
    root: &Path,
    wanted: &BTreeSet<(&'static str, &'static str)>,
) -> anyhow::Result<BTreeMap<(&'static str, &'static str), PathBuf>> {
    let mut arguments = vec!["test", "--no-run", "--workspace", "--lib", "--message-format", "json"];
    // Those of libraries have the name of the library.
    let targets: BTreeSet<_> =
        wanted.iter().map(|(_, target)| *target).filter(|target| !target.contains('_')).collect();
    for target in targets {
        arguments.extend([if target == BINARY_NAME { "--bin" } else { "--test" }, target]);
    }
    let output = cargo(root, &arguments).stderr(Stdio::inherit()).stdin(Stdio::null()).output();
    let output = output.context("cannot run cargo")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let mut found = BTreeMap::new();
    for message in Message::parse_stream(&output.stdout[..]) {
        let Message::CompilerArtifact(artifact) = message.context("cannot read what cargo says")? else { continue };
        let Some(executable) = &artifact.executable else { continue };
        for (package, target) in wanted {
            let folder = if *package == "wasmill" { "cli" } else { package.trim_start_matches("wasmill-") };
            let folder = format!("/runtime/{folder}/");
            if artifact.profile.test
                && artifact.target.name == *target
                && artifact.manifest_path.as_str().contains(&folder)
            {
                found.insert((*package, *target), executable.clone().into_std_path_buf());
            }
        }
    }
    Ok(found)
}

/// Sees that a test exists and finds nothing where there is no bug.
fn passes(program: &Path, name: &str) -> anyhow::Result<()> {
    let mut test = start(program, name, None)?;
    ensure!(ends(&mut test, PATIENCE_WELL)? == Some(true), "{name} fails without any bug");
    let output = test.wait_with_output().context("cannot read what a test says")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("1 passed"), "there is no test {name} in {}", program.display());
    Ok(())
}

fn start(program: &Path, name: &str, bug: Option<&str>) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.args([name, "--exact"]).env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1").env_remove(PLANTED_VARIABLE);
    // What a test says is little where it passes, and nobody reads it where it fails.
    command
        .stdin(Stdio::null())
        .stdout(if bug.is_some() { Stdio::null() } else { Stdio::piped() })
        .stderr(Stdio::null());
    if let Some(bug) = bug {
        command.env(PLANTED_VARIABLE, bug);
    }
    // What a test starts is in its group, so that nothing of it stays when the test fails.
    command.process_group(0).spawn().with_context(|| format!("cannot run {}", program.display()))
}

/// Whether a program succeeds; `None` where it hangs. Whatever it has started ends with it.
fn ends(child: &mut Child, patience: Duration) -> anyhow::Result<Option<bool>> {
    let began = now();
    let ended = loop {
        if let Some(status) = child.try_wait().context("cannot look at a test")? {
            break Some(status.success());
        }
        if began.elapsed() > patience {
            break None;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    // Mostly there is nobody left.
    let group = Pid::from_child(child);
    let _nobody = kill_process_group(group, Signal::KILL).is_err();
    child.wait().context("cannot wait for a test")?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_bug_has_a_catch() {
        let caught: Vec<&str> = CATCHES.iter().map(|(name, _)| *name).collect();
        let bugs: Vec<&str> = PLANTED_BUGS.iter().map(|(name, _)| *name).collect();
        assert_eq!(caught, bugs);
    }
}
