//! A registry of our own, which lies in every way that a registry can.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use serde_json::json;
use wasmill_env::{RealClock, SimulatedClock};
use wasmill_model::Timestamp;

use super::*;

const PLUGIN: &[u8] = b"\0asm\x0d\0\x01\0 a component";

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Honest,
    /// The plugin is another one of the same length.
    WrongPlugin,
    /// The manifest of a digest is another one.
    WrongManifest,
    /// The plugin goes on and on.
    Endless,
    /// The plugin never comes.
    Silent,
    /// A manifest goes on and on.
    EndlessManifest,
    /// The plugin is said to be somewhere else, see `moved_to`.
    Moved,
    /// Every answer sends one on to itself.
    Circle,
    /// Tokens are to be had at an address that is not encrypted.
    ForeignRealm,
    /// The config is one of another plugin.
    OtherConfig,
    Failing,
}

struct Shelf {
    mood: Mood,
    moved_to: String,
    origin: String,
    /// Manifests and blobs, by tag and digest.
    kept: BTreeMap<String, Vec<u8>>,
    /// Whether it wants a token.
    guarded: bool,
    /// What it was asked: method, path, and whether with a token.
    asked: Vec<(String, bool)>,
}

type Shared = Arc<Mutex<Shelf>>;

async fn answer(State(shelf): State<Shared>, request: Request) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let mut shelf = shelf.lock().expect("whole");
    let token = parts.headers.get("authorization").map(|value| value.to_str().expect("text").to_owned());
    let path = parts.uri.path().to_owned();
    shelf.asked.push((format!("{} {path}", parts.method), token.is_some()));
    if path == "/token" {
        let scope = parts.uri.query().unwrap_or_default();
        assert!(scope.contains("scope=repository:acme/count:"), "{scope}");
        return axum::Json(json!({"token": "a-token"})).into_response();
    }
    if shelf.guarded && token.as_deref() != Some("Bearer a-token") {
        let realm = match shelf.mood {
            Mood::ForeignRealm => "http://example.org/token".to_owned(),
            _ => format!("{}/token", shelf.origin),
        };
        let challenge = format!("Bearer realm=\"{realm}\",service=\"shelf\"");
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)], "who are you?").into_response();
    }
    let is_plugin = path.ends_with(&digest(PLUGIN).to_string()) && path.contains("/blobs/");
    match shelf.mood {
        Mood::Failing => {
            let body = "{\"errors\":[{\"code\":\"TOOMANY\",\"message\":\"\\u001b[31mcome later\"}]}";
            return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
        }
        Mood::Circle => return (StatusCode::FOUND, [("location", path)]).into_response(),
        Mood::Moved if is_plugin => {
            let to = shelf.moved_to.clone();
            return (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response();
        }
        Mood::Endless if is_plugin => return endless().into_response(),
        Mood::EndlessManifest if path.contains("/manifests/") => return endless().into_response(),
        Mood::Silent if is_plugin => {
            let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
            return Body::from_stream(never).into_response();
        }
        Mood::WrongPlugin if is_plugin => return vec![b'x'; PLUGIN.len()].into_response(),
        Mood::WrongManifest if path.contains("/manifests/") => return "{}".into_response(),
        _ => {}
    }
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    match parts.method {
        Method::POST if path.ends_with("/blobs/uploads/") => {
            (StatusCode::ACCEPTED, [("location", "/v2/acme/count/blobs/uploads/7?state=x")]).into_response()
        }
        Method::PUT if path.contains("/blobs/uploads/") => {
            let named = parts.uri.query().and_then(|query| query.split("digest=").nth(1)).expect("a digest").to_owned();
            assert_eq!(digest(&body).to_string(), named);
            shelf.kept.insert(named, body.to_vec());
            StatusCode::CREATED.into_response()
        }
        Method::PUT => {
            shelf.kept.insert(digest(&body).to_string(), body.to_vec());
            shelf.kept.insert(name, body.to_vec());
            StatusCode::CREATED.into_response()
        }
        _ => match shelf.kept.get(&name) {
            Some(bytes) => (HeaderMap::new(), bytes.clone()).into_response(),
            None => (StatusCode::NOT_FOUND, "{\"errors\":[{\"code\":\"NAME_UNKNOWN\"}]}").into_response(),
        },
    }
}

fn endless() -> Body {
    Body::from_stream(futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 4096]))))
}

struct Registry {
    shelf: Shared,
    address: String,
}

