//! Another file for a job of a service that runs: in place where it can be, and one or the other after a kill.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{As, Server, copy, numbers, plain};
use crate::support::Folder;
use crate::swap::version;

const ALLOW: &str = "?allow_dropped=true";

/// Counts rows of topic `in` by key, with `more` behind it.
fn counting(plugin: &str, tasks: u16, more: &str) -> String {
    let text = copy("swap", plugin, &format!("parallelism = {tasks}"));
    let text = text.replace("input = \"in\"\n", "input = { from = \"in\", key = \"/k\" }\n");
    format!("{text}{more}")
}

/// The same with a stage between it and its sink.
fn with_stage(job: &str) -> String {
    let stage = "[stage.all]\nplugin = \"std:filter\"\ninput = \"work\"\nconfig = { where = \"true\" }\n[sink.out]";
    job.replace("[sink.out]", stage).replace("partitions = 1\ninput = \"work\"", "partitions = 1\ninput = \"all\"")
}

/// The same with another sink.
const BRANCH: &str = "[sink.raw]\nconnector = \"topic\"\ntopic = \"raw\"\npartitions = 1\ninput = \"in\"\n";

impl As<'_> {
    /// Deploys over the job that is there. Returns what that changed.
    #[track_caller]
    fn change(&self, job: &str, text: &str, more: &str) -> Value {
        let view = self.send("PUT", &format!("/v1/jobs/{job}{more}"), text.as_bytes()).is(200).body;
        assert_eq!(view["phase"], "running", "{view}");
        view["change"].clone()
    }

    /// Nodes of a job, by name.
    fn nodes(&self, job: &str) -> BTreeMap<String, Value> {
        let view = self.get(&format!("/v1/jobs/{job}")).is(200).body;
        let nodes = view["status"]["nodes"].as_array().cloned().unwrap_or_default();
        nodes.into_iter().map(|node| (node["name"].as_str().expect("a name").to_owned(), node)).collect()
    }

    fn opened(&self, job: &str, node: &str) -> u64 {
        self.nodes(job)[node]["opened"].as_u64().expect("a number")
    }

    /// How often the job was started.
    fn starts(&self, job: &str) -> u64 {
        self.get(&format!("/v1/jobs/{job}")).is(200).body["starts"].as_u64().expect("a number")
    }

    /// Appends a row for each of some keys.
    fn send_keys(&self, keys: u32, round: u32) {
        let line = |key| format!("{{\"value\":{{\"k\":\"k{key}\",\"n\":{round}}}}}\n");
        let lines: String = (0..keys).map(line).collect();
        self.send("POST", "/v1/topics/in/records", lines.as_bytes()).is(201);
    }

    /// What the counts of each key were, in order.
    fn counts(&self) -> BTreeMap<String, Vec<u64>> {
        let mut counts = BTreeMap::<String, Vec<u64>>::new();
        let answer = self.get("/v1/topics/out/records?limit=1000");
        for record in answer.body["records"].as_array().into_iter().flatten() {
            // `{"k":"k1","n":0}|1|v1`
            let mut parts = record["text"].as_str().expect("a text").split('|');
            let event: Value = parts.next().and_then(|event| serde_json::from_str(event).ok()).expect("an event");
            let count = parts.next().and_then(|count| count.parse().ok()).expect("a count");
            counts.entry(event["k"].as_str().expect("a key").to_owned()).or_default().push(count);
        }
        counts
    }
}

/// The counts of so many keys after so many rounds.
fn wanted(keys: u32, rounds: u64) -> BTreeMap<String, Vec<u64>> {
    (0..keys).map(|key| (format!("k{key}"), (1..=rounds).collect())).collect()
}

fn push(acme: &As<'_>, name: &str) -> String {
    let pushed = acme.send("POST", "/v1/plugins", &version(name)).is(201).body;
    pushed["digest"].as_str().expect("a digest").to_owned()
}

