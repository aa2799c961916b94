//! Rows over sockets: nothing that was acknowledged is lost or doubled.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStderr, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::stop::tell;
use crate::support::{Done, Folder};

/// A running job with a source that listens.
struct Listening {
    child: Child,
    errors: BufReader<ChildStderr>,
    /// Host and port.
    address: String,
}

impl Listening {
    fn start(folder: &Folder, state: bool) -> Self {
        let mut command = folder.command();
        command.args(["run", "job.toml", "--json"]);
        if state {
            command.args(["--state", "state"]);
        }
        let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
        let mut errors = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        assert_ne!(errors.read_line(&mut line).expect("it speaks"), 0, "it ended");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let location = said["location"].as_str().expect("a location");
        let address = location.split("://").nth(1).expect("a URL").trim_end_matches('/').to_owned();
        Self { child, errors, address }
    }

    /// Ends it at an epoch: its summary.
    fn stop(mut self) -> Value {
        tell(&self.child, Signal::INT);
        let mut said = String::new();
        self.errors.read_to_string(&mut said).expect("it speaks");
        let mut done = Done::of(self.child.wait_with_output().expect("it ends"));
        done.err = said;
        done.ok().json()
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ends");
    }
}

/// Posts a body; `None` where the connection broke before an answer came.
fn post(address: &str, head: &str, body: &str) -> Option<(u16, String)> {
    send(address, "POST /", head, body)
}

fn send(address: &str, line: &str, head: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let length = body.len();
    let request =
        format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

const JOB: &str = "name = \"take\"\nepoch = { interval = \"20ms\" }\n[source.in]\nconnector = \"CONNECTOR\"\n\
                   listen = \"127.0.0.1:0\"\n[sink.out]\nconnector = \"file\"\npath = \"out.jsonl\"\ninput = \"in\"\n";

fn folder(connector: &str, more: &str) -> Folder {
    let job = JOB.replace("CONNECTOR", connector).replace("[sink.out]", &format!("{more}\n[sink.out]"));
    Folder::new().with("job.toml", job)
}

/// All that finished files hold, in the order of their numbers.
fn output(folder: &Folder) -> String {
    let mut all = String::new();
    for number in 0.. {
        let name = if number == 0 { "out.jsonl".to_owned() } else { format!("out-{number}.jsonl") };
        if !folder.has(&name) {
            return all;
        }
        all += &folder.read(&name);
    }
    all
}

#[test]
fn rows_and_senders_get_numbers_of_one_sequence_and_none_twice_whatever_dies() {
    let options = "sequence = { name = \"turns\", field = \"n\" }\nsequences = [\"turns\"]";
    let folder = folder("http", options);
    let json = "content-type: application/json\r\n";
    let mut taken: Vec<u64> = Vec::new();
    for life in 0..3 {
        let job = Listening::start(&folder, true);
        for row in 0..4 {
            let (status, answer) =
                post(&job.address, json, &format!("{{\"row\":\"{life}-{row}\"}}")).expect("an answer");
            assert_eq!(status, 202, "{answer}");
        }
        let (status, answer) = send(&job.address, "POST /sequence/turns?count=5", "", "").expect("an answer");
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
        assert_eq!((status, &body["count"]), (200, &5.into()), "{answer}");
        let first = body["first"].as_u64().expect("a number");
        taken.extend(first..first + 5);
        for (line, expected, words) in [
            ("POST /sequence/other", 404, "no such sequence"),
            ("GET /sequence/turns", 405, "POST"),
            ("POST /sequence/turns?count=0", 400, "from 1 to 1000000"),
            ("POST /sequence/turns?count=9999999999", 400, "from 1 to 1000000"),
        ] {
            let (status, answer) = send(&job.address, line, "", "").expect("an answer");
            assert!(status == expected && answer.contains(words), "{line}: {answer}");
        }
        if life < 2 {
            job.kill();
            continue;
        }
        // A job that is stopped leaves what it has not read yet to the next run.
        let written = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.expect("listed").path();
            let is_output = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("out"));
            is_output && std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"2-3\""))
        };
        while !std::fs::read_dir(folder.path()).expect("listed").any(written) {}
        drop(job.stop());
    }
    let rows: Vec<Value> = output(&folder).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 12);
    taken.extend(rows.iter().map(|row| row["n"].as_u64().expect("a number")));
    let given = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), given, "a number was given twice: {taken:?}");
}

