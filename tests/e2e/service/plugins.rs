//! Plugins of a tenant: sent, found, signed, refused.

use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use super::{Server, copy, path};
use crate::swap::version;

#[test]
fn a_plugin_is_known_by_its_digest_and_its_names() {
    let server = Server::start();
    let acme = server.tenant("acme");
    let bytes = version("v1");
    let pushed = acme.send("POST", "/v1/plugins?name=count:1.0", &bytes).is(201).body;
    assert_eq!(pushed["bytes"], bytes.len());
    assert_eq!(acme.send("POST", "/v1/plugins?name=count", &bytes).is(200).body["digest"], pushed["digest"]);
    let digest = pushed["digest"].as_str().expect("a digest");
    for named in [digest, "count:1.0", "count", "count:latest"] {
        let shown = acme.get(&format!("/v1/plugins/{named}")).is(200).body;
        assert_eq!((&shown["digest"], &shown["tags"]), (&pushed["digest"], &json!(["count:1.0", "count:latest"])));
    }
    acme.run(&["plugin", "pull", "count", "again.wasm"]).ok();
    assert_eq!(std::fs::read(super::path(&server.folder, "again.wasm")).expect("written"), bytes);
    for named in ["..", "%2e%2e%2fx", "a%00", "A", &"a".repeat(300), "sha256:00"] {
        let status = acme.get(&format!("/v1/plugins/{named}")).status;
        assert!([400, 404].contains(&status), "{named}: {status}");
    }
    acme.send("POST", "/v1/plugins?name=../x", &bytes).is(400);
    acme.send("DELETE", &format!("/v1/plugins/{digest}"), b"").is(204);
    acme.get("/v1/plugins/count").is(404);
}

#[test]
fn what_is_no_plugin_is_refused_and_the_service_goes_on() {
    let server = Server::start();
    let acme = server.tenant_with("acme", json!({"plugin_bytes": 1 << 20}));
    let whole = version("v1");
    let refused: [(&[u8], u16); 6] = [
        (b"", 422),
        (b"(component)", 422),
        (b"\0asm\x01\0\0\0", 422),
        (&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0], 422),
        (&whole[..whole.len() / 2], 422),
        (&[b'x'; (1 << 20) + 1], 413),
    ];
    for (bytes, status) in refused {
        acme.send("POST", "/v1/plugins", bytes).is(status);
    }
    // However much more is said to come: what came is counted.
    let head = format!(
        "POST /v1/plugins HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        acme.token
    );
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16));
    server.http.raw((head.clone() + &chunk.repeat(20)).as_bytes()).is(413);
    let packed = head.replace("Transfer-Encoding: chunked", "Content-Encoding: gzip\r\nContent-Length: 0");
    server.http.raw(packed.as_bytes()).is(415);
    assert_eq!(acme.get("/v1/plugins").is(200).body, json!([]));
}

#[test]
fn where_a_tenant_has_signers_only_signed_plugins_run() {
    let server = Server::start();
    let acme = server.tenant("acme");
    let key = SigningKey::from_bytes(&[7; 32]);
    let public = hex::encode(key.verifying_key().to_bytes());
    acme.run(&["tenant", "trust", "acme", "ci", &public]).ok();
    acme.make_topic("in");
    let digest = |answer: Value| answer["digest"].as_str().expect("a digest").to_owned();
    let one = digest(acme.send("POST", "/v1/plugins", &version("v1")).is(201).body);
    let two = digest(acme.send("POST", "/v1/plugins", &version("v2")).is(201).body);
    let problem = acme.deploy("signed", &copy("signed", &one, "")).is(422);
    assert!(problem.text.contains("has no valid signature"), "{}", problem.text);
    let signature = hex::encode(key.sign(one.as_bytes()).to_bytes());
    // It is over another digest, or by nobody.
    acme.post(&format!("/v1/plugins/{two}/signatures"), &json!({"signature": signature})).is(422);
    let other = hex::encode(SigningKey::from_bytes(&[8; 32]).sign(one.as_bytes()).to_bytes());
    acme.post(&format!("/v1/plugins/{one}/signatures"), &json!({"signature": other})).is(422);
    acme.post(&format!("/v1/plugins/{one}/signatures"), &json!({"signature": "xx"})).is(400);
    let signed = acme.post(&format!("/v1/plugins/{one}/signatures"), &json!({"signature": signature})).is(200).body;
    assert_eq!(signed["signed_by"], "ci");
    acme.deploy("signed", &copy("signed", &one, "")).is(201);
    acme.until_phase("signed", "running");
    acme.post("/v1/jobs/signed/swap", &json!({"stage": "work", "plugin": two})).is(403);
    // It is verified at every load: a signer who is no more has signed nothing.
    acme.send("DELETE", "/v1/tenants/acme/signers/ci", b"").is(204);
    let others = hex::encode(SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes());
    acme.run(&["tenant", "trust", "acme", "others", &others]).ok();
    acme.send("POST", "/v1/jobs/signed/stop", b"").is(200);
    let view = acme.send("POST", "/v1/jobs/signed/resume", b"").is(200).body;
    assert_eq!(view["phase"], "failed", "{view}");
}

