//! Jobs of a service over their life, and over that of the service.

use rustix::process::Signal;
use serde_json::json;

use super::{Server, copy, numbers, plain};
use crate::support::Folder;
use crate::swap::version;

#[test]
fn a_job_lives_from_its_deployment_to_its_removal() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    acme.produce("in", 0..10);
    let view = acme.deploy("copy", &plain("copy")).is(201).body;
    assert_eq!((&view["revision"], &view["desired"]), (&json!(1), &json!("running")));
    server.until("rows are copied", || acme.values("out") == numbers(0..10));
    let view = acme.get("/v1/jobs/copy").is(200).body;
    assert_eq!(view["status"]["nodes"][0]["rows_out"], 10, "{view}");

    acme.send("POST", "/v1/jobs/copy/pause", b"").is(200);
    acme.produce("in", 10..20);
    let made = acme.post("/v1/jobs/copy/savepoints", &json!({"name": "ten"})).is(201).body;
    assert!(made["epoch"].as_u64() > Some(0), "{made}");
    assert_eq!(acme.values("out"), numbers(0..10), "a paused job reads nothing");
    acme.send("POST", "/v1/jobs/copy/resume", b"").is(200);
    server.until("rows are copied", || acme.values("out") == numbers(0..20));

    // It rests, and goes on where it was.
    assert_eq!(acme.send("POST", "/v1/jobs/copy/stop", b"").is(200).body["phase"], "stopped");
    acme.produce("in", 20..30);
    acme.send("POST", "/v1/jobs/copy/resume", b"").is(200);
    server.until("rows are copied", || acme.values("out") == numbers(0..30));
    acme.post("/v1/jobs/copy/restore", &json!({"savepoint": "none"})).is(404);
    // A topic keeps what it has, and gets what comes behind the savepoint once more, under other numbers.
    acme.post("/v1/jobs/copy/restore", &json!({"savepoint": "ten"})).is(200);
    let again: Vec<_> = numbers(0..30).into_iter().chain(numbers(10..30)).collect();
    server.until("rows behind the savepoint come again", || acme.values("out") == again);

    // Another file goes on from the same state, as does another parallelism.
    let second = copy("copy", "std:filter", "config = { where = \".n != 35\" }");
    assert_eq!(acme.deploy("copy", &second).is(200).body["revision"], 2);
    acme.post("/v1/jobs/copy/rescale", &json!({"node": "work", "parallelism": 2})).is(200);
    acme.produce("in", 30..40);
    server.until("the new rows are copied", || acme.values("out").len() == 59);
    assert!(acme.get("/v1/jobs/copy/file").is(200).text.contains("parallelism = 2"));
    let top = acme.run(&["top", "--once", "--every", "200ms", "--json"]).ok().json();
    assert_eq!(
        (&top["jobs"][0]["job"], &top["jobs"][0]["nodes"][1]["node"]),
        (&json!("copy"), &json!("work")),
        "{top}"
    );
    assert!(top["jobs"][0]["nodes"][1]["memory_bytes"].as_u64() > Some(0), "an instance has memory: {top}");
    let lines = acme.get("/v1/jobs/copy/logs").is(200).body;
    assert!(lines.as_array().expect("lines").iter().any(|line| line["message"] == "the job runs"), "{lines}");

    acme.send("POST", "/v1/jobs/copy/drain", b"").is(200);
    acme.until_phase("copy", "finished");
    acme.send("DELETE", "/v1/jobs/copy", b"").is(204);
    acme.get("/v1/jobs/copy").is(404);
    assert!(!server.folder.has("data/tenants/acme/jobs/copy"));
}