#[test]
fn a_graph_is_changed_while_the_job_runs_and_what_is_not_touched_is_not_opened_again() {
    let server = Server::start();
    let acme = server.tenant("acme");
    for topic in ["in", "more"] {
        acme.make_topic(topic);
    }
    let (one, two) = (push(&acme, "v1"), push(&acme, "v2"));
    let narrow = counting(&one, 2, "");
    acme.deploy("swap", &narrow).is(201);
    acme.until_phase("swap", "running");
    let mut rounds = 0;
    let mut round = || {
        acme.send_keys(7, rounds);
        rounds += 1;
        server.until("rows are counted", || acme.counts() == wanted(7, rounds.into()));
    };
    round();

    // A plan changes nothing.
    let branch = format!("{narrow}{BRANCH}");
    let plan = acme.send("POST", "/v1/jobs/swap/plan", branch.as_bytes()).is(200).body;
    assert_eq!((&plan["how"], &plan["refused"]), (&json!("exchange"), &json!([])), "{plan}");
    assert_eq!(acme.get("/v1/jobs/swap").is(200).body["revision"], 1);

    // A sink comes and goes.
    let change = acme.change("swap", &branch, "");
    assert_eq!(change["how"], "exchange", "{change}");
    assert!(change["epoch"].is_u64() && change["pause_micros"].is_u64(), "{change}");
    round();
    server.until("the branch has the rows", || acme.values("raw").len() == 7);
    let refused = acme.deploy("swap", &narrow).is(409);
    assert!(refused.text.contains("sink `raw` is gone") && refused.text.contains("allow-dropped"), "{}", refused.text);
    let plan = acme.send("POST", "/v1/jobs/swap/plan", narrow.as_bytes()).is(200).body;
    assert!(plan["refused"][0].as_str().is_some_and(|why| why.contains("is gone")), "{plan}");
    assert_eq!(acme.get("/v1/jobs/swap").is(200).body["revision"], 2, "nothing was changed");
    acme.change("swap", &narrow, ALLOW);
    round();
    assert_eq!(acme.values("raw").len(), 7);

    // A stage comes and goes, with another number of tasks and another plugin.
    let wide = with_stage(&counting(&two, 3, ""));
    let change = acme.change("swap", &wide, "");
    assert_eq!((&change["how"], &change["swaps"][0]["stage"]), (&json!("exchange"), &json!("work")), "{change}");
    round();
    assert_eq!(acme.nodes("swap")["all"]["rows_in"], 7);
    acme.change("swap", &counting(&two, 3, ""), ALLOW);
    acme.post("/v1/jobs/swap/rescale", &json!({"node": "work", "parallelism": 1})).is(200);
    round();

    // A source comes, and goes.
    let source = "[source.more]\nconnector = \"topic\"\ntopic = \"more\"\n[stage.work]";
    let more = counting(&two, 1, "").replace("[stage.work]", source).replace(
        "input = { from = \"in\", key = \"/k\" }",
        "input = [{ from = \"in\", key = \"/k\" }, { from = \"more\", key = \"/k\" }]",
    );
    acme.change("swap", &more, "");
    acme.send("POST", "/v1/topics/more/records", b"{\"value\":{\"k\":\"other\"}}\n").is(201);
    server.until("it is read", || acme.counts().get("other").is_some_and(|counts| counts == &[1]));
    acme.change("swap", &counting(&two, 1, ""), ALLOW);
    acme.send_keys(7, rounds);
    server.until("rows are counted", || acme.counts().values().map(Vec::len).sum::<usize>() == 43);

    assert_eq!(acme.starts("swap"), 1, "it was never started again");
    assert_eq!(["in", "out"].map(|node| acme.opened("swap", node)), [1, 1]);
    let metrics = acme.get("/metrics").is(200).text;
    assert!(metrics.contains("node=\"work\"") && !metrics.contains("node=\"raw\""), "{metrics}");
    // What differs in the job itself ends it.
    let view = acme.deploy("swap", &counting(&two, 1, "").replace("50ms", "40ms")).is(200).body;
    let change = &view["change"];
    assert_eq!(change["how"], "restart", "{change}");
    assert!(change["because"][0].as_str().is_some_and(|why| why.contains("another epoch")), "{change}");
}

