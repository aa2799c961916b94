//! The import table: imports point down, and crates of one row do not know each other.

use cargo_metadata::Package;

use crate::workspace::{hold, members, root};

/// Crates of `runtime/`, the lowest row first. See `docs/architecture.md`.
const ROWS: [&[&str]; 7] = [
    &["model", "scan"],
    &["env"],
    &["spec", "order", "store", "tenancy"],
    &["plan", "contract"],
    &["engine", "wasm", "connectors", "toolchain"],
    &["control"],
    &["cli"],
];

/// Libraries that few may know, and who.
const RESERVED: [(&[&str], &[&str]); 2] = [
    (&["wasmtime", "wasmtime-wasi"], &["wasm", "cli"]),
    (
        &["rdkafka", "async-nats", "redis", "tokio-postgres", "reqwest", "hyper", "rumqttc", "object_store"],
        &["connectors", "control", "cli"],
    ),
];

fn row(krate: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&krate))
}

/// A crate of `runtime/` by the name of its package.
fn krate(package: &str) -> Option<&str> {
    if package == "wasmill" { Some("cli") } else { package.strip_prefix("wasmill-").filter(|name| row(name).is_some()) }
}

fn runtime() -> Vec<Package> {
    let folder = root().join("runtime");
    let members = members("Cargo.toml").expect("the host's workspace");
    members.into_iter().filter(|package| package.manifest_path.as_std_path().starts_with(&folder)).collect()
}

/// What is wrong with `from` depending on `on`.
fn offence(from: &str, on: &str) -> Option<String> {
    let (Some(above), Some(below)) = (row(from), row(on)) else { return None };
    match above.cmp(&below) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some(format!("{from} knows {on}, of its own row")),
        std::cmp::Ordering::Less => Some(format!("{from} knows {on}, of a row above")),
    }
}

#[test]
fn imports_point_down() {
    let mut offences = Vec::new();
    for package in runtime() {
        let Some(from) = krate(&package.name) else {
            offences.push(format!("{} has no row in the table", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            match krate(&dependency.name) {
                Some(on) => offences.extend(offence(from, on)),
                None if dependency.path.is_some() => {
                    offences.push(format!("{from} knows {}, which is not of runtime/", dependency.name));
                }
                None => {}
            }
        }
    }
    hold("crates may know those of lower rows only", &offences);
}

#[test]
fn reserved_libraries_stay_with_their_owners() {
    let mut offences = Vec::new();
    for package in runtime() {
        let from = krate(&package.name).unwrap_or(&package.name);
        for dependency in &package.dependencies {
            for (libraries, owners) in RESERVED {
                if libraries.contains(&dependency.name.as_str()) && !owners.contains(&from) {
                    offences.push(format!("{from} knows {}; only {} may", dependency.name, owners.join(" and ")));
                }
            }
        }
    }
    hold("some libraries are reserved", &offences);
}

#[test]
fn table_refuses_rows_above_and_beside() {
    assert_eq!(offence("engine", "contract"), None);
    assert!(offence("engine", "wasm").is_some());
    assert!(offence("toolchain", "wasm").is_some());
    assert!(offence("model", "env").is_some());
    assert_eq!(krate("wasmill"), Some("cli"));
    assert_eq!(krate("wasmill-tidy"), None);
}
