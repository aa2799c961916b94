//! Kill points and planted bugs: every one that is declared stands at one place, and is declared.

use std::fs;

use wasmill_env::{KILL_POINTS, PLANTED_BUGS};

use crate::sources::files;
use crate::workspace::{hold, root};

/// The names that calls of `function` hand over anywhere under `runtime/`.
fn called(function: &str) -> Vec<String> {
    let mut sources = Vec::new();
    files(&root().join("runtime"), &mut sources);
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let call = format!("{function}(\"");
    let mut names = Vec::new();
    for source in sources {
        let text = fs::read_to_string(&source).expect("reads");
        names.extend(text.split(&call).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    names
}

fn offences(declared: &[&str], called: &[String]) -> Vec<String> {
    let count = |name: &str| called.iter().filter(|other| *other == name).count();
    let amiss = declared.iter().filter(|name| count(name) != 1);
    let amiss = amiss.map(|name| format!("{name} stands at {} places", count(name)));
    let twice = declared.iter().enumerate().filter(|(place, name)| declared[..*place].contains(name));
    let unknown = called.iter().filter(|name| !declared.contains(&name.as_str()));
    amiss
        .chain(twice.map(|(_, name)| format!("{name} is declared twice")))
        .chain(unknown.map(|name| format!("{name} is not declared")))
        .collect()
}

#[test]
fn every_kill_point_stands_at_one_place() {
    hold(
        "kill points are those of KILL_POINTS in runtime/env/src/sabotage.rs",
        &offences(KILL_POINTS, &called("kill_point")),
    );
    assert!(KILL_POINTS.len() >= 30, "at least 30 kill points are promised");
}

#[test]
fn every_planted_bug_stands_somewhere() {
    let declared: Vec<&str> = PLANTED_BUGS.iter().map(|(name, _)| *name).collect();
    let mut called = called("planted");
    called.sort_unstable();
    called.dedup();
    hold("planted bugs are those of PLANTED_BUGS in runtime/env/src/sabotage.rs", &offences(&declared, &called));
}
