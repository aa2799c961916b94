//! Rules over what others wrote. `cargo deny` checks more where it is installed; these always run.

use std::collections::BTreeSet;
use std::fs;

use crate::workspace::{WORKSPACES, hold, members, packages, root};

/// Licences that go with Apache-2.0 in one program. `deny.toml` has the same list.
const LICENCES: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

fn allowed(licence: &str) -> bool {
    // Old manifests write a slash for OR.
    let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX);
    expression
        .is_ok_and(|expression| expression.evaluate(|requirement| LICENCES.contains(&requirement.to_string().as_str())))
}

#[test]
fn every_licence_is_allowed() {
    let mut offences = BTreeSet::new();
    for package in WORKSPACES.iter().filter_map(|manifest| packages(manifest)).flatten() {
        let licence = package.license.unwrap_or_default();
        if !allowed(&licence) {
            offences.insert(format!("{} {}: {licence:?}", package.name, package.version));
        }
    }
    hold("licences not on the list", &Vec::from_iter(offences));
}

#[test]
fn deny_file_has_the_same_licences() {
    let text = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let missing = LICENCES.into_iter().filter(|licence| !text.contains(&format!("\"{licence}\"")));
    hold("licences missing in deny.toml", &missing.map(String::from).collect::<Vec<_>>());
}

#[test]
fn packages_come_from_the_registry_or_from_here() {
    let mut offences = BTreeSet::new();
    for package in WORKSPACES.iter().filter_map(|manifest| packages(manifest)).flatten() {
        let foreign = package.source.filter(|source| !source.is_crates_io());
        offences.extend(foreign.map(|source| format!("{} from {source}", package.name)));
    }
    hold("packages from elsewhere", &Vec::from_iter(offences));
}

#[test]
fn every_direct_dependency_has_a_reason() {
    let path = root().join("docs/dependencies.md");
    let Ok(text) = fs::read_to_string(path) else { return };
    let reasons: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| {
            let (name, reason) = line.strip_prefix('|')?.split_once('|')?;
            (!reason.trim_matches(['|', ' ']).is_empty()).then_some(name.trim_matches([' ', '`']))
        })
        .collect();
    let mut offences = BTreeSet::new();
    for package in WORKSPACES.iter().filter_map(|manifest| members(manifest)).flatten() {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_none()) {
            if !reasons.contains(dependency.name.as_str()) {
                offences.insert(format!("{} (first seen in {})", dependency.name, package.name));
            }
        }
    }
    hold("direct dependencies without a line `| crate | reason |` in docs/dependencies.md", &Vec::from_iter(offences));
}

#[test]
fn licence_expressions_are_understood() {
    assert!(allowed("MIT OR Apache-2.0"));
    assert!(allowed("MIT/Apache-2.0"));
    assert!(allowed("Apache-2.0 WITH LLVM-exception"));
    assert!(allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!allowed("GPL-3.0-only"));
    assert!(!allowed("MIT AND GPL-2.0-only"));
    assert!(!allowed(""));
}