#[test]
fn a_change_that_cannot_be_made_leaves_the_job_as_it_was() {
    let server = Server::start();
    let acme = server.tenant_with("acme", json!({"tasks": 6}));
    acme.make_topic("in");
    let (one, open, process) = (push(&acme, "v1"), push(&acme, "open"), push(&acme, "process"));
    acme.deploy("swap", &counting(&one, 2, "")).is(201);
    acme.until_phase("swap", "running");
    acme.send_keys(3, 0);
    server.until("rows are counted", || acme.counts() == wanted(3, 1));
    let view = || {
        let view = acme.get("/v1/jobs/swap").is(200).body;
        (view["revision"].clone(), view["reserved"].clone(), view["starts"].clone())
    };
    let before = view();
    let with = |plugin: &str| {
        let text = with_stage(&counting(&one, 2, ""));
        text.replace("std:filter", plugin).replace("config = { where = \"true\" }\n", "")
    };
    // A new stage that cannot be opened; a plugin that cannot take over; more tasks than the tenant may have.
    let refused = acme.deploy("swap", &with(&open)).is(422);
    assert!(refused.text.contains("this version cannot be opened"), "{}", refused.text);
    acme.deploy("swap", &with_stage(&counting(&process, 2, ""))).is(409);
    let refused = acme.deploy("swap", &counting(&one, 5, "")).is(403);
    assert_eq!(refused.problem(), "over-budget");
    // Hosts that were not granted; a topic that is not there, with what makes it; no folder is named.
    let http = "[sink.far]\nconnector = \"http\"\nurl = \"http://example.org/\"\ninput = \"work\"\n";
    let refused = acme.deploy("swap", &counting(&one, 2, http));
    assert!([403, 409, 422].contains(&refused.status), "{}", refused.text);
    let none = "[source.none]\nconnector = \"topic\"\ntopic = \"none\"\n\
                [sink.seen]\nconnector = \"blackhole\"\ninput = \"none\"\n";
    let refused = acme.deploy("swap", &counting(&one, 2, none)).is(409).text;
    let tells = |text: &str| text.contains("there is no topic none;") && text.contains("wasmill topic create none");
    assert!(tells(&refused) && !refused.contains("tenants"), "{refused}");
    assert_eq!(view(), before);
    acme.send_keys(3, 1);
    server.until("it goes on", || acme.counts() == wanted(3, 2));
    // A job that fails says the same.
    acme.send("DELETE", "/v1/jobs/swap", b"").is(204);
    acme.send("PUT", "/v1/jobs/copy", plain("copy").replace("topic = \"in\"", "topic = \"none\"").as_bytes()).is(201);
    acme.until_phase("copy", "failed");
    let reason = acme.get("/v1/jobs/copy").is(200).text;
    assert!(tells(&reason) && !reason.contains("tenants"), "{reason}");
    assert!(acme.run(&["topic", "describe", "none"]).err.contains("wasmill topic create none --server"));
    // Another tenant has no such job.
    let other = server.tenant("other");
    let text = counting(&one, 2, "");
    other.send("POST", "/v1/jobs/swap/plan", text.as_bytes()).is(404);
    other.deploy("swap", &text).is(422);
}

#[test]
fn a_job_that_is_paused_or_stopped_gets_another_file() {
    let server = Server::start_in(Folder::new(), &["--hibernate-after", "1s"]);
    let acme = server.tenant("acme");
    acme.make_topic("in");
    acme.deploy("copy", &plain("copy")).is(201);
    // Before it may rest for want of rows.
    acme.send("POST", "/v1/jobs/copy/pause", b"").is(200);
    acme.until_phase("copy", "running");
    let branch = format!("{}{BRANCH}", plain("copy"));
    assert_eq!(acme.change("copy", &branch, "")["how"], "exchange");
    acme.produce("in", 0..3);
    assert_eq!(acme.get("/v1/jobs/copy").is(200).body["desired"], "paused");
    assert_eq!(acme.values("raw"), numbers(0..0), "it reads nothing");
    acme.send("POST", "/v1/jobs/copy/resume", b"").is(200);
    server.until("rows are copied", || acme.values("raw") == numbers(0..3) && acme.values("out") == numbers(0..3));
    // What it waits for is what the new graph reads.
    acme.until_phase("copy", "hibernating");
    let plan = acme.send("POST", "/v1/jobs/copy/plan", plain("copy").as_bytes()).is(200).body;
    assert_eq!(plan["how"], "start", "{plan}");
    assert_eq!(acme.phase("copy"), "hibernating", "a plan wakes nobody");
    acme.send("PUT", &format!("/v1/jobs/copy{ALLOW}"), plain("copy").as_bytes()).is(200);
    acme.produce("in", 3..6);
    server.until("rows are copied", || acme.values("out") == numbers(0..6));
    assert_eq!(acme.values("raw"), numbers(0..3));
    // A stage with state that goes: as the file says.
    acme.send("POST", "/v1/jobs/copy/stop", b"").is(200);
    acme.send("PUT", "/v1/jobs/copy", branch.as_bytes()).is(200);
    acme.produce("in", 6..9);
    server.until("rows are copied", || acme.values("out") == numbers(0..9));
}

