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

/// How often what runs at a node was opened.
fn opened(folder: &Folder, name: &str) -> u64 {
    let status = folder.run(&["status", "state", "--json"]).ok().json();
    let nodes = status["nodes"].as_array().expect("nodes");
    let node = nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("{name}: {status}"));
    node["opened"].as_u64().expect("a number")
}

/// The same job with a stage behind `count`, and a sink behind that in its place.
fn with_stage(job: &str) -> String {
    let stage = "[stage.all]\nplugin = \"std:filter\"\ninput = \"count\"\nconfig = { where = \"true\" }\n[sink.seen]";
    let job = job.replace("[sink.seen]", stage);
    job.replace("connector = \"stdout\"\ninput = \"count\"", "connector = \"stdout\"\ninput = \"all\"")
}

/// The same job with a file of what comes in, too.
fn with_branch(job: &str, file: &str) -> String {
    format!("{job}[sink.raw]\nconnector = \"file\"\npath = \"{file}\"\ninput = \"in\"\n")
}

#[test]
fn a_branch_comes_and_goes_and_nothing_else_is_opened_again() {
    let folder = folder();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    let plan = apply(&folder, &with_branch(JOB, "out.jsonl"), &["--plan", "--json"]).ok();
    assert_eq!((&plan.json()["how"], act(&plan, "raw")), (&"exchange".into(), "added".to_owned()));
    for round in 0..3 {
        let file = format!("raw-{round}.jsonl");
        let done = apply(&folder, &with_branch(JOB, &file), &["--json"]).ok();
        assert!(done.json()["pause_micros"].is_u64(), "{done:?}");
        for key in ["b", "c"] {
            assert_eq!(running.event(&folder, key), format!("{}|v1", round + 1));
        }
        assert_eq!(opened(&folder, "raw"), 1);
        apply(&folder, JOB, &[]).fails(1, &["sink `raw` is gone", "--allow-dropped"]);
        let said = apply(&folder, JOB, &["--allow-dropped"]).ok().out;
        assert!(said.contains("exchanged behind epoch") && said.contains("the others went on"), "{said}");
        assert_eq!(running.event(&folder, "a"), format!("{}|v1", round + 2));
        // The branch has what came while it was there.
        assert_eq!(folder.read(&file), "{\"k\":\"b\"}\n{\"k\":\"c\"}\n");
    }
    assert_eq!(["in", "count", "seen"].map(|node| opened(&folder, node)), [1, 2, 1]);
    running.kill();
}

#[test]
fn a_stage_is_inserted_and_rescaled_while_its_source_stays_open() {
    let folder = folder();
    let mut running = Running::start(&folder);
    let keys: Vec<String> = (0..10).map(|key| format!("k{key}")).collect();
    for key in &keys {
        assert_eq!(running.event(&folder, key), "1|v1");
    }
    // A stage more, another number of tasks, and another plugin, at once.
    let wide = JOB.replace("v1.wasm", "v2.wasm").replace("parallelism = 2", "parallelism = 3");
    let done = apply(&folder, &with_stage(&wide), &[]).ok();
    for words in
        ["count", "rescaled", "keeps its state, dealt over its tasks", "added", "rewired", "the others went on"]
    {
        assert!(done.out.contains(words), "{words}: {}", done.out);
    }
    for key in &keys {
        assert_eq!(running.event(&folder, key), "2|v2");
    }
    apply(&folder, &wide, &["--allow-dropped"]).ok();
    apply(&folder, &wide.replace("parallelism = 3", "parallelism = 1"), &[]).ok();
    for key in &keys {
        assert_eq!(running.event(&folder, key), "3|v2");
    }
    assert_eq!(["in", "seen"].map(|node| opened(&folder, node)), [1, 1]);
    folder.run(&["savepoint", "create", "--state", "state"]).ok();
    running.kill();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "k7"), "4|v2");
    running.kill();
}

#[test]
fn a_source_comes_and_goes() {
    let folder = folder().with("more.jsonl", "{\"k\":\"a\"}\n{\"k\":\"a\"}\n");
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    let more = JOB
        .replace("[stage.count]", "[source.more]\nconnector = \"file\"\npath = \"more.jsonl\"\n[stage.count]")
        .replace(
            "input = { from = \"in\", key = \"/k\" }",
            "input = [{ from = \"in\", key = \"/k\" }, { from = \"more\", key = \"/k\" }]",
        );
    apply(&folder, &more, &[]).ok();
    assert_eq!((running.row("a"), running.row("a")), ("2|v1".to_owned(), "3|v1".to_owned()));
    assert_eq!(running.event(&folder, "a"), "4|v1");
    apply(&folder, JOB, &["--allow-dropped"]).ok();
    assert_eq!(running.event(&folder, "a"), "5|v1");
    assert_eq!(["in", "count", "seen"].map(|node| opened(&folder, node)), [1, 2, 1]);
    running.kill();
}

