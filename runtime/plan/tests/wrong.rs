//! Jobs that are valid by their file and cannot run: each in `wrong/` has its messages beside it.
//! `WASMILL_BLESS=1` writes them anew; read what it wrote.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs;
use std::path::Path;

use wasmill_plan::plan;

#[test]
fn jobs_that_cannot_run_say_why_and_what_to_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let mut different = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let job = support::job(&fs::read_to_string(&path).unwrap());
        let diagnostics = plan(&job, &support::facts(&job)).unwrap_err();
        assert!(diagnostics.iter().all(|diagnostic| diagnostic.hint.is_some() && diagnostic.span.is_some()));
        let text: Vec<String> = diagnostics.iter().map(|diagnostic| diagnostic.render(false)).collect();
        let (expected, text) = (path.with_extension("txt"), text.join("\n"));
        if std::env::var_os("WASMILL_BLESS").is_some() {
            fs::write(expected, text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            different.push(format!("=== {} ===\n{text}", path.display()));
        }
    }
    assert!(count >= 10);
    assert!(different.is_empty(), "{}", different.join("\n"));
}
