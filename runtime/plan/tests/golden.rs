//! What people see of a plan. `WASMILL_BLESS=1` writes the expected texts anew; read them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs;
use std::path::Path;

use wasmill_plan::{Explanation, Picture, plan};

#[test]
fn plans_are_shown_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut different = Vec::new();
    for name in ["bridge-traffic", "auction"] {
        let job = support::job(&fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap());
        let facts = support::facts(&job);
        let planned = plan(&job, &facts).unwrap();
        let explanation = Explanation::new(&job, &facts, &planned);
        let picture = Picture::new(&job, &facts, &planned.plan);
        for (kind, text) in [
            ("explain.txt", explanation.to_string()),
            ("explain.json", format!("{}\n", serde_json::to_string_pretty(&explanation).unwrap())),
            ("graph.txt", picture.text()),
            ("graph.mmd", picture.mermaid()),
            ("graph.svg", picture.svg()),
        ] {
            let file = folder.join(format!("{name}.{kind}"));
            if std::env::var_os("WASMILL_BLESS").is_some() {
                fs::write(file, text).unwrap();
            } else if fs::read_to_string(&file).unwrap_or_default() != text {
                different.push(format!("=== {name}.{kind} ===\n{text}"));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
