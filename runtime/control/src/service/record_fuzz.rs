//! Records of a service, changed, under a right checksum: read, or refused in words.

use std::io;
use std::path::Path;

use serde_json::json;
use wasmill_env::SimulatedDisk;

use super::*;
use crate::service::fuzz_driver::{fuzz, mutated};

const WORDS: &[&str] = &[
    "null",
    "true",
    "[[[[",
    "{\"a\":",
    "1e308",
    "-1",
    "18446744073709551616",
    "\"\"",
    "\"../x\"",
    "\\ud800",
    "\u{0}",
    "\u{1b}",
    "sha256:",
    "\"jobs\":{}",
    "\"tags\":",
    ",",
    "}",
    "]",
];

/// A tenant that has one of everything, and a job, as they stand on disk.
fn corpus() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let token = json!({"id": "00", "name": "t", "hash": "00", "scopes": ["read"], "created": 0, "expires": null});
    let plugin = json!({"bytes": 1, "pushed": 2, "name": "count", "version": null, "signatures": ["11"]});
    let tenant = json!({
        "name": "acme", "created": 1, "budget": Budget::default(), "egress": Egress::default(),
        "signers": {"ci": "11".repeat(32)}, "tokens": {"00": token}, "plugins": {(digest.clone()): plugin},
        "tags": {"count:1.0": digest, "oci://a.org/b@sha256:00": digest}, "usage": Usage::default(),
    });
    let job = json!({
        "text": "name = \"job\"", "desired": "running", "pins": {"count": digest},
        "reserved": Reserved::default(), "deployed": 5, "revision": 1, "swapped": {"work": digest},
        "allow_dropped": true, "next": {
            "text": "name = \"job\"", "pins": {}, "reserved": Reserved::default(), "deployed": 6, "allow_dropped": false,
        },
    });
    let service = json!({"tokens": {"00": token}});
    [("t", tenant), ("j", job), ("s", service)].map(|(kind, value)| format!("{kind}{value}").into_bytes()).to_vec()
}

fn read_all(input: &[u8]) -> io::Result<bool> {
    let dir = Path::new("/d");
    let disk = SimulatedDisk::default();
    disk.create_dir_all(&dir.join(JOBS)).expect("made");
    let Some((kind, body)) = input.split_first() else { return Ok(false) };
    let put = |path: &Path, kind: &str, body: &[u8]| {
        let head = format!("{kind} {VERSION} {}\n", blake3::hash(body).to_hex());
        keep(&disk, path, &[head.as_bytes(), body].concat()).expect("written");
    };
    match kind {
        b's' => {
            put(&ServiceRecord::path(dir), ServiceRecord::KIND, body);
            ServiceRecord::read(&disk, dir).map(|record| record.is_some())
        }
        b'j' => {
            let job = JobName::new("job").expect("a name");
            put(&JobRecord::path(dir, &job), JobRecord::KIND, body);
            read::<JobRecord>(&disk, &JobRecord::path(dir, &job), JobRecord::KIND).map(|record| record.is_some())
        }
        b't' => {
            put(&TenantRecord::path(dir), TenantRecord::KIND, body);
            let Some(record) = TenantRecord::read(&disk, dir)? else { return Ok(false) };
            // It is kept as it was read.
            record.keep(None, &disk, dir)?;
            assert_eq!(TenantRecord::read(&disk, dir)?.as_ref(), Some(&record));
            Ok(true)
        }
        _ => {
            // No header that is any.
            keep(&disk, &ServiceRecord::path(dir), input)?;
            ServiceRecord::read(&disk, dir).map(|record| record.is_some())
        }
    }
}

#[test]
fn records() {
    let corpus = corpus();
    for whole in &corpus {
        assert!(read_all(whole).expect("reads"), "{}", String::from_utf8_lossy(whole));
    }
    fuzz(
        "records",
        3_000,
        |random| mutated(random, &corpus, WORDS),
        |input| match read_all(input) {
            Ok(taken) => taken,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                false
            }
        },
    );
}