#[test]
fn a_job_goes_back_to_a_savepoint() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let sink = "connector = \"topic\"\ntopic = \"out\"\npartitions = 1";
    let text = plain("back").replace(sink, "connector = \"file\"\npath = \"out.jsonl\"");
    acme.deploy("back", &text).is(201);
    let rows = |node: usize| acme.get("/v1/jobs/back").body["status"]["nodes"][node]["rows_in"].clone();
    acme.produce("in", 0..10);
    server.until("rows are copied", || rows(2) == 10);
    acme.post("/v1/jobs/back/savepoints", &json!({"name": "ten"})).is(201);
    acme.produce("in", 10..20);
    server.until("rows are copied", || rows(2) == 20);
    acme.post("/v1/jobs/back/restore", &json!({"savepoint": "ten"})).is(200);
    server.until("rows behind the savepoint come again", || rows(2) == 10);
    acme.send("POST", "/v1/jobs/back/stop", b"").is(200);
    let rows = server.folder.read("data/tenants/acme/files/out.jsonl");
    let wanted: String = (0..20).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    assert_eq!(rows, wanted, "what was written behind the savepoint is taken back");
}

#[test]
fn a_service_that_ends_or_is_killed_goes_on_with_every_job() {
    let mut server = Server::start();
    let token = {
        let acme = server.tenant("acme");
        acme.make_topic("in");
        acme.deploy("copy", &plain("copy")).is(201);
        acme.deploy("idle", &plain("idle").replace("\"out\"", "\"idle\"")).is(201);
        acme.send("POST", "/v1/jobs/idle/stop", b"").is(200);
        acme.token
    };
    for (round, signal) in [Signal::KILL, Signal::TERM, Signal::KILL].into_iter().enumerate() {
        let round = u32::try_from(round).expect("few");
        let acme = server.with_token(&token);
        acme.produce("in", round * 100..(round + 1) * 100);
        if signal == Signal::TERM {
            server.until("rows are copied", || acme.values("out").len() as u32 == (round + 1) * 100);
        }
        server.signal(signal);
        assert_eq!(server.wait(), (signal == Signal::TERM).then_some(0));
        server.launch(&[]);
    }
    let acme = server.with_token(&token);
    server.until("rows are copied", || acme.values("out").len() >= 300);
    assert_eq!(acme.values("out"), numbers(0..300), "every row once, in order");
    assert_eq!(acme.phase("idle"), "stopped", "a job that was to rest rests");
    let second = server.folder.run(&["serve", "--data", "data", "--listen", "127.0.0.1:0"]);
    second.fails(2, &["another process serves data"]);
}

#[test]
fn a_kill_in_the_middle_of_a_deployment_leaves_all_of_it_or_nothing() {
    let mut server = Server::start();
    let token = {
        let acme = server.tenant("acme");
        acme.make_topic("in");
        acme.produce("in", 0..5);
        acme.token
    };
    for (point, is_there) in
        [("serve-record-synced:1", false), ("serve-record-kept:1", true), ("serve-job-deployed:1", true)]
    {
        server.signal(Signal::KILL);
        server.wait();
        server.launch_with(&[], &[("WASMILL_KILL", point)]);
        let answer = server.with_token(&token).deploy("copy", &plain("copy"));
        assert_eq!(answer.status, 0, "{point}: {}", answer.text);
        server.wait();
        server.launch(&[]);
        let acme = server.with_token(&token);
        if !is_there {
            acme.get("/v1/jobs/copy").is(404);
            continue;
        }
        server.until("rows are copied", || acme.values("out") == numbers(0..5));
        acme.send("DELETE", "/v1/jobs/copy", b"").is(204);
        acme.send("DELETE", "/v1/topics/out", b"").is(204);
    }
}

