//! Another plugin in a stage of a job that runs.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};

use rustix::process::Signal;

use crate::control::append;
use crate::stop::tell;
use crate::support::{Folder, built_guest};

/// Counts what is appended to a file, by key.
pub(crate) const JOB: &str = "name = \"swap\"\ndelivery = \"at-least-once\"\nepoch = { interval = \"1h\" }\n\
    [source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\nfollow = true\n\
    [stage.count]\nplugin = \"v1.wasm\"\ninput = { from = \"in\", key = \"/k\" }\nparallelism = 2\n\
    [sink.seen]\nconnector = \"stdout\"\ninput = \"count\"\n";

/// A version of `tests/guests/versions`.
pub(crate) fn version(name: &str) -> Vec<u8> {
    marked("versions", name)
}

/// A guest that says that it is version `name`.
pub(crate) fn marked(guest: &str, name: &str) -> Vec<u8> {
    const MARK: &str = "wasmill-version=v1      ";
    let mut bytes = built_guest(guest);
    let place = bytes.windows(MARK.len()).position(|window| window == MARK.as_bytes()).expect("the mark");
    let mark = format!("{:<width$}", format!("wasmill-version={name}"), width = MARK.len());
    bytes[place..place + MARK.len()].copy_from_slice(mark.as_bytes());
    bytes
}

pub(crate) fn folder() -> Folder {
    let folder = Folder::new().with("job.toml", JOB).with("in.jsonl", "");
    ["v1", "v2", "v3", "open", "process", "later", "flush", "schema"]
        .into_iter()
        .fold(folder, |folder, name| folder.with(&format!("{name}.wasm"), version(name)))
}

pub(crate) struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(folder: &Folder) -> Self {
        Self::start_on(folder, "state")
    }

    pub(crate) fn start_on(folder: &Folder, state: &str) -> Self {
        Self::of(folder.spawn(&["run", "job.toml", "--state", state]))
    }

    /// The same with more in its environment.
    pub(crate) fn start_with(folder: &Folder, environment: &[(&str, &str)]) -> Self {
        let mut command = folder.command();
        command.args(["run", "job.toml", "--state", "state"]).envs(environment.iter().copied());
        Self::of(command.spawn().expect("it starts"))
    }

    fn of(mut child: Child) -> Self {
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output }
    }

    /// Appends an event, and returns what comes of it: its count and its version.
    pub(crate) fn event(&mut self, folder: &Folder, key: &str) -> String {
        append(folder, &format!("{{\"k\":\"{key}\"}}"));
        self.row(key)
    }

    pub(crate) fn row(&mut self, key: &str) -> String {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).expect("a row"), 0, "it ended");
        line.trim_end().strip_prefix(&format!("{{\"k\":\"{key}\"}}|")).unwrap_or(&line).to_owned()
    }

    /// Waits for a row. `false` where it ends before.
    pub(crate) fn until(&mut self, row: &str) -> bool {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("a row") > 0 {
            if line.trim_end() == row {
                return true;
            }
            line.clear();
        }
        false
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(mut self) {
        self.child.wait().expect("it ends");
    }

    pub(crate) fn kill(mut self) {
        tell(&self.child, Signal::KILL);
        self.child.wait().expect("it ends");
    }
}

/// A test that fails leaves no process behind.
impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}

#[test]
fn a_swapped_stage_goes_on_with_its_state_and_stays_swapped_after_a_crash() {
    let folder = folder();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    let swapped = folder.run(&["swap", "state", "count", "v2.wasm", "--json"]).ok().json();
    assert!(swapped["epoch"].as_u64() > Some(0) && swapped["pause_micros"].is_u64(), "{swapped}");
    assert_eq!(running.event(&folder, "a"), "2|v2");
    let status = folder.run(&["status", "state", "--json"]).ok().json();
    assert_eq!(status["nodes"][1]["plugin"], swapped["to"], "{status}");
    folder.run(&["swap", "state", "count", "v2.wasm"]).fails(1, &["runs with that plugin already"]);
    folder.run(&["savepoint", "create", "--state", "state"]).ok();
    running.kill();

    // The job file still names the first one.
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "3|v2");
    // And back: then nothing is swapped any more.
    folder.run(&["swap", "state", "count", "v1.wasm"]).ok();
    assert_eq!(running.event(&folder, "a"), "4|v1");
    folder.run(&["swap", "state", "count", "v2.wasm"]).ok();
    folder.run(&["stop", "state"]).ok();
    assert!(running.child.wait().expect("it ends").success());

    // A job file that names another one since has the last word.
    let folder = folder.with("job.toml", JOB.replace("v1.wasm", "v3.wasm"));
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "5|v3");
    running.kill();
}