impl Registry {
    async fn start(mood: Mood) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let packed = pack(PLUGIN, &["a:b/c".to_owned()], &[]);
        let mut config = packed.config.bytes.to_vec();
        let mut manifest = packed.manifest.bytes.to_vec();
        if mood == Mood::OtherConfig {
            config = json!({"layerDigests": [digest(b"other").to_string()]}).to_string().into_bytes();
            let mut value: Value = serde_json::from_slice(&manifest).expect("JSON");
            value["config"]["digest"] = digest(&config).to_string().into();
            value["config"]["size"] = config.len().into();
            manifest = value.to_string().into_bytes();
        }
        let entry = json!({"digest": digest(&manifest).to_string(), "size": manifest.len()});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string().into_bytes();
        let two = json!({"manifests": [{}, {}]}).to_string().into_bytes();
        let image = json!({"config": {"mediaType": "application/vnd.oci.image.config.v1+json"}, "layers": [{}]});
        let kept = BTreeMap::from([
            ("1.0".to_owned(), manifest.clone()),
            (digest(&manifest).to_string(), manifest),
            (digest(&config).to_string(), config),
            (digest(PLUGIN).to_string(), PLUGIN.to_vec()),
            ("index".to_owned(), index),
            ("two".to_owned(), two),
            ("image".to_owned(), image.to_string().into_bytes()),
        ]);
        let shelf = Shelf {
            mood,
            moved_to: String::new(),
            origin: format!("http://{address}"),
            kept,
            guarded: false,
            asked: Vec::new(),
        };
        let shelf = Arc::new(Mutex::new(shelf));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shelf));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { shelf, address }
    }

    fn named(&self, what: &str) -> Reference {
        format!("oci://{}/acme/count{what}", self.address).parse().expect("a reference")
    }

    /// As a tenant of a service would: everything public is granted, and this registry is vouched for.
    fn reach(&self) -> Reach {
        let fence = Fence { hosts: vec!["*".to_owned()], listen: false };
        Reach { fence: Some(fence), registries: vec![self.address.clone()] }
    }

    async fn pull(&self, what: &str, reach: Reach) -> Result<Pulled, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
        pull(&self.named(what), reach, 1 << 20, &clock).await
    }

    async fn refused(&self, what: &str, reach: Reach) -> String {
        match self.pull(what, reach).await.expect_err("refused") {
            Failure::Said { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    fn set(&self, set: impl FnOnce(&mut Shelf)) {
        set(&mut self.shelf.lock().expect("whole"));
    }
}

#[tokio::test]
async fn what_is_pushed_is_pulled_by_tag_and_by_digest() {
    let registry = Registry::start(Mood::Honest).await;
    registry.set(|shelf| {
        shelf.kept.clear();
        shelf.guarded = true;
    });
    let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
    let imports = ["a:b/c".to_owned()];
    let manifest = push(&registry.named(":2.0"), PLUGIN, &imports, &[], &clock).await.expect("pushed");
    // Again: what is there is not sent twice.
    push(&registry.named(":2.0"), PLUGIN, &imports, &[], &clock).await.expect("pushed");
    let uploads = |shelf: &Shelf| shelf.asked.iter().filter(|(what, _)| what.contains("uploads/7")).count();
    registry.set(|shelf| assert_eq!(uploads(shelf), 2, "{:?}", shelf.asked));
    for named in [":2.0".to_owned(), format!("@{manifest}"), format!(":moved@{manifest}")] {
        let pulled = registry.pull(&named, registry.reach()).await.expect("pulled");
        assert_eq!(pulled, Pulled { manifest, bytes: PLUGIN.to_vec() });
    }
    let pinned = registry.named(&format!("@{manifest}"));
    assert!(push(&pinned, PLUGIN, &imports, &[], &clock).await.is_err(), "a digest is no name to give");
}

#[tokio::test]
async fn an_index_of_one_manifest_means_that() {
    let registry = Registry::start(Mood::Honest).await;
    assert_eq!(registry.pull(":index", Reach::default()).await.expect("pulled").bytes, PLUGIN);
    assert!(registry.refused(":two", Reach::default()).await.contains("names 2 manifests"));
    assert!(registry.refused(":image", Reach::default()).await.contains("not one of a plugin"));
    assert!(registry.refused(":none", Reach::default()).await.contains("404 Not Found: NAME_UNKNOWN"));
}

#[tokio::test]
async fn what_a_registry_changes_is_refused() {
    for (mood, what, says) in [
        (Mood::WrongPlugin, ":1.0", "was changed"),
        (Mood::OtherConfig, ":1.0", "the config is one of"),
        (Mood::Endless, ":1.0", "more than the 20 bytes"),
        (Mood::EndlessManifest, ":1.0", "broke off: length limit exceeded"),
        (Mood::Circle, ":1.0", "sent on more than 4 times"),
        (Mood::Failing, ":1.0", "503 Service Unavailable: \\u{1b}[31mcome later"),
    ] {
        let registry = Registry::start(mood).await;
        let said = registry.refused(what, registry.reach()).await;
        assert!(said.contains(says), "{mood:?}: {said}");
    }
    let registry = Registry::start(Mood::WrongManifest).await;
    let pinned = format!("@{}", pack(PLUGIN, &["a:b/c".to_owned()], &[]).manifest.digest);
    assert!(registry.refused(&pinned, registry.reach()).await.contains("was changed: it is sha256:44136fa355"));
    let registry = Registry::start(Mood::Honest).await;
    let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
    let large = pull(&registry.named(":1.0"), registry.reach(), 19, &clock).await.expect_err("too large");
    assert!(matches!(large, Failure::Said { message, .. } if message.contains("has 20 bytes, and may have 19")));
}

#[tokio::test]
async fn nobody_is_sent_behind_the_fence() {
    let registry = Registry::start(Mood::Honest).await;
    // The registry itself, where nobody vouches for it.
    let alone = Reach { registries: Vec::new(), ..registry.reach() };
    assert!(registry.refused(":1.0", alone).await.contains("127.0.0.1 is no public address"));
    let registry = Registry::start(Mood::Moved).await;
    let other = Registry::start(Mood::Honest).await;
    for (to, says) in [
        (format!("http://{}/v2/x", other.address), "127.0.0.1 is no public address"),
        ("http://169.254.169.254/latest".to_owned(), "169.254.169.254 is no public address"),
        ("http://[::ffff:10.0.0.1]/".to_owned(), "is no public address"),
        ("http://0x7f.1/".to_owned(), "is an address in another notation"),
        ("http://localhost:1/".to_owned(), "the name stands for no public address"),
        ("gopher://example.org/".to_owned(), "no URL of http or https"),
        ("http://user@example.org/".to_owned(), "no URL of a host"),
        ("//example.org/".to_owned(), "no URL of http or https"),
        ("../x".to_owned(), "is no URL"),
    ] {
        registry.set(|shelf| shelf.moved_to = to.clone());
        let said = registry.refused(":1.0", registry.reach()).await;
        assert!(said.contains(says), "{to}: {said}");
    }
    other.set(|shelf| assert!(shelf.asked.is_empty(), "{:?}", shelf.asked));
    // A tenant reaches what was granted, and no more.
    registry.set(|shelf| shelf.moved_to = "https://example.org/x".to_owned());
    let fence = Fence { hosts: vec!["example.net".to_owned()], listen: false };
    let narrow = Reach { fence: Some(fence), ..registry.reach() };
    assert!(registry.refused(":1.0", narrow).await.contains("may not connect to example.org"));
}

#[tokio::test]
async fn a_token_goes_to_its_registry_and_to_nobody_else() {
    let registry = Registry::start(Mood::Moved).await;
    let other = Registry::start(Mood::Honest).await;
    other.set(|shelf| drop(shelf.kept.insert("plain".to_owned(), PLUGIN.to_vec())));
    registry.set(|shelf| {
        shelf.guarded = true;
        shelf.moved_to = format!("http://{}/plain", other.address);
    });
    assert_eq!(registry.pull(":1.0", Reach::default()).await.expect("pulled").bytes, PLUGIN);
    other.set(|shelf| assert_eq!(shelf.asked, [("GET /plain".to_owned(), false)]));
    let registry = Registry::start(Mood::ForeignRealm).await;
    registry.set(|shelf| shelf.guarded = true);
    assert!(registry.refused(":1.0", Reach::default()).await.contains("which is not encrypted"));
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_given_up() {
    let registry = Registry::start(Mood::Silent).await;
    let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
    let pulling = {
        let (named, clock): (_, Arc<dyn Clock>) = (registry.named(":1.0"), Arc::clone(&clock) as _);
        tokio::spawn(async move { pull(&named, Reach::default(), 1 << 20, &clock).await })
    };
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(PATIENCE);
    let given_up = pulling.await.expect("it ends").expect_err("given up");
    assert!(given_up.is_passing() && format!("{given_up:?}").contains("was not done after 60 s"), "{given_up:?}");
}

#[test]
fn redirects_stay_encrypted() {
    let from: Uri = "https://a.org/v2/x".parse().expect("a URL");
    assert_eq!(sent_to(&from, "/y?z=1").expect("a path").to_string(), "https://a.org/y?z=1");
    assert_eq!(sent_to(&from, "https://b.org/y").expect("a URL").to_string(), "https://b.org/y");
    assert!(sent_to(&from, "http://a.org/y").expect_err("refused").contains("is not encrypted"));
    assert_eq!(encoded("a:b/c d&e\u{e9}"), "a:b/c%20d%26e%C3%A9");
}
