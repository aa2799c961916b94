//! `wasmill topic`, and jobs that read and write topics.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::support::{Done, Folder};

fn produce(folder: &Folder, arguments: &[&str], input: &str) -> Done {
    let mut child = folder.spawn(&[&["topic", "produce"], arguments].concat());
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    Done::of(child.wait_with_output().expect("it ends"))
}

fn consumed(folder: &Folder, arguments: &[&str]) -> String {
    folder.run(&[&["topic", "consume"], arguments].concat()).ok().out
}

#[test]
fn topics_are_made_filled_read_and_removed() {
    let folder = Folder::new();
    let done = folder.run(&["topic", "ls"]).ok();
    assert_eq!(done.err, "there is no topic in .wasmill/topics; `wasmill topic create NAME` makes one\n");
    assert_eq!(folder.run(&["topic", "ls", "--json"]).ok().json(), serde_json::json!([]));
    let missing = ["there is no topic orders in .wasmill/topics", "`wasmill topic create orders` makes it"];
    folder.run(&["topic", "consume", "orders"]).fails(2, &missing);
    folder.run(&["topic", "create", "Orders"]).fails(2, &["only a-z, 0-9 and '-'"]);
    folder.run(&["topic", "create", "orders", "--partitions", "0"]).fails(2, &["1 to 256 partitions, not 0"]);
    let done = folder.run(&["topic", "create", "orders", "--partitions", "2", "--retention", "7d"]).ok();
    assert_eq!(done.out, "made topic orders with 2 partitions\n");
    folder.run(&["topic", "create", "orders"]).fails(2, &["topic orders exists already"]);
    let rows = "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":2}\n{\"k\":\"a\",\"n\":3}\n";
    let done = produce(&folder, &["orders", "--key", "/k"], rows).ok();
    assert_eq!(done.err, "appended 3 records to orders\n");
    let bad = produce(&folder, &["orders", "--key", "/k"], "{\"k\":\"a\",\"n\":4}\n{}\n");
    bad.fails(1, &["line 2: there is no /k", "appended before it: 1 record"]);
    produce(&folder, &["orders", "--key", "k"], "").fails(2, &["no JSON pointer", "--fixed-key"]);
    let mut lines: Vec<String> = consumed(&folder, &["orders"]).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0], "{\"k\":\"a\",\"n\":1}");
    // What consume prints, produce takes.
    let envelopes = consumed(&folder, &["orders", "--json"]);
    let first: serde_json::Value = serde_json::from_str(envelopes.lines().next().expect("a line")).expect("JSON");
    assert!(first["offset"] == 0 && first["time"].is_i64() && first["value"]["k"] == first["key"], "{first}");
    folder.run(&["topic", "create", "copy", "--data", "elsewhere"]).ok();
    produce(&folder, &["copy", "--envelope", "--data", "elsewhere"], &envelopes).ok();
    let copied = consumed(&folder, &["copy", "--data", "elsewhere"]);
    assert_eq!(copied, consumed(&folder, &["orders"]));
    folder.run(&["topic", "consume", "orders", "--from", "99"]).fails(2, &["offset 99 of partition 0", "ends at"]);
    folder.run(&["topic", "consume", "orders", "--partition", "7"]).fails(2, &["partitions 0 to 1, not 7"]);
    let listed = folder.run(&["topic", "ls", "--json"]).ok().json();
    assert_eq!((&listed[0]["topic"], &listed[0]["records"]), (&"orders".into(), &4.into()));
    let folder = folder.with(".wasmill/topics/broken.topic", "no topic");
    let listed = folder.run(&["topic", "ls"]).fails(1, &["broken.topic"]);
    assert!(listed.out.contains("broken") && listed.out.contains("orders"), "{}", listed.out);
    std::fs::remove_file(folder.path().join(".wasmill/topics/broken.topic")).expect("removed");
    let said = folder.run(&["topic", "describe", "orders"]).ok().out;
    assert!(said.starts_with("orders: keeps records for 7d\n"), "{said}");
    folder.run(&["topic", "compact", "orders"]).ok();
    assert_eq!(folder.run(&["topic", "delete", "orders"]).ok().out, "deleted topic orders\n");
    folder.run(&["topic", "describe", "orders"]).fails(2, &missing);
}

#[test]
fn group_goes_on_where_it_was_and_others_begin_anew() {
    let folder = Folder::new();
    folder.run(&["topic", "create", "t"]).ok();
    produce(&folder, &["t"], "1\n2\n3\n").ok();
    assert_eq!(consumed(&folder, &["t", "--group", "g", "--limit", "2"]), "1\n2\n");
    assert_eq!(consumed(&folder, &["t", "--group", "g"]), "3\n");
    assert_eq!(consumed(&folder, &["t", "--group", "g"]), "");
    assert_eq!(consumed(&folder, &["t", "--group", "other"]), "1\n2\n3\n");
    let groups = folder.run(&["topic", "describe", "t", "--json"]).ok().json()["groups"].clone();
    assert_eq!((&groups[0]["group"], &groups[0]["offset"], &groups[0]["behind"]), (&"g".into(), &3.into(), &0.into()));
    folder.run(&["topic", "delete", "t", "--group", "none"]).fails(2, &["has no group none"]);
    folder.run(&["topic", "delete", "t", "--group", "g"]).ok();
    assert_eq!(consumed(&folder, &["t", "--group", "g"]), "1\n2\n3\n");
}

