//! One tenant against another: what is theirs, their tokens, their share.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::json;

use super::super::guest::Guest;
use super::super::http::{Answer, head};
use super::super::lab::{plain, through};
use super::{Case, case, long};

/// A public key and a signature of nothing, of RFC 8032.
const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
    d25bf5f0595bbe24655141438e7a100b";

pub(super) const CASES: &[Case] = &[
    case(39, "a plugin without a signature, or with one of something else", |lab| {
        let attacker = lab.attacker()?;
        let put = format!("/v1/tenants/{}/signers/ci", attacker.name);
        attacker
            .send("PUT", &put, json!({"key": KEY}).to_string().as_bytes())?
            .is(204)
            .or_else(|_| attacker.send("PUT", &put, json!({"key": KEY}).to_string().as_bytes())?.is(200))?;
        let digest = attacker.push(&Guest::named("unchanged").module())?;
        attacker.deploy("evil", &through(&digest, ""))?.says(422, "has no valid signature")?;
        let path = format!("/v1/plugins/{digest}/signatures");
        for (signature, status) in [(SIGNATURE, 422), (&"00".repeat(64), 422), ("xx", 400), ("", 400)] {
            attacker.post(&path, &json!({"signature": signature}))?.is(status)?;
        }
        for key in ["00", "zz", &"00".repeat(32)] {
            attacker.send("PUT", &put, json!({"key": key}).to_string().as_bytes())?.is(400)?;
        }
        Ok("422: has no valid signature".to_owned())
    }),
    case(39, "a name moves to another plugin after a job was deployed", |lab| {
        let attacker = lab.attacker()?;
        let good = Guest::named("unchanged").module();
        let first = attacker.send("POST", "/v1/plugins?name=good", &good)?.is(201)?.body["digest"].clone();
        attacker.deploy("evil", &through("good", ""))?.is(201)?;
        let bad = Guest::doing("stateless", "process", "(unreachable)").module();
        attacker.send("POST", "/v1/plugins?name=good", &bad)?.is(201)?;
        attacker.post("/v1/jobs/evil/stop", &json!({}))?.is(200)?;
        attacker.post("/v1/jobs/evil/resume", &json!({}))?.is(200)?;
        attacker.produce("{\"value\":1}\n")?;
        super::goes_on(&attacker, 1)?;
        let view = attacker.get("/v1/jobs/evil")?.is(200)?.body;
        ensure!(view["plugins"]["good"] == first, "{}", view["plugins"]);
        Ok("the job keeps its digest".to_owned())
    }),
    case(40, "plugins pulled from this machine and its network", |lab| {
        let attacker = lab.attacker()?;
        let ask = |host: &str| attacker.post("/v1/pulls", &json!({"reference": format!("oci://{host}/a/b:1")}));
        ask("ghcr.io")?.says(422, "may not connect to ghcr.io")?;
        let egress = json!({"egress": {"hosts": ["*"], "listen": false}});
        lab.operate("PATCH", &format!("/v1/tenants/{}", attacker.name), &egress)?.is(200)?;
        for host in ["127.0.0.1:7070", "169.254.169.254", "[::1]", "[::ffff:7f00:1]", "10.0.0.1", "0.0.0.0"] {
            ask(host)?.says(422, "is no public address")?;
        }
        for host in ["0x7f.1", "2130706433", "127.1", "0177.0.0.1"] {
            ask(host)?.says(422, "another notation")?;
        }
        for host in ["user@example.org", "example.org:0", "example.org/..", "example.org?", "%31", "-x", "a b"] {
            ask(host)?.says(422, "names no plugin of a registry")?;
        }
        // A name that stands for this machine is found out when it is connected to.
        ask("localhost:7070")?.says(503, "no public address")
    }),
    case(40, "sinks that connect to this machine and its network", |lab| {
        let attacker = lab.attacker()?;
        let egress = json!({"egress": {"hosts": ["*"], "listen": false}});
        lab.operate("PATCH", &format!("/v1/tenants/{}", attacker.name), &egress)?.is(200)?;
        let sink = |options: &str| plain().replace("connector = \"topic\"\ntopic = \"out\"\npartitions = 1", options);
        for url in [
            "http://127.0.0.1:7070/v1/jobs",
            "http://169.254.169.254/latest",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://10.0.0.1/",
            "http://192.168.1.1/",
            "http://172.16.0.1/",
            "http://100.64.0.1/",
            "http://224.0.0.1/",
            "http://[fe80::1]/",
            "http://[fc00::1]/",
            "http://user@example.org/",
            "gopher://example.org/",
            "file:///etc/passwd",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
        ] {
            let answer = attacker.deploy("evil", &sink(&format!("connector = \"http\"\nurl = \"{url}\"")))?;
            ensure!(answer.status == 422, "{url}: {} {}", answer.status, answer.text);
        }
        for options in [
            "connector = \"file\"\npath = \"/tmp/x\"",
            "connector = \"file\"\npath = \"../x\"",
            "connector = \"stdout\"",
            "connector = \"http\"\nurl = \"https://example.org\"\nheaders = { a = { env = \"PATH\" } }",
            "connector = \"http\"\nurl = \"https://example.org\"\nheaders = { a = { file = \"/etc/passwd\" } }",
        ] {
            attacker.deploy("evil", &sink(options))?.is(422)?;
        }
        // A name that stands for this machine is found out when it is connected to.
        let named = format!(
            "connector = \"http\"\nurl = \"http://localhost:{}/\"\nbatch_rows_max = 1",
            lab.address.rsplit(':').next().unwrap_or_default()
        );
        attacker.deploy("evil", &sink(&named))?.is(201)?;
        attacker.produce("{\"value\":1}\n")?;
        let said = super::super::lab::until("the connection is refused", || {
            let view = attacker.get("/v1/jobs/evil")?.is(200)?.text + &attacker.get("/v1/jobs/evil/logs")?.text;
            Ok(view.contains("no public address").then_some(()))
        });
        said.map(|()| "422, and `no public address` for a name that stands for one".to_owned())
    }),
    case(43, "what belongs to another tenant", |lab| {
        let attacker = lab.attacker()?;
        for (method, path) in [
            ("GET", "/v1/tenants/neighbour"),
            ("PATCH", "/v1/tenants/neighbour"),
            ("DELETE", "/v1/tenants/neighbour"),
            ("GET", "/v1/tenants/neighbour/tokens"),
            ("POST", "/v1/tenants/neighbour/tokens"),
            ("PUT", "/v1/tenants/neighbour/signers/x"),
            ("GET", "/v1/topics/out"),
            ("GET", "/v1/topics/out/records"),
            ("GET", "/v1/jobs/evil"),
            ("GET", "/v1/jobs/evil/logs"),
            ("GET", "/v1/jobs/evil/tap/work"),
            ("DELETE", "/v1/jobs/evil"),
            ("POST", "/v1/jobs/evil/stop"),
            ("GET", "/v1/tenants"),
        ] {
            let answer = attacker.send(method, path, b"{}")?;
            ensure!([400, 403, 404].contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text);
            ensure!(!answer.text.contains("\"neighbour\""), "{method} {path}: {}", answer.text);
        }
        let metrics = attacker.get("/metrics")?.is(200)?.text;
        ensure!(!metrics.contains("neighbour"), "metrics of another tenant");
        let topic = "topic = \"../../neighbour/topics/in\"";
        attacker.deploy("evil", &plain().replace("topic = \"in\"", topic))?.is(422)?;
        Ok("403, 404; a test walks every endpoint".to_owned())
    }),
    case(44, "tokens: revoked, guessed, in the address, of another kind", |lab| {
        let attacker = lab.attacker()?;
        // Who guesses without end is told to guess less.
        let refused = |answer: Answer| if answer.status == 429 { answer.is(429) } else { answer.is(401) };
        let path = format!("/v1/tenants/{}/tokens", attacker.name);
        let made = attacker.post(&path, &json!({"name": "x", "scopes": ["read"]}))?.is(201)?.body;
        let token = made["token"].as_str().context("no token")?;
        lab.get("/v1/jobs", token)?.is(200)?;
        let cut = &token[..token.len() - 1];
        let other = format!("{cut}{}", if token.ends_with('0') { '1' } else { '0' });
        let jwt = "eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJuZWlnaGJvdXIifQ.";
        for stolen in
            [cut, &other, jwt, "", "null", &token.to_uppercase(), &attacker.token.replace(&attacker.name, "neighbour")]
        {
            refused(lab.get("/v1/jobs", stolen)?)?;
        }
        refused(lab.get(&format!("/v1/jobs?access_token={token}"), "")?)?;
        let id = made["id"].as_str().context("no id")?;
        attacker.send("DELETE", &format!("{path}/{id}"), b"")?.is(204)?;
        refused(lab.get("/v1/jobs", token)?)?;
        let said = fs::read_to_string(lab.folder.join("service.err"))?;
        let record = fs::read_to_string(lab.folder.join(format!("data/tenants/{}/tenant.json", attacker.name)))?;
        let secret = token.rsplit('_').next().unwrap_or_default();
        ensure!(!said.contains(secret) && !record.contains(secret), "a token was written down");
        Ok("401, and none is written down".to_owned())
    }),
    case(51, "storms of requests, deploys and swaps", |lab| {
        let budget = json!({"requests_per_second": 1, "changes_per_minute": 10});
        let attacker = lab.attacker_with(budget)?;
        let statuses = (0..200).map(|_| Ok(attacker.get("/v1/jobs")?.status)).collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(statuses.contains(&429), "{statuses:?}");
        let attacker = lab.attacker_with(json!({"requests_per_second": 10_000, "changes_per_minute": 6}))?;
        let deploys =
            (0..12).map(|_| Ok(attacker.deploy("evil", &plain())?.status)).collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(deploys.contains(&429), "{deploys:?}");
        let refused = attacker.deploy("evil", &plain())?.is(429)?;
        ensure!(refused.head.to_ascii_lowercase().contains("retry-after:"), "{}", refused.head);
        Ok("429 with Retry-After".to_owned())
    }),
    case(52, "50 threads take the last place at once", |lab| {
        let attacker = lab.attacker_with(json!({
            "topics": 2, "tokens": 2, "requests_per_second": 10_000, "changes_per_minute": 100_000
        }))?;
        let tokens = format!("/v1/tenants/{}/tokens", attacker.name);
        for (path, body) in [("/v1/topics", "topic"), (tokens.as_str(), "name")] {
            let statuses: Vec<u16> = std::thread::scope(|scope| {
                let asks: Vec<_> = (0..50)
                    .map(|n| {
                        let attacker = &attacker;
                        scope.spawn(move || {
                            attacker.post(path, &json!({body: format!("n{n}")})).map_or(0, |answer| answer.status)
                        })
                    })
                    .collect();
                asks.into_iter().map(|ask| ask.join().unwrap_or(0)).collect()
            });
            let passed = statuses.iter().filter(|status| **status == 201).count();
            ensure!(passed == 1 && statuses.iter().all(|status| [201, 403].contains(status)), "{path}: {statuses:?}");
        }
        Ok("one passes, 49 are answered 403 over-budget".to_owned())
    }),
    case(62, "lives that nobody reads: taps", |lab| {
        let attacker = lab.attacker()?;
        attacker.deploy("evil", &plain())?.is(201)?;
        attacker.produce("{\"value\":1}\n")?;
        super::goes_on(&attacker, 1)?;
        let mut taps = Vec::new();
        let mut refused = 0;
        for _ in 0..20 {
            let mut tap = attacker.connect()?;
            tap.write(head("GET", "/v1/jobs/evil/tap/work", &attacker.token, 0, "").as_bytes());
            if tap.status_line()?.contains(" 403 ") {
                refused += 1;
            }
            taps.push(tap);
        }
        let line = format!("{}\n", json!({"value": "x".repeat(1_000)})).repeat(2_000);
        for _ in 0..5 {
            attacker.produce(&line)?;
        }
        super::goes_on(&attacker, 1_000)?;
        ensure!(refused >= 12, "{refused} of 20 taps were refused, 8 may be open");
        Ok(format!("8 are open and lose rows, {refused} are answered 403; rows go on"))
    }),
    long(63, "another tenant deploys while plugins are compiled without end", |lab| {
        let attacker = lab.attacker()?;
        let other = lab.attacker()?;
        let bomb = super::components::heavy(2_500);
        std::thread::scope(|scope| {
            let storm = scope.spawn(|| attacker.send("POST", "/v1/plugins", &bomb).map(|answer| answer.status));
            std::thread::sleep(std::time::Duration::from_secs(1));
            let began = crate::steps::now();
            let body = "(drop (i32.const 63)) (call $one_emission)";
            other.push(&Guest::doing("stateless", "process", body).module())?;
            let took = began.elapsed();
            let storm = storm.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
            ensure!(took.as_secs() < 5, "a plugin of another tenant took {} s", took.as_secs());
            Ok(format!("answered {storm}; the other's plugin took {} ms", took.as_millis()))
        })
    }),
];
