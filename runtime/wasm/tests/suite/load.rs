//! Bytes that are no plugin, or not one that this host runs.

use std::path::PathBuf;

use wasmill_wasm::{Capability, CompileLimits, CompileMode, Grants, HostSettings, PluginError, WasmHost};

use crate::support::{Guest, Host, encode, limits};

async fn refused(bytes: impl Into<Vec<u8>>) -> PluginError {
    Host::shared().load(bytes.into()).await.expect_err("it must not load")
}

#[tokio::test]
async fn what_is_not_webassembly_is_called_by_its_name() {
    for (bytes, name) in [
        (&b""[..], "an empty file"),
        (b"#!/bin/sh\n", "a text file"),
        (b"  (module)", "WebAssembly text"),
        (b"\x7fELF\x02\x01\x01", "never run as uploaded"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"\xff\xfe\x00\x01", "some other binary file"),
    ] {
        match refused(bytes).await {
            PluginError::NotWasm { found } => assert!(found.contains(name), "{found}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_compiled_artifact_is_never_taken_for_a_plugin() {
    let host = Host::new();
    host.load(Guest::named("unchanged").module()).await.expect("loads");
    let artifact = std::fs::read(host.artifact()).expect("an artifact");
    assert!(matches!(host.load(artifact).await, Err(PluginError::NotWasm { .. })));
}

#[tokio::test]
async fn truncated_and_damaged_plugins() {
    for whole in [Guest::named("unchanged").module(), Guest::named("unchanged").component()] {
        for length in [4, 8, 9, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
            let error = refused(&whole[..length]).await;
            let known = matches!(
                error,
                PluginError::Malformed { .. }
                    | PluginError::CoreModule
                    | PluginError::Componentize { .. }
                    | PluginError::Compile { .. }
                    | PluginError::Export { .. }
            );
            assert!(known, "{length} of {}: {error:?}", whole.len());
        }
    }
    // One byte wrong, anywhere: an error or a plugin, never a panic.
    let whole = Guest::named("unchanged").component();
    for place in (8..whole.len()).step_by(whole.len() / 60) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        drop(Host::shared().load(damaged).await);
    }
    Host::shared().works().await;
}

#[tokio::test]
async fn a_core_module_that_does_not_name_its_world() {
    let module = wat::parse_str("(module (func (export \"run\")))").expect("text");
    assert!(matches!(refused(module).await, PluginError::CoreModule));
}

#[tokio::test]
async fn a_core_module_that_lacks_an_export_of_its_world() {
    let module = Guest::named("unchanged").module_with(|text| text.replace("#flush", "#flash"), |wit| wit);
    match refused(module).await {
        PluginError::Componentize { reason } => assert!(reason.contains("flush"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn components_of_another_world() {
    match refused(wat::parse_str("(component)").expect("text")).await {
        PluginError::Export { missing, exports } => {
            assert_eq!((missing, exports.as_str()), ("wasmill:operator/plugin@0.1.0", "nothing"));
        }
        other => panic!("{other:?}"),
    }
    for bytes in [half().module(), half().component()] {
        match refused(bytes).await {
            PluginError::Export { missing, exports } => {
                assert_eq!(missing, "wasmill:operator/operator@0.1.0");
                assert_eq!(exports, "`wasmill:operator/plugin@0.1.0`");
            }
            other => panic!("{other:?}"),
        }
    }
    match refused(Guest::doing("both", "open", "(i32.const 1232)").component()).await {
        PluginError::World { export, .. } => assert_eq!(export, "wasmill:operator/aggregate@0.1.0"),
        other => panic!("{other:?}"),
    }
}

fn half() -> Guest {
    Guest::doing("half", "open", "(i32.const 1232)")
}

#[tokio::test]
async fn a_plugin_of_another_version() {
    let next = |text: String| text.replace("@0.1.0", "@0.2.0");
    match refused(Guest::named("unchanged").module_with(next, next)).await {
        PluginError::Version { interface } => assert_eq!(interface, "wasmill:operator/types@0.2.0"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_export_of_another_type() {
    let signature = "process: func(port: u16, input: batch)";
    let other = |wit: String| wit.replace(signature, "process: func(port: u32, input: batch)");
    match refused(encode(&Guest::named("unchanged").module_with(|text| text, other))).await {
        PluginError::World { export, reason } => {
            assert_eq!(export, "wasmill:operator/operator@0.1.0#process");
            assert!(reason.contains("u16"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn imports_that_no_one_grants() {
    let wasi = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#;
    let wasi = wat::parse_str(wasi).expect("text");
    match refused(wasi).await {
        PluginError::Import { import, .. } => assert_eq!(import, "wasi_snapshot_preview1::fd_write"),
        other => panic!("{other:?}"),
    }
    let clock = r#"(component (import "wasi:clocks/monotonic-clock@0.2.0" (instance)))"#;
    match refused(wat::parse_str(clock).expect("text")).await {
        PluginError::Import { import, granted } => {
            assert_eq!(import, "wasi:clocks/monotonic-clock@0.2.0");
            assert!(granted.contains("wasmill:operator/state@0.1.0"), "{granted}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn capabilities_are_granted_one_by_one() {
    let host = &Host::shared().host;
    let some = Grants::NONE.with(Capability::Log).with(Capability::Timers);
    for bytes in [Guest::named("remembers").module(), Guest::named("remembers").component()] {
        match host.load(bytes.clone(), limits(), some).await {
            Err(PluginError::Import { import, granted }) => {
                assert_eq!(import, "wasmill:operator/state@0.1.0");
                assert_eq!(granted, "`wasmill:operator/log@0.1.0`, `wasmill:operator/timers@0.1.0`");
            }
            other => panic!("{other:?}"),
        }
        host.load(bytes.clone(), limits(), some.with(Capability::State)).await.expect("granted");
        // What is in the cache by now is still not granted to another.
        assert!(matches!(host.load(bytes, limits(), some).await, Err(PluginError::Import { .. })));
    }
}

#[tokio::test]
async fn declarations_beyond_the_limits() {
    let with = |from: &'static str, to: &'static str| {
        Guest::named("unchanged").module_with(move |text| text.replace(from, to), |wit| wit)
    };
    const MEMORY: &str = "(memory (export \"memory\") 2)";
    match refused(with(MEMORY, "(memory (export \"memory\") 65536)")).await {
        PluginError::TooLarge { what, found, limit } => {
            assert_eq!((what, found, limit), ("bytes of memory at the start", 1 << 32, 16 << 20));
        }
        other => panic!("{other:?}"),
    }
    match refused(with(MEMORY, "(memory (export \"memory\") 2) (table 4000000000 funcref)")).await {
        PluginError::TooLarge { what, .. } => assert_eq!(what, "table elements at the start"),
        other => panic!("{other:?}"),
    }
    match refused(with(MEMORY, "(memory (export \"memory\") 2 4 shared)")).await {
        PluginError::Feature { what } => assert_eq!(what, "shared memories"),
        other => panic!("{other:?}"),
    }
    let wide = wat::parse_str("(module (memory i64 1))").expect("text");
    match refused(wide).await {
        PluginError::Feature { what } => assert_eq!(what, "64-bit memories"),
        other => panic!("{other:?}"),
    }
    let two = with(MEMORY, "(memory (export \"memory\") 2) (memory 1)");
    assert!(matches!(refused(two).await, PluginError::Componentize { .. } | PluginError::Compile { .. }));
}

/// An unsigned number as LEB128.
fn leb(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A core module of `functions` functions with `locals` locals each.
fn bomb(functions: u32, locals: u32) -> Vec<u8> {
    let mut body = vec![1];
    leb(locals, &mut body);
    body.extend([0x7f, 0x0b]);
    let (mut kinds, mut code) = (Vec::new(), Vec::new());
    leb(functions, &mut kinds);
    kinds.extend((0..functions).map(|_| 0));
    leb(functions, &mut code);
    for _ in 0..functions {
        leb(body.len() as u32, &mut code);
        code.extend(&body);
    }
    let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0".to_vec();
    for (id, section) in [(3, kinds), (10, code)] {
        module.push(id);
        leb(section.len() as u32, &mut module);
        module.extend(section);
    }
    module
}

#[tokio::test]
async fn a_compile_bomb_is_refused_before_it_is_compiled() {
    let bomb = bomb(500, 50_000);
    assert!(bomb.len() < 10_000);
    match refused(bomb).await {
        PluginError::TooLarge { what, found, limit } => {
            assert_eq!((what, limit), ("local variables", 4_000_000));
            assert!(found > limit);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bytes_beyond_the_limit() {
    let cache = tempfile::tempdir().expect("a directory");
    let mut settings = HostSettings { instances_max: 2, ..HostSettings::in_process(cache.path()) };
    settings.scan_limits.plugin_bytes = 100;
    let host = WasmHost::new(settings).expect("a host");
    match host.load(Guest::named("unchanged").module(), limits(), Grants::ALL).await {
        Err(PluginError::TooLarge { what: "bytes", limit: 100, .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// A host that compiles in a worker with these limits.
fn with_worker(program: impl Into<PathBuf>, compile_limits: CompileLimits) -> Host {
    Host::with(|settings| {
        settings.compile = CompileMode::Worker { program: program.into(), arguments: Vec::new() };
        settings.compile_limits = compile_limits;
    })
}

const WORKER: &str = env!("CARGO_BIN_EXE_wasmill-compile-worker");

/// A guest whose largest function takes a compiler long: one block after the other, each with a
/// branch to the end and a use of every local.
fn heavy(blocks: usize) -> Vec<u8> {
    let locals = "(local i64) ".repeat(400);
    let step: String =
        (0..40).map(|at| format!("(local.set {at} (i64.add (local.get {at}) (local.get {})))", at + 1)).collect();
    let body: String = (0..blocks)
        .map(|block| {
            let at = block % 300;
            format!("(if (i64.eqz (local.get {at})) (then {step}) (else (local.set {at} (i64.const {block}))))")
        })
        .collect();
    Guest::named("unchanged").and(&format!("(func (export \"heavy\") {locals} {body})")).module()
}

#[tokio::test]
async fn a_worker_compiles() {
    let host = with_worker(WORKER, CompileLimits::default());
    host.works().await;
}

#[tokio::test]
async fn a_worker_that_takes_too_much_time_or_memory_is_stopped() {
    let little_memory = CompileLimits { memory_bytes: 40 << 20, memory_bytes_per_byte: 0, ..CompileLimits::default() };
    match with_worker(WORKER, little_memory).load(heavy(400)).await {
        Err(PluginError::CompileLimit { limit }) => assert_eq!(limit, "41943040 bytes of memory"),
        other => panic!("{other:?}"),
    }
    let no_time = CompileLimits { cpu_seconds: 0, cpu_seconds_per_mib: 0, ..CompileLimits::default() };
    match with_worker(WORKER, no_time).load(heavy(400)).await {
        Err(PluginError::CompileLimit { .. }) => {}
        other => panic!("{other:?}"),
    }
    let one_second = CompileLimits { cpu_seconds: 1, cpu_seconds_per_mib: 0, ..CompileLimits::default() };
    match with_worker(WORKER, one_second).load(heavy(2_000)).await {
        Err(PluginError::CompileLimit { limit }) => assert_eq!(limit, "1 s of CPU time"),
        other => panic!("{other:?}"),
    }
    let no_room = CompileLimits { artifact_bytes_max: 1_000, ..CompileLimits::default() };
    match with_worker(WORKER, no_room).load(Guest::named("unchanged").module()).await {
        Err(PluginError::CompileLimit { limit }) => assert_eq!(limit, "1000 bytes of artifact"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_that_is_not_there_or_is_something_else() {
    match with_worker("/nonexistent/worker", CompileLimits::default()).load(Guest::named("unchanged").module()).await {
        Err(error @ PluginError::Worker { .. }) => assert!(error.to_string().contains("/nonexistent/worker")),
        other => panic!("{other:?}"),
    }
    for program in ["/bin/true", "/bin/false", "/bin/cat"] {
        let host = with_worker(program, CompileLimits::default());
        let error = host.load(Guest::named("unchanged").module()).await;
        assert!(matches!(error, Err(PluginError::Componentize { .. })), "{program}: {error:?}");
        let error = host.load(Guest::named("unchanged").component()).await;
        assert!(matches!(error, Err(PluginError::Compile { .. })), "{program}: {error:?}");
    }
}

#[tokio::test]
async fn a_plugin_that_does_not_validate_says_why() {
    let host = with_worker(WORKER, CompileLimits::default());
    let mut component = Guest::named("unchanged").component();
    // An `unreachable` of a body becomes an opcode that does not exist: the scan does not look.
    let place = component.windows(2).rposition(|two| two == [0x00, 0x0b]).expect("a trap at the end of a function");
    component[place] = 0xff;
    match host.load(component).await {
        Err(PluginError::Compile { reason }) => assert!(reason.contains("offset"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_known_without_running_it() {
    let module = Guest::named("remembers").module();
    let info = Host::shared().load(module.clone()).await.expect("loads").info().clone();
    assert_eq!(info.bytes, module.len() as u64);
    assert!(info.componentized && info.timed && !info.aggregate && info.native_bytes > 0);
    assert!(info.imports.contains(&"wasmill:operator/state@0.1.0".to_owned()), "{:?}", info.imports);
    assert!(info.exports.contains(&"wasmill:operator/timed@0.1.0".to_owned()), "{:?}", info.exports);
    let component = Host::shared().load(Guest::named("remembers").component()).await.expect("loads");
    assert!(!component.info().componentized);
    assert_ne!(component.info().digest, info.digest);
    assert!(component.info().tools.iter().any(|tool| tool.starts_with("wit-component")), "{:?}", component.info());
}
