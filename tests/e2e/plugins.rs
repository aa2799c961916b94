//! Plugins that are none, and plugins that misbehave: a clear error each, and no panic.

use crate::support::{Done, Folder, embedded, guest, repository, three_events};

/// The first row that fails fails the job.
#[track_caller]
fn run(plugin: impl AsRef<[u8]>, stage: &str) -> Done {
    three_events(Some(&format!("{stage}\nfaults = {{ in_a_row = 0 }}")))
        .with("plugin.wasm", plugin)
        .run(&["run", "job.toml"])
}

#[test]
fn what_is_no_plugin_is_underlined_in_the_job() {
    let empty_component = wat::parse_str("(component)").expect("a component");
    let empty_module = wat::parse_str("(module)").expect("a module");
    let wasi = "(component (import \"wasi:cli/environment@0.2.0\" (instance)))";
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("an empty file", vec![], "not a WebAssembly plugin"),
        ("text", b"Hello, operator!\n".to_vec(), "not a WebAssembly plugin"),
        ("a picture", b"\x89PNG\r\n\x1a\n0000".to_vec(), "not a WebAssembly plugin"),
        ("the text format", b"(module)".to_vec(), "not a WebAssembly plugin"),
        ("half a plugin", guest("none", "")[..200].to_vec(), "plugin.wasm: "),
        ("another component", empty_component, "does not export"),
        ("another module", empty_module, "component-type"),
        ("wasi", wat::parse_str(wasi).expect("a component"), "wasi:cli/environment"),
    ];
    for (what, bytes, words) in cases {
        let done = run(bytes, "");
        assert_eq!(done.code, Some(2), "{what}: {}", done.err);
        assert!(done.err.contains(words), "{what}: {}", done.err);
        assert!(
            done.err.contains("job.toml:9:") && done.err.contains("plugin = \"plugin.wasm\""),
            "{what}: {}",
            done.err
        );
    }
}

#[test]
fn a_world_that_is_only_claimed_is_refused() {
    let module = wat::parse_str("(module (memory (export \"memory\") 1))").expect("a module");
    run(embedded(&module, "stateless"), "").fails(2, &["plugin.wasm: the core module is no component"]);
}

#[test]
fn an_operator_has_no_window() {
    run(guest("none", ""), "window = { tumbling = \"1m\" }")
        .fails(2, &["only an aggregate has a window", "job.toml:11:"]);
}

#[test]
fn a_trap_names_the_stage_and_the_call() {
    for (export, code) in [("describe", 2), ("open", 1), ("process", 1), ("flush", 1), ("cabi_realloc", 2)] {
        let done = run(guest(export, "(unreachable)"), "");
        assert_eq!(done.code, Some(code), "{export}: {}", done.err);
        assert!(done.err.contains("work") && done.err.contains("unreachable"), "{export}: {}", done.err);
    }
    run(guest("process", "(unreachable)"), "").fails(1, &["stage \"work\": process trapped", "plugin.wasm (sha256:"]);
}

#[test]
fn an_endless_loop_is_ended() {
    let spin = guest("process", "(loop $again (br $again)) (unreachable)");
    let words = ["stage \"work\": process did not return within 50 ms", "limits = { call ="];
    run(&spin, "limits = { call = \"50ms\" }").fails(1, &words);
    let spin = guest("describe", "(loop $again (br $again)) (unreachable)");
    run(spin, "").fails(2, &["describe did not return within 1000 ms"]);
}

#[test]
fn a_memory_bomb_is_ended() {
    let bomb = "(loop $again (br_if $again (i32.ne (i32.const -1) (memory.grow (i32.const 16))))) (unreachable)";
    let done = run(guest("process", bomb), "limits = { memory = \"8MiB\" }").fails(1, &["stage \"work\""]);
    assert!(done.err.contains("memory"), "{}", done.err);
}

#[test]
fn what_breaks_the_contract_is_said() {
    let lies = "(i32.store (i32.const 1204) (i32.const -8)) (i32.const 1200)";
    run(guest("process", lies), "").fails(1, &["stage \"work\": process"]);
}

#[test]
fn failed_jobs_leave_no_result() {
    let stage = "faults = { in_a_row = 0 }";
    let folder = three_events(Some(stage)).with("plugin.wasm", guest("process", "(unreachable)"));
    folder.run(&["run", "job.toml"]).fails(1, &["process trapped"]);
    assert!(!folder.has("out.jsonl"));
}

#[test]
fn inspect_shows_a_plugin_and_refuses_the_rest() {
    let folder = three_events(None).with("plugin.wasm", guest("none", ""));
    let json = folder.run(&["inspect", "plugin.wasm", "--json"]).ok().json();
    assert_eq!((&json["kind"], &json["descriptor"]["name"]), (&"operator".into(), &"guest".into()));
    assert!(json["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{json}");
    assert!(folder.run(&["inspect", "plugin.wasm"]).ok().out.starts_with("guest 1, operator\n"));
    folder.run(&["inspect", "job.toml"]).fails(2, &["not a WebAssembly plugin"]);
    folder.run(&["inspect", "no.wasm"]).fails(2, &["there is no file no.wasm"]);
    folder.run(&["inspect", "std:no-such"]).fails(2, &["there is no standard plugin `no-such`"]);
}

#[test]
fn standard_plugins_do_what_their_cases_say() {
    let mut tested = 0;
    for plugin in std::fs::read_dir(repository("plugins")).expect("the plugins") {
        let plugin = plugin.expect("a folder");
        let cases = plugin.path().join("cases");
        if !cases.is_dir() {
            continue;
        }
        let name = format!("std:{}", plugin.file_name().display());
        let done = Folder::new().run(&["test", &name, "--cases", &cases.display().to_string()]);
        assert_eq!(done.code, Some(0), "{name}\n{}{}", done.out, done.err);
        tested += 1;
    }
    assert!(tested >= 9, "{tested} plugins with cases");
}

#[test]
fn cases_hold_a_plugin_to_what_it_did() {
    let folder = three_events(None)
        .with("plugin.wasm", guest("none", ""))
        .with("cases/one/input.jsonl", "{\"key\": \"a\", \"value\": 1}\n{\"text\": \"x y\"}\n{\"watermark\": 5}\n");
    folder.run(&["test", "plugin.wasm"]).fails(1, &[]);
    let done = folder.run(&["test", "plugin.wasm", "--bless"]).ok();
    assert!(done.out.contains("+{\"time\":0,\"key\":\"a\",\"value\":1}"), "{}", done.out);
    folder.run(&["test", "plugin.wasm"]).ok();
    let folder = folder.with("cases/one/output.jsonl", "{\"value\": 2}\n{\"text\": \"x y\"}\n");
    let done = folder.run(&["test", "plugin.wasm"]).fails(1, &[]);
    assert!(done.out.contains("-{\"value\":2}\n") && done.out.contains("+{\"value\":1}\n"), "{}", done.out);
    let json = folder.run(&["test", "plugin.wasm", "--json"]).json();
    assert_eq!((&json["ok"], &json["cases"][0]["verdict"]), (&false.into(), &"differs".into()));
    folder.run(&["test", "plugin.wasm", "--cases", "nowhere"]).fails(2, &["nowhere"]);
}