/// Exchanges the graph to and fro while rows come in, kills the job at each step of it, and holds what it gave
/// against what came in: every row once, counted in order.
#[test]
fn a_kill_at_every_step_of_an_exchange_leaves_the_old_graph_or_the_new() {
    const FILE: &str = "[sink.seen]\nconnector = \"file\"\npath = \"out.jsonl\"\n";
    let narrow = JOB
        .replace("delivery = \"at-least-once\"\nepoch = { interval = \"1h\" }", "epoch = { interval = \"5ms\" }")
        .replace("[sink.seen]\nconnector = \"stdout\"\n", FILE)
        + "[sink.echo]\nconnector = \"stdout\"\ninput = \"in\"\n";
    let wide = narrow
        .replace("parallelism = 2", "parallelism = 3")
        .replace(&format!("{FILE}input = \"count\""), &format!("{FILE}input = \"all\""))
        + "[stage.all]\nplugin = \"std:filter\"\ninput = \"count\"\nconfig = { where = \"true\" }\n";
    let folder = folder();
    let event = |number: usize| format!("{{\"k\":\"k{}\",\"n\":{number}}}", number % 7);
    let (mut events, mut now) = (0, &narrow);
    let points = ["exchange-parked:1", "exchange-parked:3", "exchange-made:1", "epoch-durable:9", ""];
    for point in points.into_iter().chain(points) {
        let next = if now == &narrow { &wide } else { &narrow };
        std::fs::write(folder.path().join("job.toml"), now).expect("written");
        let environment = [("WASMILL_KILL", point)];
        let mut running = Running::start_with(&folder, &environment[usize::from(point.is_empty())..]);
        for _ in 0..50 {
            append(&folder, &event(events));
            events += 1;
        }
        // It runs, and an epoch of its graph is durable; or it has died already.
        running.until(&event(events - 1));
        let _saved = folder.run(&["savepoint", "create", "--state", "state"]);
        append(&folder, &event(events));
        events += 1;
        let done = apply(&folder, next, &["--allow-dropped", "--json"]);
        if point.is_empty() {
            done.ok();
            running.kill();
            now = next;
            continue;
        }
        running.ended();
        if point.starts_with("exchange") && now == &wide {
            // The epoch of the old graph is the last one that is durable.
            assert_ne!(folder.run(&["run", "job.toml", "--state", "state"]).code, Some(0), "{point}");
        }
        // It goes on from either, as it lacks nothing.
        now = &wide;
    }
    std::fs::write(folder.path().join("job.toml"), now).expect("written");
    let mut running = Running::start(&folder);
    append(&folder, &event(events));
    assert!(running.until(&event(events)));
    folder.run(&["drain", "state"]).ok();
    running.ended();
    let mut counts: Vec<String> = folder.results().lines().map(str::to_owned).collect();
    let mut wanted: Vec<String> =
        (0..=events).map(|number| format!("{}|{}|v1", event(number), number / 7 + 1)).collect();
    counts.sort();
    wanted.sort();
    assert_eq!(counts, wanted);
}

#[test]
fn what_cannot_be_done_while_it_runs_ends_the_job_at_an_epoch() {
    let folder = folder();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    let new = JOB.replace("interval = \"1h\"", "interval = \"30m\"");
    let plan = apply(&folder, &new, &["--plan"]).ok();
    assert!(plan.out.contains("the job has to end for it: the job has another epoch"), "{}", plan.out);
    let done = apply(&folder, &new, &[]).ok();
    assert!(done.out.contains("goes on behind epoch"), "{}", done.out);
    assert_eq!(running.event(&folder, "a"), "2|v1");
    // What is gone must be allowed to go.
    let gone = new.replace("[stage.count]", "[stage.counts]").replace("input = \"count\"", "input = \"counts\"");
    let refused = apply(&folder, &gone, &[]);
    refused.fails(1, &["the job goes on as it is", "stage `count` is gone", "--allow-dropped"]);
    apply(&folder, &gone, &["--plan"]).fails(1, &[]);
    assert_eq!(running.event(&folder, "a"), "3|v1");
    apply(&folder, &gone, &["--allow-dropped"]).ok();
    assert_eq!(running.event(&folder, "a"), "1|v1", "it starts empty");
    // A new stage that cannot be opened changes nothing.
    let bad = with_stage(&gone).replace("std:filter", "open.wasm").replace("config = { where = \"true\" }\n", "");
    let bad = bad.replace("input = \"count\"", "input = \"counts\"");
    apply(&folder, &bad, &[]).fails(1, &["stage `all`", "cannot be opened"]);
    assert_eq!(running.event(&folder, "a"), "2|v1");
    running.kill();
}

#[test]
fn a_new_stage_with_state_on_disk_starts_with_the_job() {
    let on_disk = JOB.replacen("[source", "state = { backend = \"disk\" }\n[source", 1);
    let folder = folder().with("job.toml", &on_disk);
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    let stage = "[stage.more]\nplugin = \"v1.wasm\"\ninput = { from = \"in\", key = \"/k\" }\n\
                 [sink.unseen]\nconnector = \"blackhole\"\ninput = \"more\"\n";
    let more = format!("{on_disk}{stage}");
    let plan = apply(&folder, &more, &["--plan"]).ok().out;
    assert!(plan.contains("the job has to end for it: stage `more` keeps its state on disk"), "{plan}");
    apply(&folder, &more, &[]).ok();
    assert_eq!(running.event(&folder, "a"), "2|v1");
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