#[test]
fn state_on_disk_and_open_windows_go_on_in_another_plugin() {
    let backend = "state = { backend = \"disk\", cache = \"1MiB\" }\n";
    let folder = folder().with("job.toml", JOB.replace("[source.in]", &format!("{backend}[source.in]")));
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    folder.run(&["swap", "state", "count", "process.wasm"]).fails(1, &["cannot process anything"]);
    folder.run(&["swap", "state", "count", "v2.wasm"]).ok();
    assert_eq!(running.event(&folder, "a"), "2|v2");
    running.kill();

    // The same aggregate under another digest: a custom section more.
    let aggregate = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins/aggregate.wasm");
    let aggregate = std::fs::read(&aggregate).expect("run cargo xtask plugins");
    let other = [&aggregate[..], b"\0\x06\x05other"].concat();
    let job = JOB
        .replace("v1.wasm", "sum.wasm")
        .replace("parallelism = 2", "parallelism = 2\nwindow = { tumbling = \"10s\" }\nconfig = { count = true }");
    let job = job.replace("follow = true", "follow = true\ntime = { field = \"/t\", unit = \"s\" }");
    let folder = Folder::new().with("job.toml", job).with("in.jsonl", "");
    let folder = folder.with("sum.wasm", aggregate).with("other.wasm", other);
    let mut running = Running::start(&folder);
    let event = |key: &str, second: u32| append(&folder, &format!("{{\"k\":\"{key}\",\"t\":{second}}}"));
    // The first window has fired, so the second has its rows.
    event("a", 1);
    event("a", 11);
    event("a", 12);
    let first = running.row("a");
    folder.run(&["swap", "state", "count", "other.wasm"]).ok();
    event("a", 13);
    event("a", 21);
    let second = running.row("a");
    assert!(first.contains("\"count\":1") && second.contains("\"count\":3"), "{first} {second}");
    running.kill();
}

#[test]
fn a_plugin_that_fails_leaves_the_one_before_running() {
    let folder = folder();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    folder.run(&["swap", "state", "nothing", "v2.wasm"]).fails(1, &["no stage \"nothing\"", "its stages are `count`"]);
    folder.run(&["swap", "state", "count", "gone.wasm"]).fails(1, &["there is no file", "gone.wasm"]);
    folder.run(&["swap", "state", "count", "job.toml"]).fails(1, &["job.toml"]);
    folder.run(&["swap", "state", "count", "std:filter"]).fails(1, &["std:filter cannot take over stage `count`"]);
    folder.run(&["swap", "state", "count", "open.wasm"]).fails(1, &["cannot be opened"]);
    folder.run(&["swap", "state", "count", "schema.wasm"]).fails(
        1,
        &["cannot take over stage `count`: space: \"seen\" has schema 2, its state schema 1", "wasmill diff"],
    );
    assert_eq!(running.event(&folder, "a"), "2|v1");
    let before = "the plugin before goes on";
    folder.run(&["swap", "state", "count", "process.wasm"]).fails(1, &["cannot process anything", before]);
    folder.run(&["swap", "state", "count", "flush.wasm"]).fails(1, &["cannot write its state", before]);
    assert_eq!(running.event(&folder, "a"), "3|v1");
    running.kill();
}

#[test]
fn a_diff_says_what_a_swap_would() {
    let folder = folder();
    folder.run(&["diff", "v1.wasm", "v2.wasm"]).ok();
    let done = folder.run(&["diff", "v1.wasm", "schema.wasm", "--json"]);
    assert_eq!((done.code, &done.json()["verdict"]), (Some(1), &"refuse".into()), "{done:?}");
    let done = folder.run(&["diff", "v1.wasm", "std:dedup", "--config", "{\"within\":\"1h\"}", "--json"]);
    assert!(done.code == Some(2) || done.json()["verdict"] != "swap", "{done:?}");
}
