//! How a job ends before its input does.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Done, Folder, guest};

const COPY: &str =
    "name = \"copy\"\n[source.in]\nconnector = \"stdin\"\n[sink.out]\nconnector = \"stdout\"\ninput = \"in\"\n";

pub(crate) fn tell(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("told");
}

#[test]
fn interrupted_it_ends_at_an_epoch_with_everything_committed() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = Folder::new().with("job.toml", COPY.replace("\"stdout\"", "\"file\"\npath = \"out.jsonl\""));
        let text = folder
            .read("job.toml")
            .replace("[sink.out]", "[sink.seen]\nconnector = \"stdout\"\ninput = \"in\"\n[sink.out]");
        std::fs::write(folder.path().join("job.toml"), text).expect("written");
        let mut child = folder.spawn(&["run", "job.toml", "--json"]);
        let mut input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        input.write_all(b"1\n2\n").expect("taken");
        let mut line = String::new();
        // A row on standard output has been read, and the job waits for more.
        output.read_line(&mut line).expect("a row");
        assert_eq!(line, "1\n");
        tell(&child, signal);
        let done = Done::of(child.wait_with_output().expect("it ends")).ok();
        drop(input);
        assert_eq!(folder.read("out.jsonl"), "1\n2\n", "finished, no .part left");
        assert!(done.err.contains("\"outcome\":\"stopped\""), "{}", done.err);
    }
}

#[test]
fn a_second_interrupt_cuts_it_off() {
    let spin = guest("flush", "(loop $again (br $again)) (unreachable)");
    let stage = "[stage.work]\nplugin = \"plugin.wasm\"\ninput = \"in\"\n[sink.out]";
    let text = COPY.replace("[sink.out]", stage).replace("\"stdout\"\ninput = \"in\"", "\"stdout\"\ninput = \"work\"");
    let folder =
        Folder::new().with("job.toml", "epoch = { interval = \"1h\" }\n".to_owned() + &text).with("plugin.wasm", spin);
    let mut child = folder.spawn(&["run", "job.toml", "-v"]);
    let input = child.stdin.take().expect("piped");
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    // The first ends the epoch, and the plugin spins in `flush`.
    for words in ["started", "once more to cut off"] {
        while !said.contains(words) {
            assert_ne!(errors.read_line(&mut said).expect("it speaks"), 0, "{said}");
        }
        tell(&child, Signal::INT);
    }
    errors.read_to_string(&mut said).expect("it speaks");
    drop(input);
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{said}");
    assert!(said.contains("error: cut off"), "{said}");
}

#[test]
fn when_nobody_reads_its_rows_it_ends_quietly() {
    let text = COPY.replace("connector = \"stdin\"", "connector = \"generator\"");
    let folder = Folder::new().with("job.toml", text);
    let mut child = folder.command().args(["run", "job.toml"]).stdin(Stdio::null()).spawn().expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a row");
    drop(output);
    let done = Done::of(child.wait_with_output().expect("it ends"));
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
}

#[test]
fn results_that_nobody_reads_are_no_error() {
    let folder = Folder::new();
    let mut child = folder.spawn(&["schema"]);
    drop(child.stdout.take());
    let done = Done::of(child.wait_with_output().expect("it ends"));
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
}
