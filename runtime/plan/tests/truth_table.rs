//! What each kind of path gives in each mode, as docs/guarantees.md shows it.
//! `WASMILL_BLESS=1` writes the table anew; read what it wrote.

use std::path::Path;

use wasmill_model::Visibility;
use wasmill_plan::{PathFacts, Recovery};
use wasmill_spec::Delivery;

const DOCUMENT: &str = "../../docs/guarantees.md";
const OPEN: &str = "<!-- truth table -->\n";
const CLOSE: &str = "<!-- /truth table -->";

/// Sinks by when they show rows, and whether they can do so at once.
const SINKS: [(&str, Visibility, bool); 4] = [
    ("`file`", Visibility::WithEpoch, true),
    ("`blackhole`", Visibility::WithEpoch, false),
    ("behind the outbox", Visibility::Deduplicated, false),
    ("`stdout`", Visibility::AtOnce, false),
];

const MODES: [Delivery; 3] = [Delivery::ExactlyOnce, Delivery::AtLeastOnce, Delivery::AtMostOnce];

fn table() -> String {
    let mut text = String::from(
        "| again | keeps | sink | no `--state`, input ends | no `--state` | exactly-once | at-least-once | at-most-once |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let said = |flag: bool| if flag { "yes" } else { "no" };
    for (replayable, remembers) in [(true, false), (true, true), (false, false), (false, true)] {
        for (sink, visibility, direct) in SINKS {
            let gives = |bounded, recovery, asked| {
                PathFacts { bounded, replayable, remembers, visibility, direct, recovery, asked }.derive().gives
            };
            let alone = |bounded| gives(bounded, Recovery::Nothing, Delivery::ExactlyOnce);
            text.push_str(&format!(
                "| {} | {} | {sink} | {} | {} |",
                said(replayable),
                said(remembers),
                alone(true),
                alone(false)
            ));
            for asked in MODES {
                let gives = gives(false, Recovery::LastEpoch, asked);
                let refused = if gives.satisfies(asked) { "" } else { ", refused" };
                text.push_str(&format!(" {gives}{refused} |"));
            }
            text.push('\n');
        }
    }
    text
}

#[test]
fn the_document_says_what_each_path_gives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = std::fs::read_to_string(&path).expect("the document");
    let (before, rest) = document.split_once(OPEN).expect("where the table begins");
    let (_, after) = rest.split_once(CLOSE).expect("where it ends");
    let wanted = format!("{before}{OPEN}{}{CLOSE}{after}", table());
    if std::env::var_os("WASMILL_BLESS").is_some() {
        std::fs::write(&path, wanted).expect("written");
    } else {
        assert!(document == wanted, "the table is out of date: run the test with WASMILL_BLESS=1, and read it");
    }
}
