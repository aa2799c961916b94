//! Another job file for a running job: in place where it can be, at an epoch where it cannot, and as it was
//! where it may not.

use crate::control::append;
use crate::support::{Done, Folder};
use crate::swap::{JOB, Running, folder, version};

fn apply(folder: &Folder, job: &str, more: &[&str]) -> Done {
    std::fs::write(folder.path().join("job.toml"), job).expect("written");
    folder.run(&[&["apply", "job.toml", "--state", "state"], more].concat())
}

/// What became of a node.
fn act(done: &Done, name: &str) -> String {
    let plan = done.json();
    let nodes = plan["nodes"].as_array().expect("nodes");
    let node = nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("{name}: {plan}"));
    node["act"].as_str().expect("an act").to_owned()
}

#[test]
fn a_stage_with_another_plugin_is_swapped_in_place_and_the_file_has_the_last_word() {
    let folder = folder();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    apply(&folder, JOB, &[]).ok();
    let new = JOB.replace("v1.wasm", "v2.wasm");
    let plan = apply(&folder, &new, &["--plan", "--json"]).ok();
    assert_eq!((&plan.json()["how"], act(&plan, "count")), (&"in-place".into(), "swapped".to_owned()));
    assert_eq!(running.event(&folder, "a"), "2|v1", "a plan changes nothing");
    let done = apply(&folder, &new, &["--json"]).ok();
    assert_eq!(act(&done, "in"), "kept");
    assert!(done.json()["swaps"][0]["pause_micros"].is_u64(), "{done:?}");
    assert_eq!(running.event(&folder, "a"), "3|v2");
    assert!(apply(&folder, &new, &[]).ok().out.contains("nothing differs"));
    // Built anew under the same name.
    let folder = folder.with("v2.wasm", version("v3"));
    assert_eq!(act(&apply(&folder, &new, &["--json"]).ok(), "count"), "swapped");
    assert_eq!(running.event(&folder, "a"), "4|v3");
    // One that fails leaves everything as it was.
    let done = apply(&folder, &JOB.replace("v1.wasm", "process.wasm"), &[]);
    done.fails(1, &["cannot process anything", "the plugin before goes on"]);
    assert_eq!(running.event(&folder, "a"), "5|v3");
    folder.run(&["savepoint", "create", "--state", "state"]).ok();
    running.kill();
    let folder = folder.with("job.toml", &new);
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "6|v3");
    running.kill();
}

#[test]
fn other_changes_end_the_job_at_an_epoch_and_nodes_keep_what_they_have() {
    let folder = folder();
    let mut running = Running::start(&folder);
    for key in ["a", "b", "c"] {
        assert_eq!(running.event(&folder, key), "1|v1");
    }
    // A stage more, another parallelism, a sink more, and another plugin, at once.
    let new = JOB
        .replace("v1.wasm", "v2.wasm")
        .replace("parallelism = 2", "parallelism = 3")
        .replace(
            "[sink.seen]",
            "[stage.all]\nplugin = \"std:filter\"\ninput = \"count\"\nconfig = { where = \"true\" }\n[sink.seen]",
        )
        .replace("connector = \"stdout\"\ninput = \"count\"", "connector = \"stdout\"\ninput = \"all\"");
    let done = apply(&folder, &new, &[]).ok();
    for words in
        ["count", "rescaled", "keeps its state, dealt over its tasks", "added", "rewired", "goes on behind epoch"]
    {
        assert!(done.out.contains(words), "{words}: {}", done.out);
    }
    for key in ["a", "b", "c"] {
        assert_eq!(running.event(&folder, key), "2|v2");
    }
    // What is gone must be allowed to go.
    let gone = new.replace("[stage.count]", "[stage.counts]").replace("input = \"count\"", "input = \"counts\"");
    let refused = apply(&folder, &gone, &[]);
    refused.fails(1, &["the job goes on as it is", "stage `count` is gone", "--allow-dropped"]);
    apply(&folder, &gone, &["--plan"]).fails(1, &[]);
    assert_eq!(running.event(&folder, "a"), "3|v2");
    apply(&folder, &gone, &["--allow-dropped"]).ok();
    assert_eq!(running.event(&folder, "a"), "1|v2", "it starts empty");
    running.kill();
}

#[test]
fn a_job_file_that_cannot_be_run_leaves_the_job_as_it_was() {
    let folder = folder();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    apply(&folder, "name = ", &[]).fails(1, &["job.toml"]);
    apply(&folder, &JOB.replace("input = \"count\"", "input = \"cuont\""), &[]).fails(1, &["cuont"]);
    apply(&folder, &JOB.replace("name = \"swap\"", "name = \"other\""), &[]).fails(1, &["one of another job"]);
    apply(&folder, &JOB.replace("v1.wasm", "schema.wasm"), &[]).fails(1, &["has schema 2, its state schema 1"]);
    assert_eq!(running.event(&folder, "a"), "2|v1");
    // It is found out only where it is to start: the port of a sink is in use, a folder is not there.
    let bad = JOB.replace("connector = \"stdout\"", "connector = \"file\"\npath = \"in.jsonl/none/out.jsonl\"");
    apply(&folder, &bad, &[]).fails(1, &["goes on as it"]);
    append(&folder, "{\"k\":\"a\"}");
    assert_eq!(running.row("a"), "3|v1");
    running.kill();
}
