//! Tenants, their tokens and their budgets.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{Server, path, plain};

#[test]
fn tokens_are_secret_expire_and_are_revoked() {
    let mut server = Server::start();
    let mode = |name: &str| std::fs::metadata(path(&server.folder, name)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("data/admin.token"), mode("data")), (0o600, 0o700));
    let operator = server.operator();
    operator.run(&["tenant", "create", "acme"]).ok();
    let secret = operator.run(&["token", "create", "ci", "--tenant", "acme", "--scope", "admin"]).ok().out;
    let secret = secret.trim();
    let acme = server.with_token(secret);
    let listed = acme.run(&["token", "ls", "--json"]).ok();
    assert!(!listed.out.contains(secret.rsplit('_').next().expect("a secret")));
    let id = listed.json()[0]["id"].as_str().expect("an id").to_owned();
    // On disk there is a hash, whichever file one looks into.
    for file in ["data/tenants/acme/tenant.json", "data/service.json"] {
        let kept = server.folder.read(file);
        for token in [secret, operator.token.as_str()] {
            assert!(!kept.contains(token.rsplit('_').next().expect("a secret")), "{file}");
        }
    }
    // A token in an address is no token, and is not said again.
    let problem = server.http.get(&format!("/v1/jobs?token={secret}"), "").is(401);
    assert!(!problem.text.contains(secret));
    let problem = acme.send("DELETE", &format!("/v1/tenants/acme/tokens/{secret}"), b"").is(404);
    assert!(!problem.text.contains(secret));
    // Another service of the same folder knows it, too.
    let operator_token = operator.token.clone();
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    server.launch(&[]);
    let acme = server.with_token(secret);
    acme.get("/v1/tenants/acme/tokens").is(200);
    assert_eq!(server.operator().token, operator_token, "the first token is made once");
    acme.run(&["token", "revoke", &id]).ok();
    acme.get("/v1/tenants/acme/tokens").is(401);
    for days in ["0", "4000", "-1", "1e9"] {
        let body = format!("{{\"name\":\"x\",\"days\":{days}}}");
        server.operator().send("POST", "/v1/tenants/acme/tokens", body.as_bytes()).is(400);
    }
}

#[test]
fn names_of_tenants_lead_nowhere_else() {
    let server = Server::start();
    let operator = server.operator();
    for name in ["", "..", "../x", "/etc", "a/b", "A", "é", "a\u{0}b", "%2e%2e", &"a".repeat(64)] {
        operator.post("/v1/tenants", &json!({"tenant": name})).is(400);
    }
    for path in ["/v1/tenants/%2e%2e", "/v1/tenants/..%2f..%2fetc", "/v1/tenants/a%00b", "/v1/tenants/%ff"] {
        let status = operator.get(path).status;
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    operator.post("/v1/tenants", &json!({"tenant": "a"})).is(201);
    operator.post("/v1/tenants", &json!({"tenant": "a"})).is(409);
    operator.send("DELETE", "/v1/tenants/a", b"").is(204);
    operator.send("DELETE", "/v1/tenants/a", b"").is(404);
    assert_eq!(std::fs::read_dir(path(&server.folder, "data/tenants")).expect("there").count(), 0);
}

#[test]
fn of_a_hundred_jobs_for_the_last_place_exactly_one_gets_it() {
    let server = Server::start();
    let budget = json!({"jobs": 3, "tasks": 1000, "requests_per_second": 10_000, "changes_per_minute": 100_000});
    let acme = server.tenant_with("acme", budget);
    acme.make_topic("in");
    acme.deploy("first", &plain("first")).is(201);
    acme.deploy("second", &plain("second")).is(201);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = |place: usize| {
            let (acme, name) = (&acme, format!("job-{place}"));
            scope.spawn(move || acme.deploy(&name, &plain(&name)).status)
        };
        let asking: Vec<_> = (0..100).map(ask).collect();
        asking.into_iter().map(|asking| asking.join().expect("an answer")).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 403].contains(status)), "{statuses:?}");
    assert_eq!(acme.get("/v1/jobs").is(200).body.as_array().map(Vec::len), Some(3));
    let problem = acme.deploy("more", &plain("more")).is(403);
    assert_eq!(problem.problem(), "over-budget");
    // A job that is there takes no other place.
    acme.deploy("first", &plain("first")).is(200);
}

#[test]
fn budgets_of_tasks_memory_tokens_and_topics_are_kept() {
    let server = Server::start();
    let budget = json!({"tasks": 8, "memory_bytes": 300 << 20, "tokens": 2, "topics": 1});
    let acme = server.tenant_with("acme", budget);
    acme.make_topic("in");
    acme.post("/v1/topics", &json!({"topic": "more"})).is(403);
    let wide = plain("wide").replace("[sink.out]", "parallelism = 7\nlimits = { memory = \"16MiB\" }\n[sink.out]");
    assert_eq!(acme.deploy("wide", &wide).is(403).problem(), "over-budget");
    let large = plain("large").replace("[sink.out]", "limits = { memory = \"400MiB\" }\n[sink.out]");
    assert_eq!(acme.deploy("large", &large).is(403).problem(), "over-budget");
    acme.post("/v1/tenants/acme/tokens", &json!({"name": "second"})).is(201);
    acme.post("/v1/tenants/acme/tokens", &json!({"name": "third"})).is(403);
}
