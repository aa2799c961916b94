//! Ordered stages, with plugins of the standard library.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::Folder;

const ROWS: u32 = 20_000;

/// Rows of a few kinds and regions, most of one.
fn input() -> String {
    let mut rows = String::new();
    for number in 0..ROWS {
        let kind = ["car", "car", "car", "truck", "bike"][number as usize % 5];
        writeln!(rows, "{{\"n\":{number},\"kind\":\"{kind}\",\"region\":{}}}", number % 7).expect("text");
    }
    rows
}

/// Drops rows, makes several of some, and rejects some, in lanes; then counts in lanes by key.
fn job(lanes: u16, source: &str) -> String {
    format!(
        "name = \"convoy\"\n[source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\n{source}\n\
         [stage.several]\nplugin = \"std:flat-map\"\ninput = \"in\"\nparallelism = {lanes}\n\
         ordered = {{ split = [\"/kind\", \"/region\"] }}\n\
         config = {{ expression = 'if .n % 1000 == 999 then error(\"no\") else range(.n % 4) as $i | . + {{i: $i}} end' }}\n\
         [stage.even]\nplugin = \"std:filter\"\ninput = \"several\"\nparallelism = {lanes}\n\
         ordered = {{ split = [\"/kind\", \"/region\"] }}\nconfig = {{ where = '(.n + .i) % 2 == 0' }}\n\
         [stage.one]\nplugin = \"std:map\"\ninput = \"even\"\nconfig = {{ expression = '{{n, i, region}}' }}\n\
         [stage.once]\nplugin = \"std:dedup\"\ninput = {{ from = \"one\", key = \"/region\" }}\nparallelism = {lanes}\n\
         ordered = true\nconfig = {{ by = \"/n\", within = \"1d\" }}\n\
         [sink.out]\nconnector = \"file\"\npath = \"out.jsonl\"\ninput = \"once\"\n"
    )
}

#[test]
fn lanes_give_the_rows_of_one_task_in_its_order() {
    let run = |lanes| {
        let folder = Folder::new().with("job.toml", job(lanes, "")).with("in.jsonl", input());
        let summary = folder.run(&["run", "job.toml", "--json"]).ok().json();
        assert_eq!(summary["rejected"], ROWS / 1_000, "{summary}");
        folder.read("out.jsonl")
    };
    let one = run(1);
    assert!(one.lines().count() > 1_000);
    assert_eq!(run(5), one);
}

#[test]
fn lanes_that_were_killed_go_on_in_order() {
    let folder = Folder::new().with("in.jsonl", input()).with("job.toml", job(1, ""));
    folder.run(&["run", "job.toml"]).ok();
    let wanted = folder.read("out.jsonl");
    // It never ends by itself, and says what it has seen.
    let follow = |lanes| {
        let job = job(lanes, "follow = true").replacen(
            "name = \"convoy\"",
            "name = \"convoy\"\nepoch = { interval = \"2ms\" }",
            1,
        );
        job + "[sink.seen]\nconnector = \"stdout\"\ninput = \"once\"\n"
    };
    let folder = Folder::new().with("in.jsonl", input());
    for (lanes, rows) in [(4, 500), (3, 2_000), (5, usize::MAX)] {
        let last = rows == usize::MAX;
        let job = if last { follow(lanes).replace("follow = true", "") } else { follow(lanes) };
        std::fs::write(folder.path().join("job.toml"), job).expect("written");
        let arguments = ["run", "job.toml", "--state", "state"];
        let mut child = folder.command().args(arguments).stdin(Stdio::null()).spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let seen = output.lines().map_while(Result::ok).take(rows).count();
        assert!(seen > 0, "it says nothing");
        if !last {
            child.kill().expect("killed");
        }
        let done = child.wait_with_output().expect("it ends");
        assert_eq!(done.status.success(), last, "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert_eq!(folder.results(), wanted);
}
