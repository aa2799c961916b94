//! A disk that is full.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{Done, Folder, job};

const ROWS: &str = "name = \"big\"\n[source.in]\nconnector = \"generator\"\ncount = 200000\n\
                    [sink.out]\nconnector = \"stdout\"\ninput = \"in\"\n";

#[test]
fn standard_output_without_space_fails_the_job() {
    let folder = Folder::new().with("job.toml", ROWS);
    let full = File::options().write(true).open("/dev/full").expect("a device that is full");
    let done = Done::of(folder.command().args(["run", "job.toml"]).stdout(full).output().expect("it runs"));
    done.fails(1, &["sink \"out\"", "No space left on device"]);
}

#[test]
fn results_without_space_fail_the_command() {
    let full = File::options().write(true).open("/dev/full").expect("a device that is full");
    let done = Done::of(Folder::new().command().arg("schema").stdout(full).output().expect("it runs"));
    done.fails(1, &["cannot write to standard output: no space left on device"]);
}

#[test]
fn a_file_that_cannot_grow_fails_the_job_and_shows_no_partial_result() {
    let text = ROWS.replace("\"stdout\"", "\"file\"\npath = \"out.jsonl\"");
    let folder = Folder::new().with("job.toml", text);
    // A shell sets the limit on the size of files, and has the signal ignored that would end us.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" run job.toml";
    let mut command = Command::new("sh");
    folder.at_home(&mut command);
    let done = Done::of(command.args(["-c", script, env!("CARGO_BIN_EXE_wasmill")]).output().expect("it runs"));
    done.fails(1, &["sink \"out\"", "out.jsonl"]);
    assert!(!folder.has("out.jsonl"), "what is not committed has no final name");
}

#[test]
fn dead_letters_that_cannot_be_written_fail_the_job() {
    let timed = job(None).replace("key = \"/k\"", "time = { field = \"/at\", unit = \"ms\" }");
    let text = timed.replace("name = \"test\"", "name = \"test\"\ndead_letters = \"file/letters.jsonl\"");
    let folder = Folder::new().with("job.toml", text).with("in.jsonl", "oops\n").with("file", "");
    folder.run(&["run", "job.toml"]).fails(2, &["cannot write rejected rows to file/letters.jsonl"]);
}

#[test]
fn a_job_with_state_waits_for_room_and_goes_on_by_itself() {
    let text = ROWS.replace("\"stdout\"", "\"file\"\npath = \"out.jsonl\"");
    let folder = Folder::new().with("job.toml", format!("epoch = {{ interval = \"1ms\" }}\n{text}"));
    // The soft limit, so that there can be room again.
    let script = "trap '' XFSZ; ulimit -S -f 64; exec \"$0\" run job.toml --state state --json";
    let mut command = Command::new("sh");
    folder.at_home(&mut command);
    command.args(["-c", script, env!("CARGO_BIN_EXE_wasmill")]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it speaks");
    assert!(line.starts_with("paused: ") && line.contains("goes on by itself"), "{line}");
    let limit = Rlimit { current: None, maximum: None };
    prlimit(Some(Pid::from_child(&child)), Resource::Fsize, limit).expect("a child's own limit");
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("it speaks");
    let done = Done::of(child.wait_with_output().expect("it ends")).ok();
    assert!(rest.contains("there is room again"), "{rest}");
    assert_eq!(done.json()["outcome"], "finished");
    assert_eq!(folder.read("out.jsonl").lines().count(), 200_000);
}
