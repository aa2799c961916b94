//! Wrong job files: each in `wrong/` has its messages in `wrong/NAME.txt`. `WASMILL_BLESS=1` writes
//! them anew; read what it wrote.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;

use wasmill_spec::{Diagnostic, JOB_BYTES_MAX, Severity, parse};

fn rendered(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| diagnostic.render(false)).collect::<Vec<_>>().join("\n")
}

#[test]
fn wrong_job_files_say_what_is_wrong_where_and_what_to_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let bless = std::env::var_os("WASMILL_BLESS").is_some();
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() >= 30, "only {} wrong job files", names.len());
    let mut different = Vec::new();
    for name in names {
        let bytes = fs::read(folder.join(format!("{name}.toml"))).unwrap();
        let diagnostics = parse("job.toml", &bytes).expect_err(&name);
        assert!(diagnostics.iter().any(|d| d.severity == Severity::Error), "{name} has no error");
        for diagnostic in &diagnostics {
            assert!(diagnostic.hint.is_some(), "{name}: no hint for {:?}", diagnostic.message);
            assert!(diagnostic.span.is_some() || name == "not-utf-8", "{name}: no place for {:?}", diagnostic.message);
        }
        let (expected, text) = (folder.join(format!("{name}.txt")), rendered(&diagnostics));
        if bless {
            fs::write(&expected, &text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            different.push(format!("=== {name} ===\n{text}"));
        }
    }
    assert!(different.is_empty(), "messages changed:\n{}", different.join("\n"));
}

fn only_error(text: &str) -> String {
    let diagnostics = parse("job.toml", text.as_bytes()).unwrap_err();
    assert_eq!(diagnostics.len(), 1, "{}", rendered(&diagnostics));
    diagnostics[0].message.clone()
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let text = "#".repeat(JOB_BYTES_MAX + 1);
    assert_eq!(only_error(&text), "a job file has at most 1048576 bytes, this one has 1048577");
    assert!(parse("job.toml", format!("x = {}", "[".repeat(100_000)).as_bytes()).is_err());
}

#[test]
fn a_graph_that_is_too_large_is_refused() {
    let mut text = "name = \"job\"\n[source.s]\nconnector = \"stdin\"\n".to_owned();
    for sink in 0..1_000 {
        text += &format!("[sink.s{sink}]\nconnector = \"blackhole\"\ninput = \"s\"\n");
    }
    assert_eq!(only_error(&text), "a job has at most 1000 nodes, this one has 1001");
    let many = vec!["\"s\""; 10_001].join(",");
    let text = format!(
        "name = \"job\"\n[source.s]\nconnector = \"stdin\"\n[sink.t]\nconnector = \"blackhole\"\ninput = [{many}]\n"
    );
    assert_eq!(only_error(&text), "a job has at most 10000 inputs, this one has 10001");
}

#[test]
fn a_long_list_of_errors_ends() {
    let text: String = (0..500).map(|key| format!("x{key} = 1\n")).collect();
    assert_eq!(parse("job.toml", text.as_bytes()).unwrap_err().len(), 100);
}

#[test]
fn diagnostics_for_programs_count_from_one() {
    let json = parse("job.toml", b"name = \"job\"\n  delivery = \"twice\"\n[source.s]\nconnector = \"stdin\"\n[sink.t]\nconnector = \"stdout\"\ninput = \"s\"\n")
        .unwrap_err()[0]
        .to_json();
    assert_eq!(
        json,
        serde_json::json!({
            "severity": "error",
            "message": "`delivery` cannot be \"twice\"",
            "file": "job.toml",
            "place": {"line": 2, "column": 14, "end_line": 2, "end_column": 21, "text": "\"twice\""},
            "label": null,
            "hint": "it is one of `at-most-once`, `at-least-once` and `exactly-once`",
        })
    );
}