#[test]
fn what_is_wrong_with_a_job_is_said_with_its_line() {
    let server = Server::start();
    let acme = server.tenant("acme");
    let wrong = plain("copy").replace("connector = \"topic\"\ntopic = \"in\"", "conector = \"topic\"");
    let problem = acme.deploy("copy", &wrong).is(422);
    assert_eq!(problem.problem(), "wrong-job");
    let found = &problem.body["diagnostics"][0];
    assert_eq!(found["place"]["line"], 4, "{found}");
    let wrong = copy("copy", "std:filter", "config = { were = \"true\" }");
    let found = acme.deploy("copy", &wrong).is(422).body["diagnostics"][0].clone();
    assert!(found["message"].as_str().is_some_and(|what| what.contains("expected `where`")), "{found}");
    assert_eq!(found["place"]["line"], 9, "{found}");
    acme.deploy("other", &plain("copy")).is(400);
    acme.get("/v1/jobs/copy").is(404);
    assert_eq!(acme.send("POST", "/v1/check", plain("copy").as_bytes()).is(200).body["ok"], true);
}

#[test]
fn a_plugin_is_swapped_and_the_swap_outlives_a_kill() {
    let mut server = Server::start();
    let (one, two) = (version("v1"), version("v2"));
    let token = {
        let acme = server.tenant("acme");
        acme.make_topic("in");
        let pushed = acme.send("POST", "/v1/plugins?name=work:1", &one).is(201).body;
        let text = copy("swap", "work:1", "");
        acme.deploy("swap", &text).is(201);
        acme.until_phase("swap", "running");
        acme.send("POST", "/v1/plugins?name=work:2", &two).is(201);
        // The tag moves; the job keeps what it stood for.
        acme.send("POST", "/v1/plugins?name=work:1", &two).is(200);
        let view = acme.get("/v1/jobs/swap").is(200).body;
        assert_eq!(view["plugins"]["work:1"], pushed["digest"]);
        let swapped = acme.post("/v1/jobs/swap/swap", &json!({"stage": "work", "plugin": "work:2"})).is(200).body;
        assert_eq!(swapped["from"], pushed["digest"], "{swapped}");
        acme.send("DELETE", "/v1/plugins/work:2", b"").is(409);
        acme.token
    };
    let plugin = |server: &Server| {
        let acme = server.with_token(&token);
        acme.until_phase("swap", "running");
        let view = acme.get("/v1/jobs/swap").is(200).body;
        view["status"]["nodes"][1]["plugin"].clone()
    };
    let before = plugin(&server);
    server.signal(Signal::KILL);
    server.wait();
    server.launch(&[]);
    assert_eq!(plugin(&server), before);
    assert!(before.is_string());
}

#[test]
fn a_file_with_other_plugins_alone_is_deployed_in_place() {
    let mut server = Server::start();
    let (token, new) = {
        let acme = server.tenant("acme");
        acme.make_topic("in");
        let digests = ["v1", "v2", "process"].map(|name| {
            let pushed = acme.send("POST", "/v1/plugins", &version(name)).is(201).body;
            pushed["digest"].as_str().expect("a digest").to_owned()
        });
        acme.deploy("swap", &copy("swap", &digests[0], "")).is(201);
        acme.until_phase("swap", "running");
        acme.produce("in", 0..1);
        server.until("a row came", || acme.values("out").len() == 1);
        let uptime = || acme.get("/v1/jobs/swap").is(200).body["status"]["nodes"][0]["rows_out"].as_u64();
        assert_eq!(uptime(), Some(1));
        let view = acme.deploy("swap", &copy("swap", &digests[1], "")).is(200).body;
        assert_eq!((&view["revision"], &view["phase"]), (&json!(2), &json!("running")));
        assert_eq!(view["status"]["nodes"][1]["plugin"], digests[1].as_str(), "{view}");
        assert_eq!(uptime(), Some(1), "the job was not started again: it counts on");
        // One that fails changes nothing, the file neither.
        let refused = acme.deploy("swap", &copy("swap", &digests[2], "")).is(409);
        assert!(refused.text.contains("cannot process anything"), "{}", refused.text);
        assert_eq!(acme.get("/v1/jobs/swap").is(200).body["revision"], 2);
        (acme.token, digests[1].clone())
    };
    server.signal(Signal::KILL);
    server.wait();
    server.launch(&[]);
    let acme = server.with_token(&token);
    acme.until_phase("swap", "running");
    acme.produce("in", 1..2);
    server.until("a row came", || acme.values("out").len() == 2);
    let view = acme.get("/v1/jobs/swap").is(200).body;
    assert_eq!((&view["revision"], &view["status"]["nodes"][1]["plugin"]), (&json!(2), &json!(new)), "{view}");
}

