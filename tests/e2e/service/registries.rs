//! Plugins out of a registry, by a service and by the command line, against a registry of the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Server, copy, path};
use crate::support::Folder;
use crate::swap::version;

/// What is kept, by name and digest.
type Kept = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

async fn answer(State(kept): State<Kept>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.expect("a body").to_vec();
    let path = parts.uri.path();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut kept = kept.lock().expect("whole");
    match parts.method {
        Method::POST => (StatusCode::ACCEPTED, [("location", format!("{path}7"))]).into_response(),
        Method::PUT => {
            let digest = format!("sha256:{}", hex::encode(Sha256::digest(&body)));
            if path.contains("/manifests/") {
                kept.insert(name, body.clone());
            }
            kept.insert(digest, body);
            StatusCode::CREATED.into_response()
        }
        _ => kept.get(&name).cloned().map_or(StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response),
    }
}

/// A registry, and its host and port.
fn registry() -> (tokio::runtime::Runtime, Kept, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let kept = Kept::default();
    let router = Router::new().fallback(answer).with_state(Arc::clone(&kept));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    runtime.spawn(async move { axum::serve(listener, router).await });
    (runtime, kept, address)
}

#[test]
fn a_plugin_goes_through_a_registry_into_a_job() {
    let (_runtime, kept, address) = registry();
    let mut server = Server::start_in(Folder::new(), &["--registry", &address]);
    let digest = {
        let acme = server.tenant("acme");
        let file = acme.run(&["plugin", "push", &path(&server.folder, "x.wasm").display().to_string()]);
        file.fails(2, &["no such file"]);
        let bytes = version("v1");
        std::fs::write(path(&server.folder, "v1.wasm"), &bytes).expect("written");
        let tagged = format!("oci://{address}/acme/count:1.0");
        let out = acme.run(&["plugin", "export", "v1.wasm", "--oci", &tagged, "--json"]).ok().json();
        let pinned = format!("oci://{address}/acme/count@{}", out["manifest"].as_str().expect("a digest"));

        // By its tag, under a name; by its digest; to a file, without a service.
        let pulled = acme.run(&["plugin", "pull", &tagged, "--as", "count:1.0", "--json"]).ok().json();
        assert_eq!((&pulled["digest"], &pulled["tags"]), (&out["plugin"], &json!(["count:1.0", pinned])));
        server.folder.run(&["plugin", "pull", &pinned, "again.wasm"]).ok();
        assert_eq!(std::fs::read(path(&server.folder, "again.wasm")).expect("written"), bytes);
        let other = server.tenant("other");
        let imported = other.run(&["plugin", "import", "--oci", &pinned, "--name", "mine", "--json"]).ok().json();
        assert_eq!((&imported["digest"], &imported["tags"]), (&out["plugin"], &json!(["mine:latest"])));

        // A job names it by its reference, which was pulled; the tag beside the digest means nothing.
        acme.make_topic("in");
        let both = pinned.replace("/count@", "/count:9.9@");
        acme.deploy("copy", &copy("copy", &both, "")).is(201);
        acme.until_phase("copy", "running");
        // What is deployed from here is pulled first.
        std::fs::write(path(&server.folder, "job.toml"), copy("copy", &tagged, "")).expect("written");
        other.make_topic("in");
        other.run(&["deploy", "job.toml"]).ok();
        // By another tenant it was not.
        let third = server.tenant("third");
        let problem = third.deploy("copy", &copy("copy", &pinned, "")).is(422);
        assert!(problem.text.contains("was not pulled") && problem.text.contains("plugin pull"), "{}", problem.text);

        // The tag moves on: who named a digest has what it had.
        let changed = version("v2");
        std::fs::write(path(&server.folder, "v2.wasm"), &changed).expect("written");
        let moved = server.folder.run(&["plugin", "export", "v2.wasm", "--oci", &tagged, "--json"]).ok().json();
        assert_ne!(moved["plugin"], out["plugin"]);
        assert_eq!(third.post("/v1/pulls", &json!({"reference": pinned})).is(201).body["digest"], out["plugin"]);
        assert_eq!(third.post("/v1/pulls", &json!({"reference": tagged})).is(201).body["digest"], moved["plugin"]);
        // What is changed in the registry is refused.
        let layer = moved["plugin"].as_str().expect("a digest").to_owned();
        kept.lock().expect("whole").insert(layer, bytes);
        let problem = third.post("/v1/pulls", &json!({"reference": tagged})).is(422);
        assert!(problem.text.contains("was changed"), "{}", problem.text);
        // No name, and none that is there.
        for (reference, status) in [("count:1.0", 422), ("oci://user@x/y", 422), ("oci://", 422)] {
            third.post("/v1/pulls", &json!({"reference": reference})).is(status);
        }
        third.post("/v1/pulls", &json!({"reference": format!("oci://{address}/acme/none")})).is(422);
        out["plugin"].as_str().expect("a digest").to_owned()
    };
    // Where nobody vouches for it, this machine is behind the fence.
    server.signal(rustix::process::Signal::TERM);
    server.wait();
    server.launch(&[]);
    let operator = server.operator();
    operator.send("PATCH", "/v1/tenants/third", b"{\"egress\":{\"hosts\":[\"*\"],\"listen\":false}}").is(200);
    let token = operator.post("/v1/tenants/third/tokens", &json!({"name": "x", "scopes": ["read", "deploy"]})).is(201);
    let third = server.with_token(token.body["token"].as_str().expect("a token"));
    third.get(&format!("/v1/plugins/{digest}")).is(200);
    let here = address.rsplit(':').next().expect("a port");
    for host in [address.clone(), format!("localhost:{here}"), "169.254.169.254".to_owned(), format!("[::1]:{here}")] {
        let problem = third.post("/v1/pulls", &json!({"reference": format!("oci://{host}/acme/count:1.0")}));
        assert!([422, 503].contains(&problem.status), "{}", problem.text);
        assert!(problem.text.contains("no public address"), "{host}: {}", problem.text);
    }
    // And what was not granted.
    operator.send("PATCH", "/v1/tenants/third", b"{\"egress\":{\"hosts\":[],\"listen\":false}}").is(200);
    let problem = third.post("/v1/pulls", &json!({"reference": "oci://ghcr.io/acme/count:1.0"})).is(422);
    assert!(problem.text.contains("may not connect to ghcr.io"), "{}", problem.text);
}
