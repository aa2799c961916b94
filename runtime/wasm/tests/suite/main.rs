//! The host against guests that behave and guests that do not.

mod cache;
mod calls;
mod describe;
mod effects;
mod fuzz;
mod load;
mod migrate;
mod results;
mod runaway;
mod support;
mod traps;

#[test]
fn every_guest_is_used() {
    let suite = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite");
    let sources: String = std::fs::read_dir(suite)
        .expect("the suite")
        .map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("a source"))
        .collect();
    for entry in std::fs::read_dir(support::guests_dir().join("wat")).expect("the guests") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(sources.contains(&format!("named(\"{name}\")")), "no test uses the guest {name}");
    }
}
