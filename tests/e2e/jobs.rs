//! Jobs that run, and job files that cannot.

use crate::support::{Folder, guest, job, three_events};

#[test]
fn rows_come_out_and_the_summary_counts_them() {
    let folder = three_events(None);
    let done = folder.run(&["run", "job.toml"]).ok();
    assert_eq!(folder.read("out.jsonl"), folder.read("in.jsonl"));
    assert!(done.out.starts_with("done: test in "), "{}", done.out);
    assert!(done.out.contains("rows out  3 to out -> out.jsonl"), "{}", done.out);
    assert_eq!(done.err, "", "quiet where nobody watches");
    assert!(!folder.has(".wasmill"), "dead letters only where there are any");
}

#[test]
fn the_json_summary_has_the_keys_that_scripts_rely_on() {
    let folder = three_events(Some("")).with("plugin.wasm", guest("none", ""));
    let summary = folder.run(&["run", "job.toml", "--json"]).ok().json();
    assert_eq!(summary["job"], "test");
    assert_eq!(summary["outcome"], "finished");
    assert_eq!((summary["rows_in"].as_u64(), summary["rows_out"].as_u64()), (Some(3), Some(3)));
    assert_eq!((summary["rejected"].as_u64(), summary["late"].as_u64()), (Some(0), Some(0)));
    for key in ["duration_seconds", "cpu_seconds", "events_per_second", "events_per_cpu_second", "first_output_ms"] {
        assert!(summary[key].is_number(), "{key}: {summary}");
    }
    for key in ["rows", "p50_nanos", "p99_nanos", "p999_nanos", "max_nanos"] {
        assert!(summary["latency"][key].is_u64(), "{key}: {summary}");
    }
    assert_eq!(summary["sinks"][0]["location"], "out.jsonl");
    let nodes: Vec<&str> =
        summary["nodes"].as_array().expect("nodes").iter().filter_map(|n| n["name"].as_str()).collect();
    assert_eq!(nodes, ["in", "work", "out"]);
    assert_eq!(summary["nodes"][1]["kind"], "stage");
    assert_eq!(summary["dead_letters"], serde_json::Value::Null);
}

#[test]
fn rejected_rows_go_to_the_dead_letters_of_this_run() {
    let timed = job(None).replace("key = \"/k\"", "time = { field = \"/at\", unit = \"ms\" }");
    let folder = Folder::new().with("job.toml", &timed).with("in.jsonl", "{\"at\":1}\noops\n{\"at\":\"x\"}\n");
    for _ in 0..2 {
        let summary = folder.run(&["run", "job.toml", "--json"]).ok().json();
        assert_eq!(summary["rejected"], 2);
        assert_eq!(summary["dead_letters"], ".wasmill/test/dead-letters.jsonl");
        let letters = folder.read(".wasmill/test/dead-letters.jsonl");
        assert_eq!(letters.lines().count(), 2, "fresh in every run: {letters}");
        let first: serde_json::Value = serde_json::from_str(letters.lines().next().expect("a line")).expect("JSON");
        assert_eq!((first["node"].as_str(), first["value"].as_str()), (Some("in"), Some("oops")));
        assert!(first["reason"].as_str().is_some_and(|reason| reason.contains("/at")), "{first}");
    }
    std::fs::write(folder.path().join("in.jsonl"), "{\"at\":1}\n").expect("written");
    folder.run(&["run", "job.toml"]).ok();
    assert!(!folder.has(".wasmill/test/dead-letters.jsonl"), "none of an earlier run");
}

#[test]
fn dead_letters_never_replace_a_file_of_the_job() {
    let folder = three_events(None);
    for path in ["in.jsonl", "out.jsonl"] {
        let set = format!("dead_letters={path}");
        let done = folder.run(&["run", "job.toml", "--set", &set]);
        done.fails(2, &["`dead_letters` names the file of"]);
    }
    assert_eq!(folder.read("in.jsonl").lines().count(), 3);
}

#[test]
fn one_value_can_be_set_for_one_run() {
    let folder = three_events(None).with("other.jsonl", "{\"k\":1}\n");
    folder.run(&["run", "job.toml", "--set", "source.in.path=other.jsonl", "--set", "sink.out.path=o.jsonl"]).ok();
    assert_eq!(folder.read("o.jsonl"), "{\"k\":1}\n");
    assert!(!folder.has("out.jsonl"));
    folder.run(&["run", "job.toml", "--set", "source.in.pth=x"]).fails(2, &["unknown option `pth`"]);
    folder.run(&["run", "job.toml", "--set", "name.x=1"]).fails(2, &["--set name.x", "not in a table"]);
    folder.run(&["run", "job.toml", "--set", "nothing"]).fails(2, &["KEY=VALUE"]);
}

#[test]
fn check_shows_every_error_on_its_line() {
    let text = "name = \"Bad Name\"\n[source.a]\nconnector = \"fil\"\n[stage.b]\nplugin = \"no.wasm\"\ninput = \"aa\"\n\
                windw = 1\n[sink.c]\nconnector = \"file\"\npath = \"x\"\ninput = \"b\"\n";
    let folder = Folder::new().with("job.toml", text);
    let words =
        ["job.toml:1:", "job.toml:6:", "job.toml:7:", "did you mean `window`?", "did you mean `a`?", "3 errors"];
    folder.run(&["check", "job.toml"]).fails(2, &words);
    let report = folder.run(&["check", "job.toml", "--json"]);
    assert_eq!((report.code, report.json()["error"]["diagnostics"].as_array().map(Vec::len)), (Some(2), Some(3)));

    // What connectors and plugins say comes once the file itself is right.
    let text = text.replace("Bad Name", "good").replace("\"aa\"", "\"a\"").replace("windw = 1\n", "");
    let folder = Folder::new().with("job.toml", text);
    let words = ["there is no connector \"fil\"", "did you mean `file`?", "there is no file no.wasm", "2 errors"];
    folder.run(&["check", "job.toml"]).fails(2, &words);
}