#[test]
fn a_plugin_that_was_swapped_in_is_verified_at_every_start() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let keys = [("ci", SigningKey::from_bytes(&[7; 32])), ("lab", SigningKey::from_bytes(&[8; 32]))];
    let digests = keys.map(|(name, key)| {
        acme.run(&["tenant", "trust", "acme", name, &hex::encode(key.verifying_key().to_bytes())]).ok();
        let bytes = version(if name == "ci" { "v1" } else { "v2" });
        let pushed = acme.send("POST", "/v1/plugins", &bytes).is(201).body;
        let digest = pushed["digest"].as_str().expect("a digest").to_owned();
        let signature = hex::encode(key.sign(digest.as_bytes()).to_bytes());
        acme.post(&format!("/v1/plugins/{digest}/signatures"), &json!({"signature": signature})).is(200);
        digest
    });
    acme.deploy("signed", &copy("signed", &digests[0], "")).is(201);
    acme.until_phase("signed", "running");
    acme.post("/v1/jobs/signed/swap", &json!({"stage": "work", "plugin": digests[1]})).is(200);
    let restart = || {
        acme.send("POST", "/v1/jobs/signed/stop", b"").is(200);
        acme.send("POST", "/v1/jobs/signed/resume", b"").is(200);
    };
    restart();
    acme.until_phase("signed", "running");
    // The job file names what is signed still; what runs is not.
    acme.send("DELETE", "/v1/tenants/acme/signers/lab", b"").is(204);
    restart();
    acme.until_phase("signed", "failed");
    let view = acme.get("/v1/jobs/signed").is(200).body;
    assert!(view["reason"].as_str().is_some_and(|why| why.contains("no signer of the tenant has signed")), "{view}");
}

#[test]
fn a_plugin_that_was_changed_on_disk_does_not_run() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let pushed = acme.send("POST", "/v1/plugins", &version("v1")).is(201).body;
    let digest = pushed["digest"].as_str().expect("a digest");
    let file = format!("data/tenants/acme/plugins/{}.wasm", digest.replace(':', "-"));
    std::fs::write(super::path(&server.folder, &file), version("v2")).expect("written");
    let problem = acme.deploy("changed", &copy("changed", digest, "")).is(422);
    assert!(problem.text.contains("it was changed on disk"), "{}", problem.text);
    acme.get(&format!("/v1/plugins/{digest}/content")).is(500);
}

#[test]
fn a_plugin_goes_out_in_an_oci_layout_and_comes_in_from_one() {
    let server = Server::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    let bytes = version("v1");
    let pushed = acme.send("POST", "/v1/plugins?name=count:1.0", &bytes).is(201).body;
    let digest = pushed["digest"].as_str().expect("a digest");
    let out = acme.run(&["plugin", "export", "count:1.0", "--oci", "layout", "--json"]).ok().json();
    assert_eq!(out["plugin"], digest);
    // By its name there, by its digest, by that of its manifest.
    let manifest = out["manifest"].as_str().expect("a digest");
    for wanted in ["count:1.0", digest, manifest] {
        let got = other.run(&["plugin", "import", wanted, "--oci", "layout", "--json"]).ok().json();
        assert_eq!((&got["digest"], &got["tags"]), (&pushed["digest"], &json!(["count:1.0"])), "{wanted}");
    }
    let content = server.http.raw(
        format!(
            "GET /v1/plugins/{digest}/content HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            other.token
        )
        .as_bytes(),
    );
    assert!(content.head.contains(&format!("content-length: {}", bytes.len())), "{}", content.head);
    // Without a service, out of a file; and what is no plugin has no place there.
    let folder = crate::support::Folder::new().with("x.wasm", &bytes).with("y.wasm", b"no plugin");
    folder.run(&["plugin", "export", "x.wasm", "--oci", "layout"]).ok();
    folder.run(&["plugin", "export", "y.wasm", "--oci", "layout"]).fails(2, &["not a WebAssembly plugin"]);
    let blob = path(&server.folder, &format!("layout/blobs/sha256/{}", digest.trim_start_matches("sha256:")));
    std::fs::write(blob, version("v2")).expect("written");
    other.run(&["plugin", "import", "--oci", "layout"]).fails(2, &["was changed"]);
}
