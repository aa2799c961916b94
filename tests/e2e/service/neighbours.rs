//! One tenant that wants everything, and one beside it. What they feel of each other in figures is
//! `cargo xtask neighbours`; here nothing depends on time.

use std::hash::{BuildHasher as _, RandomState};

use serde_json::{Value, json};

use super::{As, Server, copy, numbers, plain};
use crate::support::{built_guest, guest};

/// A job whose source never ends, with two tasks of a plugin.
fn endless(name: &str, plugin: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nepoch = {{ interval = \"50ms\" }}\n[source.in]\nconnector = \"generator\"\n\
         [stage.work]\nplugin = \"{plugin}\"\ninput = \"in\"\nparallelism = 2\n{more}\n\
         [sink.out]\nconnector = \"blackhole\"\ninput = \"work\"\n"
    )
}

impl As<'_> {
    fn push(&self, name: &str, plugin: &[u8]) {
        self.send("POST", &format!("/v1/plugins?name={name}"), plugin).is(201);
    }

    /// What the tenant has.
    fn has(&self, what: &str) -> u64 {
        self.get("/v1/usage").is(200).body["has"][what].as_u64().expect(what)
    }

    /// A figure of the stage of a job, while it runs.
    fn of_stage(&self, job: &str, figure: &str) -> Option<u64> {
        let view = self.get(&format!("/v1/jobs/{job}")).is(200).body;
        let nodes = view["status"]["nodes"].as_array()?.clone();
        nodes.iter().find(|node| node["kind"] == "stage")?[figure].as_u64()
    }

    /// CPU time of the stage of a job, while it runs.
    fn cpu(&self, job: &str) -> Option<u64> {
        self.of_stage(job, "guest_cpu_nanos")
    }
}

#[test]
fn a_guest_that_loops_has_its_time_counted_and_others_get_on() {
    let server = Server::start();
    let (loud, quiet) = (server.tenant("loud"), server.tenant("quiet"));
    loud.push("loops", &guest("process", "(loop $again (br $again)) (unreachable)"));
    loud.deploy("loops", &endless("loops", "loops", "")).is(201);
    quiet.make_topic("in");
    quiet.deploy("copy", &plain("copy")).is(201);
    server.until("the loop has met its limit", || loud.cpu("loops") >= Some(1_000_000_000));
    quiet.produce("in", 0..200);
    server.until("all rows are there", || quiet.values("out") == numbers(0..200));
    assert!(quiet.cpu("copy") > Some(0));
    // The sum is in the usage of the tenant, and in metrics.
    let used = loud.get("/v1/usage").is(200).body["used"]["guest_cpu_nanos"].as_u64().expect("a count");
    assert!(used >= 1_000_000_000, "{used}");
    // What the host does for the tasks counts as well.
    assert!(loud.has("cpu_nanos") >= 1_000_000_000);
    let metrics = server.operator().get("/metrics").is(200).text;
    let seconds = |tenant: &str| {
        let line = format!("wasmill_tenant_cpu_seconds_total{{tenant=\"{tenant}\"}} ");
        let value = metrics.lines().find_map(|found| found.strip_prefix(&line)).unwrap_or_else(|| panic!("{metrics}"));
        value.parse::<f64>().expect("a number")
    };
    assert!(seconds("loud") >= 1.0 && seconds("quiet") > 0.0);
    assert!(metrics.contains("wasmill_node_guest_cpu_seconds_total{tenant=\"loud\",job=\"loops\""), "{metrics}");
}

#[test]
fn what_a_budget_has_no_room_for_is_refused_in_words() {
    let server = Server::start();
    let quiet = server.tenant("quiet");
    quiet.make_topic("in");
    quiet.deploy("copy", &plain("copy")).is(201);
    let flood = built_guest("flood");
    let state = json!({"state_bytes": 1 << 20});
    for (name, budget, plugin, more, says) in [
        ("state", state.clone(), "flood", "config = { entries = 100 }", "bytes of state of the tenant's jobs"),
        ("timers", json!({"timers": 1_000}), "flood", "config = { timers = 100 }", "timers of the tenant's jobs"),
        (
            "windows",
            state,
            "std:aggregate",
            "config = { count = true }\nwindow = { tumbling = \"30d\" }",
            "bytes of state of the tenant's jobs",
        ),
    ] {
        let loud = server.tenant_with(name, budget);
        loud.push("flood", &flood);
        let job = endless("floods", plugin, more).replace("\"generator\"", "\"generator\"\nkeys = 1000000");
        loud.deploy("floods", &job).is(201);
        // Every row is refused from some time on, and so many in a row are too many.
        loud.until_phase("floods", "failed");
        let why = loud.get("/v1/jobs/floods").is(200).text;
        assert!(why.contains("over-budget: ") && why.contains(says), "{why}");
        assert!(why.contains("ask the operator of the service for more"), "{why}");
        assert!(loud.has("refused") > 0);
    }
    // An ordering buffer that would wait for ever is as full as its tenant may have it.
    let loud = server.tenant_with("buffers", json!({"state_bytes": 1 << 20}));
    let order = "order = { by = \"time\", bound = \"3650d\", rows_max = 1000000000, bytes_max = \"1TiB\" }";
    let job = endless("waits", "std:filter", "config = { where = \"true\" }")
        .replace("input = \"in\"", &format!("input = {{ from = \"in\", {order} }}"));
    loud.deploy("waits", &job).is(201);
    server.until("rows leave although they are early", || loud.of_stage("waits", "rows_out") > Some(100_000));
    assert!(loud.has("state_bytes_now") < 8 << 20, "{}", loud.has("state_bytes_now"));
    quiet.produce("in", 0..100);
    server.until("all rows are there", || quiet.values("out") == numbers(0..100));
}

