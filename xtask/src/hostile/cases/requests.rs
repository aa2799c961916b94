//! Requests that mean harm.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::super::http::head;
use super::super::lab::{Lab, Tenant, plain};
use super::{Case, case, long};

/// Memory that stalled requests of one tenant may take.
const STALLED_BYTES_MAX: u64 = 256 << 20;

pub(super) const CASES: &[Case] = &[
    case(37, "names that lead elsewhere", |lab| {
        let attacker = lab.attacker()?;
        let long = "a".repeat(300);
        for name in ["../../x", "%2e%2e%2fx", "%00", "%2fetc", "A", "a%20b", "é", "%c3%a9", "..", ".", "con%00", &long]
        {
            for path in [
                format!("/v1/jobs/{name}/logs"),
                format!("/v1/topics/{name}/records"),
                format!("/v1/plugins/{name}/content"),
                format!("/v1/tenants/{name}/tokens"),
                format!("/v1/jobs/{name}/tap/work"),
            ] {
                let answer = attacker.get(&path)?;
                ensure!([400, 403, 404].contains(&answer.status), "{path}: {} {}", answer.status, answer.text);
            }
            let answer = attacker.send("POST", &format!("/v1/plugins?name={name}"), b"x")?;
            ensure!([400, 422].contains(&answer.status), "?name={name}: {} {}", answer.status, answer.text);
            let body = json!({"topic": name.replace("%00", "\0").replace("%2e", ".").replace("%2f", "/")});
            let answer = attacker.post("/v1/topics", &body)?;
            ensure!(answer.status == 400, "a topic {name:?}: {} {}", answer.status, answer.text);
        }
        attacker
            .post("/v1/jobs/evil/savepoints", &json!({"name": "../../x"}))?
            .is(400)
            .or_else(|_| attacker.post("/v1/jobs/evil/savepoints", &json!({"name": "../../x"}))?.is(404))?;
        Ok("400 or 404".to_owned())
    }),
    case(45, "a page of another site asks", |lab| {
        let mut connection = lab.connect()?;
        connection.write(
            b"OPTIONS /v1/jobs HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\n\
            Access-Control-Request-Method: DELETE\r\n\r\n",
        );
        let answer = connection.answer()?;
        let lower = answer.head.to_ascii_lowercase();
        ensure!(!lower.contains("access-control-allow"), "{}", answer.head);
        ensure!(!lower.contains("set-cookie"), "{}", answer.head);
        ensure!(lower.contains("frame-ancestors 'none'") && lower.contains("nosniff"), "{}", answer.head);
        Ok(format!("{}: no origin is allowed, no cookie, no frame", answer.status))
    }),
    case(46, "large and many headers", |lab| {
        for more in [format!("X: {}\r\n", "x".repeat(100_000)), "a: b\r\n".repeat(1_000)] {
            let mut connection = lab.connect()?;
            connection.write(head("GET", "/healthz", "", 0, &more).as_bytes());
            let status = connection.answer()?.status;
            ensure!([0, 400, 431].contains(&status), "answered {status}");
        }
        Ok("431".to_owned())
    }),
    case(46, "requests in requests, of two lengths, of HTTP/2", |lab| {
        let chunked = "POST /v1/topics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
            0\r\n\r\nGET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
        let twice = "POST /v1/topics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 30\r\n\r\n\
            GET /v1/openapi.json HTTP/1.1\r\n\r\n";
        for bytes in [chunked, twice, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n"]
        {
            let mut connection = lab.connect()?;
            connection.write(bytes.as_bytes());
            let first = connection.answer()?;
            ensure!([0, 400, 401, 405, 505].contains(&first.status), "answered {}: {}", first.status, first.text);
            if bytes == twice {
                ensure!([0, 400].contains(&first.status), "two lengths: {}", first.status);
            }
        }
        Ok("400, or hung up".to_owned())
    }),
    case(46, "500 connections that say nothing", |lab| {
        let idle = (0..500).map(|_| lab.connect()).collect::<anyhow::Result<Vec<_>>>()?;
        lab.get("/healthz", "")?.is(200)?;
        drop(idle);
        Ok("others are answered".to_owned())
    }),
    long(46, "one byte, and then nothing", |lab| {
        let mut slow = lab.connect()?;
        slow.write(b"G");
        ensure!(slow.is_closed_within(Duration::from_secs(15)), "not closed after 15 s");
        Ok("closed within 15 s".to_owned())
    }),
    case(60, "100 bodies of 4 MiB that do not end", |lab| {
        let attacker = lab.attacker()?;
        let before = lab.resident()?;
        let mut stalled = Vec::new();
        let mut refused = 0;
        for _ in 0..100 {
            let mut connection = attacker.connect()?;
            let length = 4 << 20;
            connection.write(head("POST", "/v1/topics/in/records", &attacker.token, length, "").as_bytes());
            connection.write(&vec![b'x'; length - 1]);
            if connection.has_answer() {
                let answer = connection.answer()?;
                ensure!([0, 429].contains(&answer.status), "answered {}: {}", answer.status, answer.text);
                refused += 1;
            }
            stalled.push(connection);
        }
        let grown = lab.resident()?.saturating_sub(before);
        ensure!(grown < STALLED_BYTES_MAX, "{} MiB of memory are taken", grown >> 20);
        ensure!(refused > 0, "none of them was refused");
        drop(stalled);
        Ok(format!("429 for {refused} of them, {} MiB taken meanwhile", grown >> 20))
    }),
    case(61, "100 answers of 8 MiB that nobody reads", |lab| {
        let attacker = lab.attacker()?;
        let digest = attacker.push(&PADDED)?;
        let before = lab.resident()?;
        let mut unread = Vec::new();
        for _ in 0..100 {
            let mut connection = attacker.connect()?;
            connection.write(head("GET", &format!("/v1/plugins/{digest}/content"), &attacker.token, 0, "").as_bytes());
            connection.has_answer();
            unread.push(connection);
        }
        let grown = lab.resident()?.saturating_sub(before);
        ensure!(grown < STALLED_BYTES_MAX, "{} MiB of memory are taken", grown >> 20);
        if lab.thorough {
            let mut one = unread.swap_remove(0);
            std::thread::sleep(Duration::from_secs(40));
            let got = one.rest();
            ensure!(got < PADDED.len(), "it is still sent after 40 s without a reader");
        }
        Ok(format!("{} MiB taken meanwhile", grown >> 20))
    }),
    case(61, "50 uploads of 8 MiB at once", |lab| {
        let attacker = lab.attacker()?;
        let before = lab.resident()?;
        let (statuses, most) = at_once(lab, &attacker, 50, "POST", "/v1/plugins", &PADDED)?;
        let grown = most.saturating_sub(before);
        ensure!(statuses.iter().all(|status| [0, 200, 201, 429, 503].contains(status)), "answered {statuses:?}");
        ensure!(statuses.iter().any(|status| [200, 201].contains(status)), "nobody got through: {statuses:?}");
        ensure!(grown < STALLED_BYTES_MAX, "{} MiB of memory are taken", grown >> 20);
        let refused = statuses.iter().filter(|status| ![200, 201].contains(*status)).count();
        Ok(format!("429, or hung up, for {refused} of them, {} MiB taken meanwhile", grown >> 20))
    }),
    case(61, "50 looks at a plugin of 8 MiB at once", |lab| {
        let attacker = lab.attacker()?;
        let digest = attacker.push(&PADDED)?;
        let before = lab.resident()?;
        let (statuses, most) = at_once(lab, &attacker, 50, "GET", &format!("/v1/plugins/{digest}"), b"")?;
        let grown = most.saturating_sub(before);
        ensure!(statuses.iter().all(|status| [200, 429, 503].contains(status)), "answered {statuses:?}");
        ensure!(statuses.contains(&200), "nobody got through: {statuses:?}");
        ensure!(grown < STALLED_BYTES_MAX, "{} MiB of memory are taken", grown >> 20);
        let refused = statuses.iter().filter(|status| **status != 200).count();
        Ok(format!("429 for {refused} of them, {} MiB taken meanwhile", grown >> 20))
    }),
    case(47, "a compressed body", |lab| {
        let attacker = lab.attacker()?;
        for coding in ["gzip", "zstd", "br", "gzip, gzip"] {
            let mut connection = attacker.connect()?;
            let more = format!("Content-Encoding: {coding}\r\n");
            connection.write(head("POST", "/v1/topics/in/records", &attacker.token, 4, &more).as_bytes());
            connection.write(&[0x1f, 0x8b, 8, 0]);
            connection.answer()?.is(415)?;
        }
        Ok("415: compressed bodies are not read".to_owned())
    }),
    case(48, "JSON that is deep, wide, double, or no number", |lab| {
        let deep = format!("{{\"tenant\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let wide: String = (0..200_000).map(|n| format!("\"k{n}\":1,")).collect();
        let attacker = lab.attacker()?;
        for (body, status) in [
            (deep.as_str(), 400),
            (&format!("{{{wide}\"topic\":\"a\"}}"), 413),
            ("{\"topic\":\"a\",\"topic\":\"b\"}", 400),
            ("{\"topic\":\"a\",\"extra\":1}", 400),
            ("{\"topic\":\"a\",\"partitions\":1e308}", 400),
            ("{\"topic\":\"a\",\"partitions\":NaN}", 400),
            ("{\"topic\":\"a\",\"partitions\":-1}", 400),
            ("{\"topic\":\"a\",\"retention_bytes\":18446744073709551616}", 400),
            ("\u{0}", 400),
            ("[]", 400),
        ] {
            attacker.send("POST", "/v1/topics", body.as_bytes())?.is(status)?;
        }
        Ok("400, 413".to_owned())
    }),
    case(48, "rows that are deep, wide, or hold no numbers", |lab| {
        let attacker = lab.attacker()?;
        let job = plain()
            .replace("topic = \"in\"\n", "topic = \"in\"\nkey = \"/a/b\"\ntime = { field = \"/t\", unit = \"ms\" }\n");
        attacker.deploy("evil", &job)?.is(201)?;
        let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
        let wide: String = (0..50_000).map(|n| format!("\"k{n}\":{n},")).collect();
        for text in [
            deep.as_str(),
            &format!("{{{wide}\"t\":1}}"),
            "{\"t\":1e308}",
            "{\"t\":-9223372036854775808}",
            "{\"t\":9223372036854775807}",
            "{\"t\":1e-400,\"t\":2}",
            "{\"a\":{\"b\":\"\\ud800\"},\"t\":3}",
            "{\"a\":{\"b\":null},\"t\":\"NaN\"}",
            "not JSON",
            "",
            "{\"t\":5}",
        ] {
            let line = format!("{}\n", json!({"key": "k", "text": text}));
            let answer = attacker.send("POST", "/v1/topics/in/records", line.as_bytes())?;
            ensure!([201, 422].contains(&answer.status), "answered {}: {}", answer.status, answer.text);
        }
        let out = attacker.out(3)?;
        let (phase, reason) = attacker.evil()?;
        ensure!(phase == "running", "the job is {phase}: {reason}");
        Ok(format!("{} rows go on, the others are dead letters", out.len()))
    }),
    case(49, "graphs that are bombs", |lab| {
        let attacker = lab.attacker()?;
        let chain: String = (0..2_000)
            .map(|n| {
                format!("[stage.s{n}]\nplugin = \"std:filter\"\ninput = \"in\"\nconfig = {{ where = \"true\" }}\n")
            })
            .collect();
        let answer = attacker.deploy("evil", &plain().replace("[sink.out]", &format!("{chain}[sink.out]")))?;
        ensure!([403, 413, 422].contains(&answer.status), "answered {}", answer.status);
        for more in ["parallelism = 1000000", "parallelism = 0", "window = { tumbling = \"1ns\" }"] {
            attacker.deploy("evil", &plain().replace("[sink.out]", &format!("{more}\n[sink.out]")))?.is(422)?;
        }
        attacker.deploy("evil", &plain().replace("input = \"in\"", "input = \"work\""))?.is(422)?;
        let deep = format!("name = \"evil\"\na = {}", "[".repeat(50_000));
        attacker.deploy("evil", &deep)?.is(422)?;
        let keys: String = (0..80_000).map(|n| format!("k{n} = 1\n")).collect();
        attacker.deploy("evil", &format!("name = \"evil\"\n{keys}"))?.is(422)?;
        Ok("422 wrong-job".to_owned())
    }),
    case(53, "numbers at their edges", |lab| {
        let attacker = lab.attacker()?;
        attacker.produce("{\"value\":1}\n")?;
        for asked in [
            "offset=-1",
            "offset=9223372036854775808",
            "offset=18446744073709551616",
            "offset=4",
            "limit=0",
            "limit=-1",
            "limit=1001",
            "limit=1e3",
            "partition=1",
            "partition=4294967296",
            "offset=0&offset=1",
            "unknown=1",
        ] {
            attacker.get(&format!("/v1/topics/in/records?{asked}"))?.is(400)?;
        }
        attacker.deploy("evil", &plain())?.is(201)?;
        for path in ["logs?limit=0", "logs?from=-1", "letters?limit=18446744073709551615", "tap/work?limit=-1"] {
            attacker.get(&format!("/v1/jobs/evil/{path}"))?.is(400)?;
        }
        for time in ["9223372036854775808", "1e400", "-1.5", "\"x\""] {
            let line = format!("{{\"value\":1,\"time\":{time}}}\n");
            attacker.send("POST", "/v1/topics/in/records", line.as_bytes())?.is(422)?;
        }
        for time in [i64::MIN, i64::MAX] {
            attacker.produce(&format!("{{\"value\":1,\"time\":{time}}}\n"))?;
        }
        super::goes_on(&attacker, 3)?;
        Ok("400, 422".to_owned())
    }),
];