#[test]
fn a_shadow_and_a_canary_are_had_by_the_api() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let digests = ["v1", "same", "bug"].map(|name| {
        let pushed = acme.send("POST", "/v1/plugins", &version(name)).is(201).body;
        pushed["digest"].as_str().expect("a digest").to_owned()
    });
    acme.deploy("swap", &copy("swap", &digests[0], "")).is(201);
    acme.until_phase("swap", "running");
    let ask = |verb: &str, body: serde_json::Value| acme.post(&format!("/v1/jobs/swap/{verb}"), &body);
    let stage = json!({"stage": "work"});
    ask("promote", stage.clone()).is(409);
    acme.get("/v1/jobs/swap/beside/work").is(409);
    for wrong in [
        json!({"stage": "work", "plugin": digests[1], "shadow": true, "canary_percent": 3}),
        json!({"stage": "work", "plugin": digests[1], "canary_percent": 100}),
        json!({"stage": "work", "plugin": digests[1], "shadow": true, "span": "long"}),
        json!({"stage": "work", "plugin": digests[1], "promote": true}),
    ] {
        ask("swap", wrong).is(400);
    }
    ask("swap", json!({"stage": "work", "plugin": digests[2], "shadow": true})).is(200);
    acme.produce("in", 0..6);
    server.until("the bug shows", || {
        acme.get("/v1/jobs/swap/beside/work").is(200).body["differences"]["total"].as_u64() > Some(0)
    });
    let refused = ask("promote", stage.clone()).is(409);
    assert!(refused.text.contains("does not do what the old one does"), "{}", refused.text);
    assert_eq!(ask("rollback", stage.clone()).is(200).body["state"], "rolled-back");
    ask("swap", json!({"stage": "work", "plugin": digests[1], "canary_percent": 50})).is(200);
    let taken = ask("promote", stage.clone()).is(200).body;
    assert_eq!(taken["to"], digests[1].as_str(), "{taken}");
    assert_eq!(ask("rollback", stage).is(200).body["to"], digests[0].as_str());
    // By the command line, which speaks the same.
    let done = acme.run(&["swap", "swap", "work", &digests[1], "--canary", "10%", "--for", "1epoch", "--json"]).ok();
    assert_eq!(done.json()["state"], "rolled-back", "{done:?}");
}

#[test]
fn dead_letters_are_listed_replayed_and_dropped() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let text = copy("bad", "std:map", "config = { expression = 'if .n % 2 == 0 then error(\"even\") else . end' }");
    let deployed = acme.deploy("bad", &text);
    assert_eq!(deployed.status, 201, "{}", deployed.text);
    acme.produce("in", 0..4);
    server.until("rows are rejected", || {
        let view = acme.get("/v1/jobs/bad").body;
        view["status"]["nodes"][1]["rejected"] == 2
    });
    let page = acme.get("/v1/jobs/bad/letters?limit=1").is(200).body;
    assert_eq!(page["letters"][0]["node"], "work", "{page}");
    let next = page["next"].as_u64().expect("a second page");
    let second = acme.get(&format!("/v1/jobs/bad/letters?from={next}")).is(200).body;
    assert_eq!((second["letters"].as_array().map(Vec::len), &second["next"]), (Some(1), &json!(null)));
    acme.post("/v1/jobs/bad/letters/drop", &json!({"ids": [next]})).is(200);
    assert_eq!(acme.post("/v1/jobs/bad/letters/replay", &json!({"all": true})).is(200).body["letters"], 1);
    acme.post("/v1/jobs/bad/letters/drop", &json!({"ids": [99]})).is(404);
    acme.post("/v1/jobs/bad/letters/drop", &json!({})).is(400);
}