#[test]
fn what_comes_too_fast_is_held_back_or_dropped_and_counted() {
    let server = Server::start();
    let rates = json!({"events_per_second": 1_000, "rows_out_per_second": 2_000, "log_lines_per_second": 5});
    let (loud, quiet) = (server.tenant_with("loud", rates), server.tenant("quiet"));
    quiet.make_topic("in");
    quiet.deploy("copy", &plain("copy")).is(201);
    loud.push("flood", &built_guest("flood"));
    loud.deploy("floods", &endless("floods", "flood", "config = { rows = 100, lines = 100 }")).is(201);
    server.until("it is held back, and lines are dropped", || {
        loud.has("throttled") > 1 && loud.has("log_lines_dropped") > 100
    });
    let lines = loud.get("/v1/jobs/floods/logs?limit=1000").is(200).text;
    assert!(lines.matches("of event").count() < 500, "{lines}");
    quiet.produce("in", 0..100);
    server.until("all rows are there", || quiet.values("out") == numbers(0..100));
    // It ends at an epoch although it is held back.
    loud.post("/v1/jobs/floods/stop", &json!({})).is(200);
    loud.until_phase("floods", "stopped");
}

#[test]
fn a_tenant_that_has_filled_its_disk_reads_on_once_there_is_room() {
    let server = Server::start();
    let loud = server.tenant_with("loud", json!({"topic_bytes": 100_000}));
    let fills = endless("fills", "std:filter", "config = { where = \"true\" }")
        .replace("connector = \"blackhole\"", "connector = \"topic\"\ntopic = \"out\"\npartitions = 1");
    loud.deploy("fills", &fills).is(201);
    let over = |value: &Value| value["over_budget"].as_str().is_some_and(|why| why.starts_with("over-budget: topics"));
    server.until("it is held", || over(&loud.get("/v1/jobs/fills").is(200).body));
    assert!(over(&loud.get("/v1/usage").is(200).body));
    assert!(loud.get("/v1/jobs/fills/logs").is(200).text.contains("sources read nothing until there is room"));
    let refused = loud.send("POST", "/v1/topics/out/records", b"{\"key\":\"k\",\"value\":1}\n").is(403);
    assert_eq!(refused.problem(), "over-budget");
    let more = json!({"budget": {"topic_bytes": 10_u64 << 30, "events_per_second": 1_000}});
    server.operator().send("PATCH", "/v1/tenants/loud", more.to_string().as_bytes()).is(200);
    server.until("it reads on", || loud.get("/v1/jobs/fills").is(200).body["over_budget"].is_null());
}

#[test]
fn compiling_has_a_budget_and_budgets_make_sense() {
    let server = Server::start();
    let acme = server.tenant_with("acme", json!({"compile_seconds_per_hour": 0}));
    // One that nobody has compiled before: what is in the cache costs nothing.
    let plugin = || {
        let unseen = RandomState::new().hash_one(()).cast_signed();
        guest("process", &format!("(drop (i64.const {unseen})) (unreachable)"))
    };
    acme.push("a", &plugin());
    let refused = acme.send("POST", "/v1/plugins", &plugin()).is(429);
    assert!(refused.body["detail"].as_str().is_some_and(|why| why.contains("compiled")), "{}", refused.text);
    for budget in [json!({"cpu_share": 0}), json!({"cpu_ceiling_millicores": 1}), json!({"events_per_second": 0})] {
        server.operator().post("/v1/tenants", &json!({"tenant": "odd", "budget": budget})).is(400);
    }
    // One that gets little of the CPU gets on all the same.
    let slow = server.tenant_with("slow", json!({"cpu_share": 1, "cpu_ceiling_millicores": 50}));
    slow.make_topic("in");
    slow.deploy("copy", &copy("copy", "std:filter", "config = { where = \"true\" }")).is(201);
    slow.produce("in", 0..100);
    server.until("all rows are there", || slow.values("out") == numbers(0..100));
}
