use std::path::Path;
use std::sync::Arc;

use wasmill_contract::{BatchLimit, Source, SourceEvent, SourceFactory};
use wasmill_env::{Clock, RealClock};
use wasmill_model::PartitionId;
use wasmill_spec::{Backpressure, ByteSize, Policy};

use crate::Site;
use crate::conformance::{SourceCase, check_source_ahead};

const LIMIT: BatchLimit = BatchLimit { rows: 64, bytes: 4_096 };

/// A file of so many lines, read with a policy.
fn source(dir: &Path, lines: usize, policy: Policy, bytes: u64, disk: u64) -> Arc<dyn SourceFactory> {
    let text: String =
        (0..lines).map(|line| format!("{{\"n\":{line},\"text\":\"{}\"}}\n", "x".repeat(line % 90))).collect();
    std::fs::write(dir.join("in.jsonl"), text).expect("written");
    let backpressure = Backpressure { policy, bytes: ByteSize::from_bytes(bytes), disk: ByteSize::from_bytes(disk) };
    let site = Site { backpressure, ..Site::alone(dir) };
    let options = "path = 'in.jsonl'".parse().expect("valid TOML");
    crate::source("file", options, &site).expect("valid options")
}

async fn open(factory: &dyn SourceFactory) -> Box<dyn Source> {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
    factory.open(vec![(PartitionId(0), None)], clock).await.expect("opens")
}

/// Reads to the end: offsets of all rows.
async fn rest(source: &mut dyn Source) -> Vec<u64> {
    let mut offsets = Vec::new();
    loop {
        match source.next(LIMIT).await.expect("reads") {
            SourceEvent::Rows(batch) => offsets.extend(batch.lineage().expect("a lineage").offsets.iter()),
            SourceEvent::End => return offsets,
            SourceEvent::PartitionEnd(_) => {}
            event @ SourceEvent::Malformed { .. } => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn a_source_that_is_read_ahead_keeps_its_contract() {
    for policy in [Policy::Spill, Policy::DropOldest, Policy::DropNewest] {
        let dir = tempfile::tempdir().expect("a folder");
        // Bounds that hold everything, so that nothing is dropped; with spill, nearly nothing.
        let bytes = if policy == Policy::Spill { 700 } else { 1 << 20 };
        let case = SourceCase {
            make: &|| source(dir.path(), 300, policy, bytes, 9_000),
            clock: Arc::new(RealClock::default()),
            rows: None,
        };
        check_source_ahead(case).await;
    }
}

#[tokio::test]
async fn every_row_is_given_or_counted_as_dropped() {
    for policy in [Policy::DropOldest, Policy::DropNewest, Policy::Spill] {
        let dir = tempfile::tempdir().expect("a folder");
        let factory = source(dir.path(), 5_000, policy, 20_000, 30_000);
        let mut reader = open(&*factory).await;
        // One batch, and then nothing for as long as the source may take to fill all bounds.
        let first = match reader.next(LIMIT).await.expect("reads") {
            SourceEvent::Rows(batch) => batch.len() as u64,
            event => panic!("{event:?}"),
        };
        let mut counts = reader.counts();
        while counts.dropped + counts.spilled == 0 {
            tokio::task::yield_now().await;
            counts = reader.counts();
        }
        let offsets = rest(&mut *reader).await;
        let counts = reader.counts();
        assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "{policy}: in order");
        assert_eq!(first + offsets.len() as u64 + counts.dropped, 5_000, "{policy}");
        match policy {
            Policy::Spill => assert!(counts.dropped == 0 && counts.spilled > 0, "{counts:?}"),
            Policy::DropNewest | Policy::DropOldest | Policy::Block => assert!(counts.dropped > 0, "{counts:?}"),
        }
    }
}
