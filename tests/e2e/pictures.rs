//! `explain` and `graph`.

use crate::support::{guest, three_events};

#[test]
fn explain_says_what_each_path_gives() {
    let folder = three_events(Some("")).with("plugin.wasm", guest("none", ""));
    let done = folder.run(&["explain", "job.toml"]).ok();
    for words in ["in ▸ work ▸ out", "exactly-once", ".wasmill/test/dead-letters.jsonl", "guest 1"] {
        assert!(done.out.contains(words), "{words}: {}", done.out);
    }
    let json = folder.run(&["explain", "job.toml", "--json"]).ok().json();
    assert_eq!((&json["job"], &json["gives"]), (&"test".into(), &"exactly-once".into()));
}

#[test]
fn a_job_can_be_drawn() {
    let folder = three_events(Some("")).with("plugin.wasm", guest("none", ""));
    let text = folder.run(&["graph", "job.toml"]).ok().out;
    assert!(text.contains("work") && text.contains("plugin.wasm"), "{text}");
    assert!(folder.run(&["graph", "job.toml", "--format", "mermaid"]).ok().out.starts_with("flowchart"));
    assert!(folder.run(&["graph", "job.toml", "--format", "svg"]).ok().out.starts_with("<svg"));
    let json = folder.run(&["graph", "job.toml", "--json"]).ok().json();
    assert_eq!(json["graph"].as_str().map(str::trim_end), Some(text.trim_end()));
}