#[test]
fn every_acknowledged_event_is_there_once_whatever_kills_the_job() {
    let folder = folder("http", "");
    let mut acknowledged = Vec::new();
    let lives = 6;
    for life in 0..lives {
        let job = Listening::start(&folder, true);
        let address = job.address.clone();
        // Senders post until the job dies under them, and say what was acknowledged.
        let senders: Vec<_> = (0..3)
            .map(|sender| {
                let address = address.clone();
                let (told, tells) = std::sync::mpsc::sync_channel(1_000);
                let thread = std::thread::spawn(move || {
                    for number in 0_u32..if life + 1 == lives { 20 } else { 1_000 } {
                        let id = format!("{life}-{sender}-{number}");
                        let head = format!(
                            "content-type: application/json\r\nce-specversion: 1.0\r\nce-id: {id}\r\nce-source: s\r\nce-type: t\r\n"
                        );
                        let Some((status, answer)) = post(&address, &head, &format!("\"{id}\"")) else { return };
                        assert_eq!(status, 202, "{answer}");
                        if told.send(id).is_err() {
                            return;
                        }
                    }
                });
                (thread, tells)
            })
            .collect();
        let last = life + 1 == lives;
        // So many answers, and then it dies in the middle of others.
        for (_, tells) in &senders {
            acknowledged.extend((0..5 + life * 7).map_while(|_| tells.recv().ok()));
        }
        if last {
            for (thread, tells) in senders {
                acknowledged.extend(tells.iter());
                thread.join().expect("the sender is well");
            }
            // What was acknowledged in an earlier life comes again, and is known.
            let id = acknowledged[0].clone();
            let head = format!(
                "content-type: application/json\r\nce-specversion: 1.0\r\nce-id: {id}\r\nce-source: s\r\nce-type: t\r\n"
            );
            let (_, answer) = post(&address, &head, "\"other\"").expect("answered");
            assert!(answer.contains("\"accepted\":0,\"duplicates\":1"), "{answer}");
            let summary = job.stop();
            assert_eq!(summary["duplicates"], 1, "{summary}");
        } else {
            job.kill();
            for (thread, tells) in senders {
                acknowledged.extend(tells.iter());
                thread.join().expect("the sender is well");
            }
        }
    }
    // A job that is stopped may leave rows in its ingest topic: they come with its next life.
    let all_there = |output: &str| acknowledged.iter().all(|id| output.contains(&format!("\"{id}\"")));
    for _ in 0..100 {
        if all_there(&output(&folder)) {
            break;
        }
        Listening::start(&folder, true).stop();
    }
    let output = output(&folder);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    output.lines().for_each(|line| *counts.entry(line.trim_matches('"')).or_default() += 1);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    for id in &acknowledged {
        assert!(counts.contains_key(id.as_str()), "{id} was acknowledged and is not there");
    }
}

#[test]
fn a_source_says_what_it_gives_without_state_and_with_it() {
    let folder = folder("http", "");
    let said = folder.run(&["explain", "job.toml"]).ok().out;
    assert!(said.contains("at-most-once") && said.contains("it cannot be read again"), "{said}");
    let said = folder.run(&["explain", "job.toml", "--state", "state"]).ok().out;
    assert!(said.contains("exactly-once"), "{said}");
}