/// Statuses of so many equal requests at once, and the most memory that the service had meanwhile. Their bodies come
/// piece by piece, all of them side by side.
fn at_once(
    lab: &Lab,
    attacker: &Tenant,
    count: usize,
    method: &str,
    path: &str,
    body: &[u8],
) -> anyhow::Result<(Vec<u16>, u64)> {
    let mut asking = (0..count).map(|_| attacker.connect()).collect::<anyhow::Result<Vec<_>>>()?;
    let head = head(method, path, &attacker.token, body.len(), "");
    let mut going: Vec<bool> = asking.iter_mut().map(|one| one.write(head.as_bytes())).collect();
    let mut most = 0;
    for piece in body.chunks(256 << 10) {
        for (one, going) in asking.iter_mut().zip(&mut going) {
            *going = *going && one.write(piece);
        }
        most = most.max(lab.resident()?);
    }
    let mut statuses = Vec::new();
    for one in &mut asking {
        statuses.push(one.answer()?.status);
        most = most.max(lab.resident()?);
    }
    Ok((statuses, most))
}

/// A plugin of 8 MiB, most of which means nothing. Made once: who feeds the neighbour shares the memory of this process,
/// and would wait for its pages.
static PADDED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut plugin = super::super::guest::Guest::named("unchanged").module();
    let mut padding = wasm_encoder::Module::new();
    padding.section(&wasm_encoder::CustomSection { name: "padding".into(), data: vec![0; 8 << 20].into() });
    plugin.extend(&padding.finish()[8..]);
    plugin
});
