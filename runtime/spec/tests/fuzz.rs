//! Job files out of their minds: findings or a job, never a panic.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../../tests/support/fuzz.rs"]
mod driver;

use std::fs;
use std::path::Path;

use driver::{fuzz, mutated};
use wasmill_spec::parse;

/// What job files are made of, and what they should not hold.
const WORDS: &[&str] = &[
    "[source.in]\n",
    "[stage.a]\n",
    "[sink.out]\n",
    "input = \"a\"\n",
    "input = [\"a\", \"b.c\"]\n",
    "window = { tumbling = \"1ns\" }\n",
    "window = { session = \"1d\", early = { rows = 0 } }\n",
    "order = { by = \"time\", bound = \"k-slack\" }",
    "parallelism = 65535\n",
    "ordered = { split = [\"/a\"] }\n",
    "watermark = { from = \"in\", align = \"1s\" }\n",
    "9223372036854775807h",
    "-1s",
    "1e400",
    "\"\\u0000\"",
    "\u{1b}[31m",
    "[[",
    "{ a = ",
    "'''",
    "\"\"\"",
    "a.b.c.d = 1\n",
    "\u{feff}",
    "é",
    "../../x",
    "sha256:",
    "std:",
    "= = =",
    "\r",
    "#",
];

/// Every job file of the repository, wrong ones included.
fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders = vec![root.join("examples"), root.join("runtime/spec/tests"), root.join("tests")];
    let mut corpus = Vec::new();
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        // The order of the disk must not decide.
        entries.sort();
        for path in entries {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                corpus.push(fs::read(path).unwrap());
            }
        }
    }
    assert!(corpus.len() > 60, "{} job files", corpus.len());
    corpus
}

#[test]
fn job_files() {
    let corpus = corpus();
    fuzz(
        "jobs",
        5_000,
        |random| mutated(random, &corpus, WORDS),
        |text| match parse("job.toml", text) {
            Ok(_) => true,
            Err(found) => {
                for diagnostic in &found {
                    // Places that are shown lie in the file.
                    let shown = diagnostic.render(false);
                    assert!(!shown.contains('\u{1b}'), "{shown:?}");
                    drop(diagnostic.to_json());
                }
                assert!(!found.is_empty());
                false
            }
        },
    );
}
