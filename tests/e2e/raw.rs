//! Operators that no SDK has a part in. One on raw bindings for C runs with `cargo xtask conformance c`.

use crate::support::{repository, three_events};

#[test]
fn a_component_written_by_hand_in_text_is_an_operator() {
    let text = std::fs::read(repository("tests/guests/component.wat")).expect("the component");
    let component = wat::parse_bytes(&text).expect("the text is WebAssembly");
    let events = "{\"k\":\"a\"}\n{\"k\":\"b\",\"longer\":true}\n{\"k\":\"c\"}\n{\"k\":\"d\",\"longer\":true}\n";
    let folder = three_events(Some("")).with("plugin.wasm", component).with("in.jsonl", events);
    let said = folder.run(&["inspect", "plugin.wasm", "--json"]).ok().json();
    assert_eq!((&said["descriptor"]["name"], &said["imports"]), (&"long".into(), &serde_json::json!([])), "{said}");
    folder.run(&["run", "job.toml"]).ok();
    assert_eq!(folder.results(), "{\"k\":\"b\",\"longer\":true}\n{\"k\":\"d\",\"longer\":true}\n");
}