#[test]
fn follower_sees_what_another_process_appends() {
    let folder = Folder::new();
    folder.run(&["topic", "create", "t"]).ok();
    let mut follower = folder.command();
    follower.args(["topic", "consume", "t", "--follow", "--limit", "2"]).stdin(Stdio::null());
    let mut follower = follower.spawn().expect("it starts");
    let mut output = BufReader::new(follower.stdout.take().expect("piped"));
    for value in ["one\n", "two\n"] {
        produce(&folder, &["t"], value).ok();
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, value);
    }
    assert!(follower.wait().expect("it ends").success());
}

const TO_TOPIC: &str = "name = \"fill\"\ndelivery = \"exactly-once\"\nepoch = { interval = \"1ms\" }\n[source.in]\n\
                        connector = \"file\"\npath = \"in.jsonl\"\nkey = \"/k\"\n[sink.out]\nconnector = \"topic\"\n\
                        topic = \"middle\"\npartitions = 2\ninput = \"in\"\n";
const FROM_TOPIC: &str = "name = \"empty\"\ndelivery = \"exactly-once\"\nepoch = { interval = \"1ms\" }\n\
                          [source.in]\nconnector = \"topic\"\ntopic = \"middle\"\nuntil = \"end\"\ngroup = \"empty\"\n\
                          [sink.out]\nconnector = \"file\"\npath = \"out.jsonl\"\ninput = \"in\"\n";

/// Starts a job again and again, kills it after a while that grows, until it has ended by itself.
fn run_to_the_end(folder: &Folder, job: &str, state: &str) -> u64 {
    let mut kills = 0;
    for millis in (0..).map(|life| 4 * life) {
        let mut command = folder.command();
        command.args(["run", job, "--state", state]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let pid = child.id();
        let (ended, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let killer = std::thread::spawn(move || {
            let alive = wait.recv_timeout(std::time::Duration::from_millis(20 + millis)).is_err();
            if alive && let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
                // It may have ended just now.
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_err();
            }
        });
        let status = child.wait().expect("it ends");
        // The killer may have fired already.
        let _fired = ended.try_send(()).is_err();
        killer.join().expect("joins");
        if status.success() {
            break;
        }
        assert_eq!(status.code(), None, "it failed by itself");
        kills += 1;
    }
    kills
}

#[test]
fn rows_from_job_to_topic_to_job_are_there_once_whoever_is_killed() {
    let rows: String = (0..60_000).map(|row| format!("{{\"k\":\"k{}\",\"n\":{row}}}\n", row % 7)).collect();
    let folder = Folder::new().with("fill.toml", TO_TOPIC).with("empty.toml", FROM_TOPIC).with("in.jsonl", &rows);
    let kills = run_to_the_end(&folder, "fill.toml", "state-fill") + {
        let middle = consumed(&folder, &["middle"]);
        let mut there: Vec<&str> = middle.lines().collect();
        let mut expected: Vec<&str> = rows.lines().collect();
        there.sort_unstable();
        expected.sort_unstable();
        assert!(there == expected, "{} rows in the topic, not {}", there.len(), expected.len());
        run_to_the_end(&folder, "empty.toml", "state-empty")
    };
    assert!(kills > 2, "{kills} kills");
    let mut out = Vec::new();
    for file in std::fs::read_dir(folder.path()).expect("lists") {
        let name = file.expect("a file").file_name().into_string().expect("text");
        if name.starts_with("out") {
            assert!(!name.ends_with(".part"), "{name}");
            out.push(folder.read(&name));
        }
    }
    let out = out.concat();
    let mut there: Vec<&str> = out.lines().collect();
    let mut expected: Vec<&str> = rows.lines().collect();
    there.sort_unstable();
    expected.sort_unstable();
    assert!(there == expected, "{} rows at the end, not {}", there.len(), expected.len());
}

#[test]
fn what_a_topic_sink_gives_depends_on_the_state() {
    let folder = Folder::new().with("job.toml", TO_TOPIC).with("in.jsonl", "{\"k\":\"a\"}\n");
    folder.run(&["check", "job.toml"]).fails(2, &["exactly-once", "--state"]);
    let said = folder.run(&["explain", "job.toml", "--state", "state"]).ok().out;
    assert!(said.contains("rows are delivered after their epoch, each with an id"), "{said}");
    let job = TO_TOPIC.replace("partitions = 2\n", "");
    let folder = folder.with("job.toml", job);
    folder.run(&["run", "job.toml", "--state", "state"]).fails(2, &["no topic middle", "wasmill topic create middle"]);
}
