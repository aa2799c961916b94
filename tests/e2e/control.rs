//! Commands for a job while it runs, by the socket in its state directory.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};

use rustix::process::Signal;
use serde_json::Value;

use crate::stop::tell;
use crate::support::Folder;

/// Copies what is appended to a file, for as long as it is let.
const JOB: &str = "name = \"copy\"\nepoch = { interval = \"1h\" }\n\
    [source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\nfollow = true\n\
    [stage.all]\nplugin = \"std:filter\"\ninput = \"in\"\nconfig = { where = \"true\" }\n\
    [sink.seen]\nconnector = \"stdout\"\ninput = \"all\"\n";

struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(folder: &Folder) -> Self {
        let run = ["run", "job.toml", "--state", "state", "--set", "delivery=at-least-once"];
        let mut child = folder.spawn(&run);
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output }
    }

    fn row(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).expect("a row"), 0, "it ended");
        line
    }
}

pub(crate) fn append(folder: &Folder, line: &str) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().append(true).open(folder.path().join("in.jsonl"));
    writeln!(file.expect("opened"), "{line}").expect("written");
}

#[test]
fn a_running_job_says_how_it_does_pauses_and_ends() {
    let folder = Folder::new().with("job.toml", JOB).with("in.jsonl", "{\"k\":1}\n");
    folder.run(&["status", "state"]).fails(2, &["no state directory state"]);
    let mut running = Running::start(&folder);
    running.row();
    let status = folder.run(&["status", "state", "--json"]).ok().json();
    assert_eq!((&status["job"], &status["state"]), (&"copy".into(), &"running".into()), "{status}");
    let node = |status: &Value, place: usize, key: &str| status["nodes"][place][key].clone();
    assert_eq!(node(&status, 0, "rows_out"), 1, "{status}");
    assert!(node(&status, 1, "plugin").as_str().expect("a digest").starts_with("sha256:"), "{status}");
    let text = folder.run(&["status", "state"]).ok().out;
    assert!(text.contains("copy: running for") && text.contains("stage"), "{text}");

    assert_eq!(folder.run(&["pause", "state"]).ok().out, "copy: paused\n");
    append(&folder, "{\"k\":2}");
    // Epochs go on, and none of them has the row.
    let made = folder.run(&["savepoint", "create", "--state", "state", "paused.savepoint", "--json"]).ok().json();
    assert!(made["epoch"].as_u64() > Some(0), "{made}");
    assert_eq!(node(&folder.run(&["status", "state", "--json"]).ok().json(), 0, "rows_out"), 1);
    assert_eq!(folder.run(&["resume", "state"]).ok().out, "copy: running\n");
    assert_eq!(running.row(), "{\"k\":2}\n");

    assert_eq!(folder.run(&["stop", "state"]).ok().out, "copy: stopping\n");
    assert!(running.child.wait().expect("it ends").success());
    folder.run(&["status", "state"]).fails(1, &["no job runs with the state in state", "wasmill run JOB"]);
}

#[test]
fn a_savepoint_of_a_running_job_goes_on_behind_its_rows() {
    let rows: String = (0..100).map(|row| format!("{{\"k\":{row}}}\n")).collect();
    let folder = Folder::new().with("job.toml", JOB).with("in.jsonl", &rows);
    let mut running = Running::start(&folder);
    (0..100).for_each(|_| drop(running.row()));
    let made = folder.run(&["savepoint", "create", "--state", "state", "--json"]).ok().json();
    let file = made["file"].as_str().expect("a file").to_owned();
    assert!(file.ends_with(&format!("state/savepoints/epoch-{}.savepoint", made["epoch"])), "{made}");
    // It is whole, and the job goes on; killed, it leaves a socket that nobody listens at.
    folder.run(&["savepoint", "inspect", &file]).ok();
    append(&folder, "{\"k\":\"new\"}");
    assert_eq!(running.row(), "{\"k\":\"new\"}\n");
    tell(&running.child, Signal::KILL);
    running.child.wait().expect("it ends");
    assert!(folder.has("state/control.sock"));
    folder.run(&["status", "state"]).fails(1, &["no job runs"]);
    folder.run(&["savepoint", "create", "--state", "state", "dead.savepoint"]).ok();

    folder.run(&["savepoint", "restore", &file, "--state", "again"]).ok();
    let arguments = ["run", "job.toml", "--state", "again", "--set", "source.in.follow=false"];
    let done = folder.run(&[&arguments[..], &["--set", "delivery=at-least-once"]].concat()).ok();
    assert_eq!(done.out, "{\"k\":\"new\"}\n", "{}", done.err);
}