#[test]
fn a_tap_shows_rows_as_they_come() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    acme.deploy("copy", &plain("copy")).is(201);
    acme.until_phase("copy", "running");
    acme.get("/v1/jobs/copy/tap/none").is(404);
    for node in ["in", "work", "out"] {
        let rows = std::thread::scope(|scope| {
            let tap = scope.spawn(|| acme.run(&["tap", "copy", node, "--limit", "2"]).ok().out);
            // Whether the tap is open yet is not known here: rows come until it has two, slower than a tenant may ask.
            server.until("the tap has its rows", || {
                acme.produce("in", 0..2);
                tap.is_finished()
            });
            tap.join().expect("rows")
        });
        assert_eq!(rows.lines().count(), 2, "{rows}");
        assert!(rows.contains("\"value\":{\"n\":0}") || rows.contains("\"value\":{\"n\":1}"), "{rows}");
    }
}

#[test]
fn the_command_line_speaks_to_a_service() {
    let server = Server::start_in(Folder::new().with("work.wasm", version("v1")), &[]);
    let folder = &server.folder;
    let acme = server.tenant("acme");
    acme.make_topic("in");
    std::fs::write(folder.path().join("job.toml"), copy("cli", "./work.wasm", "")).expect("written");
    let said = acme.run(&["deploy", "job.toml"]).ok().out;
    assert!(said.starts_with("cli: ") && said.contains("revision 1"), "{said}");
    acme.until_phase("cli", "running");
    let listed = acme.run(&["plugin", "ls", "--json"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "the file was pushed: {listed}");
    assert!(acme.run(&["ps"]).ok().out.contains("running"));
    assert!(acme.run(&["status", "cli"]).ok().out.contains("cli: running for"));
    let why = acme.run(&["why", "cli", "work"]).ok().out;
    assert!(why.starts_with("cli: running\n  work (stage): "), "{why}");
    assert_eq!(acme.get("/v1/jobs/cli/why?node=in").is(200).body["nodes"][0]["kind"], "source");
    acme.run(&["why", "cli", "nobody"]).fails(1, &["the job has no node nobody", "it has: in, work, out"]);
    acme.run(&["why", "none"]).fails(2, &["there is no job none"]);
    assert_eq!(acme.run(&["pause", "cli"]).ok().out, "cli: running, wanted paused\n");
    assert_eq!(acme.run(&["resume", "cli"]).ok().out, "cli: running, wanted running\n");
    std::fs::write(folder.path().join("work-2.wasm"), version("v2")).expect("written");
    assert!(acme.run(&["swap", "cli", "work", "work-2.wasm"]).ok().out.contains("goes on behind epoch"));
    assert!(acme.run(&["savepoint", "create", "--job", "cli", "one"]).ok().out.starts_with("one: epoch"));
    assert!(acme.run(&["savepoint", "ls", "--job", "cli"]).ok().out.contains("one"));
    assert!(acme.run(&["logs", "cli"]).ok().out.contains("the job runs"));
    assert_eq!(acme.run(&["usage", "--json"]).ok().json()["has"]["jobs"], 1);
    assert_eq!(acme.run(&["stop", "cli"]).ok().out, "cli: stopped, wanted stopped\n");
    acme.run(&["rm", "cli"]).ok();
    acme.run(&["status", "cli"]).fails(2, &["there is no job cli"]);
    let bad = plain("bad").replace("\"topic\"\ntopic = \"in\"", "\"file\"\npath = \"/etc/passwd\"");
    std::fs::write(folder.path().join("bad.toml"), bad).expect("written");
    acme.run(&["deploy", "bad.toml"]).fails(2, &["line 5: ", "leads out of the folder of the tenant"]);
    server.with_token("wmt_acme_00_00").run(&["ps"]).fails(1, &["the token is none, has expired, or was revoked"]);
}