#[test]
fn the_command_line_applies_a_file_at_a_service() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let file = server.folder.path().join("job.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    write(&plain("copy"));
    acme.run(&["apply", "job.toml", "--plan"]).fails(2, &["there is no job copy"]);
    assert!(acme.run(&["apply", "job.toml"]).ok().out.contains("copy: "));
    acme.until_phase("copy", "running");
    write(&format!("{}{BRANCH}", plain("copy")));
    let said = acme.run(&["apply", "job.toml", "--plan"]).ok().out;
    assert!(said.contains("raw") && said.contains("would be exchanged at an epoch"), "{said}");
    let said = acme.run(&["apply", "job.toml"]).ok().out;
    assert!(said.contains("exchanged behind epoch") && said.contains("revision 2"), "{said}");
    write(&plain("copy"));
    acme.run(&["apply", "job.toml", "--plan"]).fails(1, &[]);
    acme.run(&["apply", "job.toml"]).fails(1, &["sink `raw` is gone", "--allow-dropped"]);
    assert_eq!(acme.run(&["apply", "job.toml", "--allow-dropped", "--json"]).ok().json()["change"]["how"], "exchange");
    assert!(acme.run(&["apply", "job.toml"]).ok().out.contains("nothing differs"));
}

/// Exchanges the graph to and fro while rows come in, kills the service at each step, and holds what the job gave
/// against what came in: every row once, counted in order. What the service says of the job is what its epochs say.
#[test]
fn a_kill_at_every_step_of_a_change_leaves_one_file_or_the_other() {
    let mut server = Server::start();
    let (token, plugin) = {
        let acme = server.tenant_with("acme", json!({"changes_per_minute": 10_000}));
        acme.make_topic("in");
        let plugin = push(&acme, "v1");
        (acme.token, plugin)
    };
    let narrow = counting(&plugin, 2, "").replace("50ms", "5ms");
    let wide = with_stage(&counting(&plugin, 3, BRANCH)).replace("50ms", "5ms");
    server.with_token(&token).deploy("swap", &narrow).is(201);
    let (mut is_wide, mut rounds) = (false, 0);
    // Whether the new graph is the one that is durable.
    let points = [
        ("serve-record-kept:1", false),
        ("exchange-parked:1", false),
        ("exchange-parked:2", false),
        ("exchange-made:1", false),
        ("serve-record-synced:2", true),
        ("serve-record-kept:2", true),
        ("serve-job-deployed:1", true),
    ];
    for (point, taken) in points.into_iter().chain(points) {
        server.signal(rustix::process::Signal::KILL);
        server.wait();
        server.launch_with(&[], &[("WASMILL_KILL", point)]);
        {
            let acme = server.with_token(&token);
            acme.until_phase("swap", "running");
            acme.send_keys(5, rounds);
            rounds += 1;
            server.until("rows are counted", || acme.counts() == wanted(5, rounds.into()));
            acme.send_keys(5, rounds);
            rounds += 1;
            let next = if is_wide { &narrow } else { &wide };
            let path = format!("/v1/jobs/swap{ALLOW}");
            assert_eq!(acme.send("PUT", &path, next.as_bytes()).status, 0, "{point}: the service is dead");
        }
        server.wait();
        server.launch(&[]);
        let acme = server.with_token(&token);
        acme.until_phase("swap", "running");
        is_wide ^= taken;
        let file = acme.get("/v1/jobs/swap/file").is(200).text;
        assert_eq!(&file, if is_wide { &wide } else { &narrow }, "{point}");
        assert_eq!(acme.nodes("swap").contains_key("all"), is_wide, "{point}");
        server.until("rows are counted", || acme.counts() == wanted(5, rounds.into()));
    }
}
