//! Compiled plugins on disk.

use std::os::unix::fs::PermissionsExt;

use wasmill_wasm::{CompileMode, Grants, HostSettings, PluginError, WasmHost};

use crate::support::{Guest, Host, limits};

fn settings(of: &Host) -> HostSettings {
    HostSettings { instances_max: 2, ..HostSettings::in_process(of.cache.path()) }
}

/// A host on the same cache, as of another process: it has no plugin at hand.
fn another(of: &Host) -> WasmHost {
    WasmHost::new(settings(of)).expect("a host")
}

/// The same, that cannot compile: what it loads comes from the cache.
fn cannot_compile(of: &Host) -> WasmHost {
    let mut settings = settings(of);
    settings.compile = CompileMode::Worker { program: "/nonexistent/worker".into(), arguments: Vec::new() };
    WasmHost::new(settings).expect("a host")
}

#[tokio::test]
async fn what_is_in_the_cache_is_not_compiled_again() {
    let host = Host::new();
    for bytes in [Guest::named("unchanged").module(), Guest::named("unchanged").component()] {
        host.load(bytes.clone()).await.expect("compiles");
        let warm = cannot_compile(&host).load(bytes, limits(), Grants::ALL).await.expect("from the cache");
        warm.describe().await.expect("runs");
    }
    let other = cannot_compile(&host).load(Guest::named("canary").module(), limits(), Grants::ALL).await;
    assert!(matches!(other, Err(PluginError::Worker { .. })), "{other:?}");
}

#[tokio::test]
async fn an_artifact_that_was_changed_is_compiled_anew() {
    let module = Guest::named("unchanged").module();
    let host = Host::new();
    host.load(module.clone()).await.expect("compiles");
    let path = host.artifact();
    let good = std::fs::read(&path).expect("an artifact");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let mut longer = good.clone();
    longer.push(0);
    for bad in [flipped, good[..good.len() - 1].to_vec(), longer, b"short".to_vec(), Vec::new()] {
        std::fs::write(&path, &bad).expect("written");
        let refused = cannot_compile(&host).load(module.clone(), limits(), Grants::ALL).await;
        assert!(matches!(refused, Err(PluginError::Worker { .. })), "{} bytes were run: {refused:?}", bad.len());
        let anew = another(&host);
        let plugin = anew.load(module.clone(), limits(), Grants::ALL).await.expect("compiles anew");
        plugin.describe().await.expect("runs");
        cannot_compile(&host).load(module.clone(), limits(), Grants::ALL).await.expect("replaced");
    }
}

#[tokio::test]
async fn a_plugin_at_hand_is_shared_and_its_artifact_not_read_again() {
    let module = Guest::named("unchanged").module();
    let host = Host::new();
    host.load(module.clone()).await.expect("compiles");
    let artifact = host.artifact();
    std::fs::remove_file(&artifact).expect("removed");
    host.load(module).await.expect("is at hand").describe().await.expect("runs");
    assert!(!artifact.exists(), "it was compiled anew");
}

#[tokio::test]
async fn an_artifact_of_another_plugin_under_this_ones_name_is_not_run() {
    let host = Host::new();
    host.load(Guest::named("canary").module()).await.expect("compiles");
    let other = std::fs::read(host.artifact()).expect("an artifact");
    let host = Host::new();
    host.load(Guest::named("unchanged").module()).await.expect("compiles");
    std::fs::write(host.artifact(), other).expect("written");
    let refused = cannot_compile(&host).load(Guest::named("unchanged").module(), limits(), Grants::ALL).await;
    assert!(matches!(refused, Err(PluginError::Worker { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_key_that_is_broken_or_open_to_others_is_replaced() {
    let module = Guest::named("unchanged").module();
    let host = Host::new();
    host.load(module.clone()).await.expect("compiles");
    let key = host.cache.path().join("compiled/mac.key");
    assert_eq!(std::fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("opened");
    let refused = cannot_compile(&host).load(module.clone(), limits(), Grants::ALL).await;
    assert!(matches!(refused, Err(PluginError::Worker { .. })), "{refused:?}");
    std::fs::write(&key, b"too short").expect("written");
    cannot_compile(&host);
    assert_eq!(std::fs::read(&key).expect("a key").len(), 32);
}

#[test]
fn a_directory_that_others_may_enter_is_refused() {
    let cache = tempfile::tempdir().expect("a directory");
    let dir = cache.path().join("compiled");
    std::fs::create_dir(&dir).expect("made");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).expect("opened");
    let refused = WasmHost::new(HostSettings { instances_max: 2, ..HostSettings::in_process(cache.path()) });
    match refused {
        Err(PluginError::Cache { path, reason }) => {
            assert_eq!(path, dir);
            assert!(reason.contains("chmod 700"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hosts_that_share_a_cache_load_at_once() {
    let cache = tempfile::tempdir().expect("a directory");
    let module = Guest::named("keeps_marked").module();
    let loads: Vec<_> = (0..4)
        .map(|_| {
            let (dir, module) = (cache.path().to_owned(), module.clone());
            tokio::spawn(async move {
                let host = WasmHost::new(HostSettings { instances_max: 2, ..HostSettings::in_process(dir) })?;
                for _ in 0..5 {
                    host.load(module.clone(), limits(), Grants::ALL).await?;
                }
                Ok::<_, PluginError>(())
            })
        })
        .collect();
    for load in loads {
        load.await.expect("no panic").expect("loads");
    }
    let left = std::fs::read_dir(cache.path().join("compiled")).expect("the cache").count();
    assert_eq!(left, 2, "a key and an artifact");
}

#[tokio::test]
async fn the_oldest_artifacts_make_room() {
    let host = Host::with(|settings| settings.cache_bytes_max = 1);
    host.load(Guest::named("unchanged").module()).await.expect("compiles");
    host.load(Guest::named("canary").module()).await.expect("compiles");
    // `artifact` finds exactly one.
    host.artifact();
}
