//! `cargo xtask fuzz`: the tests that fuzz, with as many cases as a campaign takes.
//!
//! A case is made of good input and of what is known to be odd, from the seed and its number. It goes through
//! the entry points of the real thing, in the process of the test. A panic, a case that takes too long or too much
//! memory, and one that ends the process are findings.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::planted::executables;
use crate::steps::{now, say};
use crate::{document, root};

const DOCUMENT: &str = "docs/hostile.md";
/// A case that is tried for so long has hung.
const HUNG: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is given odd input.
struct Target {
    name: &'static str,
    /// Package and target of its test.
    place: (&'static str, &'static str),
    test: &'static str,
    /// Cases of a campaign.
    cases: u64,
    /// What the cases go into, and what they are made of.
    what: &'static str,
}

const fn target(
    name: &'static str,
    place: (&'static str, &'static str),
    test: &'static str,
    cases: u64,
    what: &'static str,
) -> Target {
    Target { name, place, test, cases, what }
}

const CONTROL: (&str, &str) = ("wasmill-control", "wasmill_control");
const WASM: (&str, &str) = ("wasmill-wasm", "suite");
const CLI: (&str, &str) = ("wasmill", "wasmill");

const TARGETS: [Target; 10] = [
    target(
        "jobs",
        ("wasmill-spec", "fuzz"),
        "job_files",
        200_000,
        "the reader of job files: every job file of the repository, changed",
    ),
    target(
        "requests",
        CONTROL,
        "service::api::fuzz::requests",
        200_000,
        "the routes of the API: every endpoint, names, queries and bodies, as tenant, operator and nobody. An \
         answer 500 is a finding too",
    ),
    target(
        "records",
        CONTROL,
        "service::record::fuzz::records",
        200_000,
        "what a service keeps of tenants, tokens and jobs, changed, under a right checksum",
    ),
    target(
        "values",
        WASM,
        "fuzz::results",
        200_000,
        "what a call of a plugin returns: the memory that the host lifts rows, bitmaps, ends and lengths from",
    ),
    target(
        "components",
        WASM,
        "fuzz::components",
        20_000,
        "scan, componentizer, compiler, and a call: sections dropped, doubled, moved, changed, taken from others",
    ),
    target(
        "ingest",
        ("wasmill-connectors", "wasmill_connectors"),
        "http::fuzz::bodies",
        200_000,
        "bodies that the HTTP source takes: CloudEvents in their three modes, JSON, lines; headers too",
    ),
    target(
        "stores",
        ("wasmill-store", "durable"),
        "fuzz::stores",
        200_000,
        "the files of a job's state and of a savepoint, of every version, changed, half of them under right checksums",
    ),
    target(
        "topics",
        ("wasmill-store", "topic"),
        "fuzz::topic_files",
        200_000,
        "the files of a topic and of its groups, changed, half of them under right checksums; then it is read, \
         appended to and compacted",
    ),
    target(
        "oci",
        CLI,
        "oci::fuzz::oci",
        200_000,
        "references, manifests, configs, challenges, redirects, indexes of layouts",
    ),
    target(
        "configs",
        CLI,
        "fuzz::configs",
        20_000,
        "configurations of every standard plugin: expressions, patterns, tables. A plugin that traps is a finding too",
    ),
];

/// Runs campaigns, prints what came of them, and fails where one found something.
pub(crate) fn fuzz(name: Option<&str>, cases: Option<u64>, seed: u64, as_json: bool) -> anyhow::Result<()> {
    let root = root()?;
    let chosen: Vec<_> = TARGETS.iter().filter(|target| name.is_none_or(|name| name == target.name)).collect();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    ensure!(!chosen.is_empty(), "a target is one of {}", names.join(", "));
    let tests = executables(&root, &chosen.iter().map(|target| target.place).collect())?;
    let mut table = String::from("| target | goes into | cases | findings | slowest | most memory |\n");
    table.push_str("| --- | --- | --- | --- | --- | --- |\n");
    let mut wrong = Vec::new();
    for target in chosen {
        let Target { name, place, .. } = target;
        let program = tests.get(place).with_context(|| format!("there are no tests {} of {}", place.1, place.0))?;
        let result = campaign(target, program, &root, cases.unwrap_or(target.cases), seed)?;
        let Some(result) = result else {
            wrong.push(*name);
            continue;
        };
        if as_json {
            print(&result);
        }
        let largest = result["largest_bytes"].as_u64().unwrap_or(0) >> 20;
        say(&format!(
            "{name}: {} cases, {} of them good, {} findings, the slowest {} us, {largest} MiB, {} s (seed {seed})",
            result["cases"], result["taken"], result["findings"], result["slowest_micros"], result["seconds"]
        ));
        let slowest = result["slowest_micros"].as_u64().unwrap_or(0) / 1_000;
        let row = [
            format!("`{name}`"),
            target.what.to_owned(),
            result["cases"].to_string(),
            result["findings"].to_string(),
            format!("{slowest} ms"),
            format!("{largest} MiB"),
        ];
        table.push_str(&format!("| {} |\n", row.join(" | ")));
        if result["findings"] != 0 {
            wrong.push(*name);
        }
    }
    if !wrong.is_empty() {
        bail!("there are findings in {}", wrong.join(", "));
    }
    if name.is_none() && cases.is_none() {
        document::replace(&root.join(DOCUMENT), "fuzzing", &table)?;
    }
    Ok(())
}

/// What came of a campaign; `None` of one whose process ended early or hung, which is said.
fn campaign(target: &Target, program: &Path, root: &Path, cases: u64, seed: u64) -> anyhow::Result<Option<Value>> {
    let folder = root.join("target/fuzz");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let of = |what: &str| folder.join(format!("{}.{what}", target.name));
    let (said, complained, progress) = (of("out"), of("err"), of("case"));
    // There is none yet.
    let _none = fs::remove_file(&progress).is_err();
    let mut test = Command::new(program)
        .args([target.test, "--exact", "--nocapture"])
        .current_dir(root)
        .env("WASMILL_FUZZ_CASES", cases.to_string())
        .env("WASMILL_FUZZ_SEED", seed.to_string())
        .env("WASMILL_FUZZ_PROGRESS", &progress)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&said)?)
        .stderr(fs::File::create(&complained)?)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let at = || fs::read(&progress).ok().and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    let (mut last, mut since) = (at(), now());
    let status = loop {
        if let Some(status) = test.try_wait()? {
            break Some(status);
        }
        if at() != last {
            (last, since) = (at(), now());
        }
        if since.elapsed() > HUNG {
            test.kill()?;
            test.wait()?;
            break None;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let complaints = String::from_utf8_lossy(&fs::read(&complained)?).into_owned();
    let result = String::from_utf8_lossy(&fs::read(&said)?).into_owned();
    // The test's name stands before it on the line.
    let result = result.lines().find_map(|line| serde_json::from_str::<Value>(line.get(line.find('{')?..)?).ok());
    match (status, result) {
        (Some(status), Some(result)) => {
            if !status.success() {
                say(&complaints.lines().filter(|line| line.contains("wasmill-fuzz-")).collect::<Vec<_>>().join("\n"));
            }
            Ok(Some(result))
        }
        (ended, _) => {
            let how = ended.map_or_else(|| "hangs".to_owned(), |status| format!("ended the process: {status}"));
            let case = at().map_or_else(|| "no case".to_owned(), |case| format!("case {case}"));
            let name = target.name;
            say(&format!("{name}: {case} {how}; see {}; again: WASMILL_FUZZ_FROM, seed {seed}", complained.display()));
            Ok(None)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(line: &Value) {
    println!("{line}");
}