#[test]
fn an_option_of_a_connector_may_look_like_a_key_of_every_source() {
    let job = |more: &str| {
        let sink = "[sink.out]\nconnector = \"blackhole\"\ninput = \"in\"\n";
        format!("name = \"made\"\n[source.in]\nconnector = \"generator\"\ncount = 10\n{more}\n{sink}")
    };
    let folder = Folder::new().with("job.toml", job("keys = 5")).with("typo.toml", job("tiem = { field = \"/at\" }"));
    folder.run(&["check", "job.toml"]).ok();
    folder.run(&["check", "typo.toml"]).fails(2, &["typo.toml:5:", "unknown option `tiem`", "did you mean `time`?"]);
}

#[test]
fn a_good_job_is_ok() {
    let folder = three_events(None);
    let done = folder.run(&["check", "job.toml"]).ok();
    assert_eq!(done.out, "ok: test: 1 source, 0 stages, 1 sink; exactly-once\n");
    let report = folder.run(&["check", "job.toml", "--json"]).ok().json();
    assert_eq!((&report["ok"], &report["delivery"]), (&true.into(), &"exactly-once".into()));
}

#[test]
fn what_is_not_there_is_named() {
    let folder = Folder::new().with("job.toml", job(None));
    folder.run(&["run", "job.toml"]).fails(2, &["in.jsonl", "no such file", "job.toml:5:"]);
    folder.run(&["run", "no.toml"]).fails(2, &["cannot read the job file no.toml: no such file"]);
    folder.run(&["run", "."]).fails(2, &["name the job file in it"]);
    folder.run(&["run"]).fails(2, &["<JOB>"]);
    folder.run(&["frobnicate"]).fails(2, &["unrecognized subcommand"]);
}

#[test]
fn a_directory_that_cannot_be_made_is_the_fault_of_the_job() {
    let folder = three_events(None);
    let done = folder.run(&["run", "job.toml", "--set", "sink.out.path=in.jsonl/x"]);
    assert!(matches!(done.code, Some(1 | 2)), "{done:?}");
    assert!(done.err.contains("in.jsonl"), "{}", done.err);
}

#[test]
fn the_schema_is_json_and_doctor_finds_this_machine_fit() {
    let folder = Folder::new();
    let schema = folder.run(&["schema"]).ok().json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let report = folder.run(&["doctor", "--json"]).ok().json();
    assert_eq!(report["ok"], true);
    let done = folder.run(&["doctor"]).ok();
    assert!(done.out.contains("plugin toolchain"), "{}", done.out);
}

/// `cargo xtask plugins` comes first.
#[test]
fn standard_plugins_filter_and_count_in_windows() {
    let text = "name = \"std\"\n[source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\nkey = \"/k\"\n\
                time = { field = \"/at\", unit = \"s\" }\nwatermark = { bound = \"1m\" }\n[stage.few]\nplugin = \"std:filter\"\ninput = \"in\"\n\
                config = { where = \".n > 1\" }\n[stage.count]\nplugin = \"std:aggregate\"\ninput = \"few\"\n\
                window = { tumbling = \"10s\" }\nconfig = { count = true }\n[sink.out]\nconnector = \"file\"\n\
                path = \"out.jsonl\"\ninput = \"count\"\n";
    let events: String = [(1, "a", 1), (2, "a", 2), (9, "b", 3), (3, "a", 4), (10, "a", 5), (1, "a", 6), (30, "b", 7)]
        .map(|(at, k, n)| format!("{{\"at\":{at},\"k\":\"{k}\",\"n\":{n}}}\n"))
        .concat();
    let folder = Folder::new().with("job.toml", text).with("in.jsonl", events);
    folder.run(&["run", "job.toml"]).ok();
    let mut counts: Vec<serde_json::Value> =
        folder.read("out.jsonl").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    counts.sort_by_key(|row| (row["start"].as_i64(), row["key"].to_string()));
    let counts: Vec<String> =
        counts.iter().map(|row| format!("{} {} {}", row["key"], row["start"], row["count"])).collect();
    assert_eq!(counts, ["\"a\" 0 3", "\"b\" 0 1", "\"a\" 10000 1", "\"b\" 30000 1"]);

    let wrong = text.replace("{ where = \".n > 1\" }", "{ where = \".n > 1\", whre = 1 }");
    let folder = Folder::new().with("job.toml", wrong);
    folder.run(&["check", "job.toml"]).fails(2, &["refuses `whre` in its config", "job.toml:11:"]);
    let misspelt = text.replace("std:filter", "std:fliter");
    let folder = Folder::new().with("job.toml", misspelt);
    folder.run(&["check", "job.toml"]).fails(2, &["no standard plugin `fliter`", "did you mean `std:filter`?"]);
}

#[test]
fn log_lines_are_for_people_or_programs() {
    let folder = three_events(None);
    let done = folder.run(&["run", "job.toml", "-v"]).ok();
    assert!(done.err.contains("INFO started job=\"test\""), "{}", done.err);
    let done = folder.run(&["run", "job.toml", "-v", "--log-format", "json"]).ok();
    let line: serde_json::Value = serde_json::from_str(done.err.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&line["level"], &line["message"], &line["job"]), (&"INFO".into(), &"started".into(), &"test".into()));
}
