//! Promises of docs/guarantees.md: the tests that are said to hold them exist.

use std::fs;

use crate::sources::files;
use crate::workspace::{hold, root};

/// Fewer letters and underscores are the name of something else.
const NAME_WORDS_MIN: usize = 3;

/// Names of tests in a document: what stands between backticks and looks like a sentence.
fn named(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let last = quoted.map(|name| name.rsplit("::").next().unwrap_or(name));
    let looks = |name: &&str| {
        name.split('_').count() >= NAME_WORDS_MIN
            && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
    };
    last.filter(looks).collect()
}

#[test]
fn every_promise_has_its_test() {
    let document = fs::read_to_string(root().join("docs/guarantees.md")).expect("the document");
    let mut sources = Vec::new();
    for folder in ["runtime", "tests", "xtask"] {
        files(&root().join(folder), &mut sources);
    }
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let text: String = sources.iter().map(|path| fs::read_to_string(path).expect("reads")).collect();
    let promised = named(&document);
    assert!(promised.len() > 20, "the document names its tests");
    // A test, or the module that a macro fills with tests.
    let exists = |name: &str| text.contains(&format!("fn {name}(")) || text.contains(&format!("mod {name} {{"));
    let offences: Vec<String> = promised.into_iter().filter(|name| !exists(name)).map(str::to_owned).collect();
    hold("docs/guarantees.md names tests that do not exist", &offences);
}

#[test]
fn names_of_tests_are_told_from_other_names() {
    let text = "`a_b_c` and `x::nothing_is_lost`, not `dead_letters`, `--state DIR` or [`a`](b_c_d)";
    assert_eq!(named(text), ["a_b_c", "nothing_is_lost"]);
}
