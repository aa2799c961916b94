//! `wasmill why`: who holds a watermark back, what buffers wait for, which rows were late.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout};

use serde_json::Value;

use crate::support::Folder;

/// Counts by the minute, over two sources that go on.
const WINDOWS: &str = "name = \"minutes\"\ndelivery = \"at-least-once\"\nepoch = { interval = \"1h\" }\n\
    [source.a]\nconnector = \"file\"\npath = \"in-a.jsonl\"\nfollow = true\nkey = \"/k\"\n\
    time = { field = \"/t\", unit = \"s\" }\nwatermark = { bound = \"5s\" }\n\
    [source.b]\nconnector = \"file\"\npath = \"in-b.jsonl\"\nfollow = true\nkey = \"/k\"\n\
    time = { field = \"/t\", unit = \"s\" }\nwatermark = { bound = \"5s\" }\n\
    [stage.per-minute]\nplugin = \"std:aggregate\"\ninput = [\"a\", \"b\"]\nwindow = { tumbling = \"1m\" }\n\
    config = { count = true }\n\
    [sink.seen]\nconnector = \"stdout\"\ninput = \"per-minute\"\n";

/// Puts rows in the order of their numbers.
const NUMBERS: &str = "name = \"numbers\"\ndelivery = \"at-least-once\"\nepoch = { interval = \"1h\" }\n\
    [source.in]\nconnector = \"file\"\npath = \"in-a.jsonl\"\nfollow = true\nkey = \"/k\"\n\
    [stage.all]\nplugin = \"std:filter\"\nconfig = { where = \"true\" }\n\
    input = { from = \"in\", order = { by = \"sequence\", field = \"/n\", per = \"key\" } }\n\
    [sink.seen]\nconnector = \"stdout\"\ninput = \"all\"\n";

struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(folder: &Folder) -> Self {
        let mut child = folder.spawn(&["run", "job.toml", "--state", "state"]);
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output }
    }

    /// Reads what comes out up to a row with these words.
    fn until(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).expect("a row"), 0, "it ended before {words}");
        }
    }

    fn stop(mut self, folder: &Folder) {
        folder.run(&["stop", "state"]).ok();
        assert!(self.child.wait().expect("it ends").success());
    }
}

fn append(folder: &Folder, file: &str, line: &str) {
    let file = std::fs::OpenOptions::new().append(true).open(folder.path().join(file));
    writeln!(file.expect("opened"), "{line}").expect("written");
}

fn why(folder: &Folder, node: &str) -> Value {
    folder.run(&["why", "state", node, "--json"]).ok().json()["nodes"][0].clone()
}

/// Asks until the answer is about what was written: rows come in by themselves.
fn why_until(folder: &Folder, node: &str, is_there: impl Fn(&Value) -> bool) -> Value {
    loop {
        let told = why(folder, node);
        if is_there(&told) {
            return told;
        }
    }
}

#[test]
fn an_open_window_names_the_source_that_holds_it_open_and_a_late_row_what_it_missed() {
    let folder = Folder::new()
        .with("job.toml", WINDOWS)
        .with("in-a.jsonl", "{\"k\":\"x\",\"t\":30}\n{\"k\":\"x\",\"t\":130}\n")
        .with("in-b.jsonl", "{\"k\":\"x\",\"t\":25}\n");
    folder.run(&["why", "state"]).fails(2, &["no state directory state"]);
    let mut running = Running::start(&folder);
    // It listens.
    while folder.run(&["status", "state"]).code != Some(0) {}
    let told = why_until(&folder, "per-minute", |told| told["watermark_micros"] == 19_999_999);
    let holder = &told["held_back_by"];
    assert_eq!((&holder["node"], &holder["partition_name"]), (&"b".into(), &"in-b.jsonl".into()), "{told}");
    let open = &told["windows"]["open"];
    assert_eq!((&open[0]["key"], &open[0]["end_micros"]), (&"x".into(), &60_000_000.into()), "{told}");
    assert_eq!(open[0]["rise_micros"], 40_000_000, "{told}");
    assert_eq!(told["late"], Value::Array(vec![]), "{told}");
    let told = why_until(&folder, "b", |told| told["partitions"][0].is_object());
    let partitions = &told["partitions"];
    assert_eq!(partitions.as_array().map(Vec::len), Some(1), "{partitions}");
    assert!(partitions[0]["name"] == "in-b.jsonl" && partitions[0]["standing"] == "live", "{partitions}");

    append(&folder, "in-b.jsonl", "{\"k\":\"y\",\"t\":200}");
    running.until("count");
    append(&folder, "in-b.jsonl", "{\"k\":\"z\",\"t\":11}");
    let told = why_until(&folder, "per-minute", |told| told["late"][0].is_object());
    assert_eq!(told["held_back_by"]["partition_name"], "in-a.jsonl", "{told}");
    let late = &told["late"][0];
    assert_eq!((&late["key"], &late["source"]), (&"z".into(), &Value::Null), "two sources feed the stage: {told}");
    assert_eq!((&late["time_micros"], &late["watermark_micros"]), (&11_000_000.into(), &124_999_999.into()), "{told}");
    assert!(late["reason"].as_str().expect("a sentence").contains("longer by 65.000001 s"), "{told}");

    let text = folder.run(&["why", "state"]).ok().out;
    for words in
        ["minutes: running", "held by    a, partition 0 (in-a.jsonl)", "window     ", "late       ", "partition  "]
    {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    folder.run(&["why", "state", "nobody"]).fails(1, &["no node nobody", "per-minute"]);
    running.stop(&folder);
}

#[test]
fn an_ordering_buffer_names_the_number_it_waits_for() {
    let rows = "{\"k\":\"a\",\"n\":0}\n{\"k\":\"a\",\"n\":2}\n{\"k\":\"a\",\"n\":3}\n{\"k\":\"a\",\"n\":0}\n{\"k\":\"b\",\"n\":0}\n";
    let folder = Folder::new().with("job.toml", NUMBERS).with("in-a.jsonl", rows);
    let mut running = Running::start(&folder);
    running.until("\"b\"");
    let told = why_until(&folder, "all", |told| told["late"][0].is_object());
    let buffer = &told["buffers"][0];
    assert_eq!(buffer["held"], 2, "{told}");
    assert_eq!(buffer["gaps"].as_array().map(Vec::len), Some(1), "{told}");
    let gap = &buffer["gaps"][0];
    assert_eq!((&gap["key"], &gap["missing"], &gap["held_from"]), (&"a".into(), &1.into(), &2.into()), "{told}");
    assert_eq!((&told["late"][0]["number"], &told["late"][0]["key"]), (&0.into(), &"a".into()), "{told}");
    let text = folder.run(&["why", "state", "all"]).ok().out;
    assert!(text.contains("key \"a\": number 1 is missing, and 2 rows from number 2 on wait"), "{text}");
    append(&folder, "in-a.jsonl", "{\"k\":\"a\",\"n\":1}");
    running.until("\"n\":3");
    why_until(&folder, "all", |told| told["buffers"][0]["held"] == 0);
    running.stop(&folder);
}