#[test]
fn lines_come_over_tcp_and_udp_and_every_row_is_counted() {
    for (connector, state) in [("tcp", false), ("tcp", true), ("udp", false), ("udp", true)] {
        let folder = folder(connector, "record_bytes_max = \"8B\"");
        let job = Listening::start(&folder, state);
        let text = "1\n{\"too\":\"long\"}\n\n2\n3";
        if connector == "tcp" {
            let mut stream = TcpStream::connect(&job.address).expect("connects");
            stream.write_all(text.as_bytes()).expect("sent");
            stream.shutdown(std::net::Shutdown::Write).expect("closed");
            // The job has read to the end, and closes.
            stream.read_to_end(&mut Vec::new()).expect("closed");
        } else {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
            socket.send_to(text.as_bytes(), &job.address).expect("sent");
            // Nobody answers: rows that a file shows have come.
            while !folder.path().join("out.jsonl.part").metadata().is_ok_and(|meta| meta.len() == 6) {
                std::thread::yield_now();
            }
        }
        // With state, rows that wait are read by the next run.
        if state && connector == "tcp" {
            while !folder.path().join("out.jsonl.part").metadata().is_ok_and(|meta| meta.len() == 6) {
                std::thread::yield_now();
            }
        }
        let summary = job.stop();
        let all = [&summary["rows_in"], &summary["rows_out"], &summary["rejected"], &summary["dropped"]];
        assert_eq!(all.map(|value| value.as_u64().expect("a number")), [4, 3, 1, 0], "{connector} {summary}");
        assert_eq!(output(&folder), "1\n2\n3\n", "{connector}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("an address").to_string();
    let job = JOB.replace("CONNECTOR", "http").replace("127.0.0.1:0", &address);
    let folder = Folder::new().with("job.toml", job);
    folder
        .run(&["run", "job.toml"])
        .fails(2, &[&format!("cannot listen on {address}: something listens there already")]);
}

#[test]
fn durable_standard_input_loses_nothing_that_was_read() {
    let job = "name = \"copy\"\nepoch = { interval = \"1h\" }\n[source.in]\nconnector = \"stdin\"\ndurable = true\n\
               [sink.out]\nconnector = \"file\"\npath = \"out.jsonl\"\ninput = \"in\"\n\
               [sink.seen]\nconnector = \"stdout\"\ninput = \"in\"\n";
    let folder = Folder::new().with("job.toml", job);
    let run = ["run", "job.toml", "--state", "state", "--json"];
    // Killed once its rows were seen, before an epoch has committed them.
    let mut child = folder.spawn(&run);
    let mut input = child.stdin.take().expect("piped");
    let mut seen = BufReader::new(child.stdout.take().expect("piped"));
    input.write_all(b"1\n2\n").expect("taken");
    let mut line = String::new();
    seen.read_line(&mut line).expect("a row");
    child.kill().expect("killed");
    child.wait().expect("it ends");
    drop(input);
    let mut child = folder.spawn(&run);
    child.stdin.take().expect("piped").write_all(b"3\n").expect("taken");
    let done = Done::of(child.wait_with_output().expect("it ends")).ok();
    assert!(done.err.contains("\"outcome\":\"finished\""), "{}", done.err);
    assert_eq!(folder.read("out.jsonl"), "1\n2\n3\n");
}

#[test]
fn policies_count_what_they_drop_and_keep_the_sum() {
    for policy in ["drop-oldest", "drop-newest", "spill"] {
        let job = format!(
            "name = \"flood\"\n[source.in]\nconnector = \"generator\"\ncount = 200000\nvalue_bytes = \"100B\"\n\
             backpressure = {{ policy = \"{policy}\", bytes = \"64KiB\" }}\n[sink.out]\nconnector = \"file\"\n\
             path = \"out.jsonl\"\ninput = \"in\"\n"
        );
        let folder = Folder::new().with("job.toml", job);
        let summary = folder.run(&["run", "job.toml", "--json"]).ok().json();
        let number = |key: &str| summary[key].as_u64().unwrap_or_else(|| panic!("{key}: {summary}"));
        assert_eq!(number("rows_in"), 200_000, "{policy}: {summary}");
        assert_eq!(number("rows_in"), number("rows_out") + number("rejected") + number("dropped"), "{policy}");
        assert_eq!(folder.read("out.jsonl").lines().count() as u64, number("rows_out"), "{policy}");
        if policy == "spill" {
            assert_eq!(number("dropped"), 0);
        }
    }
}
