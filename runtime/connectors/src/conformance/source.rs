use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wasmill_contract::{BatchLimit, Source, SourceEvent, SourceFactory};
use wasmill_env::Clock;
use wasmill_model::{Epoch, PartitionId, Position};

/// A source to check.
pub struct SourceCase<'a> {
    /// Makes the source, configured to give the same events every time.
    pub make: &'a dyn Fn() -> Arc<dyn SourceFactory>,
    /// The clock it gets. Where the source waits for time to pass, a clock that does.
    pub clock: Arc<dyn Clock>,
    /// How many events to look at of a source that does not end; `None` reads to the end.
    pub rows: Option<usize>,
}

/// What a source gave: for each partition offset and value of each row, in order. Malformed records
/// count, with their reason in place of the value.
type Read = BTreeMap<PartitionId, Vec<(u64, Vec<u8>)>>;
type Assigned = Vec<(PartitionId, Option<Position>)>;

const LARGE: BatchLimit = BatchLimit { rows: 4_096, bytes: 1 << 20 };
const SMALL: BatchLimit = BatchLimit { rows: 3, bytes: 40 };

/// Checks that a source keeps its contract:
/// - batches are not empty, keep their limits (also when those change), and carry a lineage;
/// - every partition ends once, none gives rows after that, and the end comes last;
/// - dropping a call of `next` loses nothing;
/// - read twice it gives the same, and read from the position behind any batch, the rest;
/// - readers of some partitions together give what a reader of all does;
/// - it takes acknowledgements of rising epochs.
///
/// # Panics
/// Where it does not.
pub async fn check_source(case: SourceCase<'_>) {
    let whole = read(&case, None, |_| LARGE).await;
    let changing = read(&case, None, |batch| if batch % 2 == 0 { LARGE } else { SMALL }).await;
    assert_eq!(changing.0, whole.0, "batches of changing size give the same rows");
    check_source_ahead(case).await;
}

/// [`check_source`] for a source that reads ahead: it gives batches under the limit of an earlier
/// call, so the limit does not change here.
///
/// # Panics
/// Where it does not keep its contract.
pub async fn check_source_ahead(case: SourceCase<'_>) {
    let whole = read(&case, None, |_| LARGE).await;
    let small = read(&case, None, |_| SMALL).await;
    assert_eq!(small.0, whole.0, "small batches give the same rows as large ones");
    if !(case.make)().capabilities().replayable {
        return;
    }
    let (rows, positions) = small;
    let total = positions.len();
    // Every position of a short input, some of a long one.
    let step = (total / 40).max(1);
    for (seen, position) in positions.into_iter().step_by(step) {
        let rest = read(&case, Some(position.clone()), |_| LARGE).await.0;
        for (partition, all) in &rows {
            let seen = seen.get(partition).copied().unwrap_or(0);
            let rest = rest.get(partition).map_or(&[][..], Vec::as_slice);
            let expected = &all[seen..];
            let compared =
                if case.rows.is_some() { expected.len().min(rest.len()) } else { expected.len().max(rest.len()) };
            assert!(
                rest.get(..compared) == expected.get(..compared),
                "from {position:?} partition {partition:?} goes on behind row {seen}: {rest:?} is not {expected:?}"
            );
        }
    }
    let partitions = partitions(&case).await;
    if partitions.len() > 1 && case.rows.is_none() {
        let (first, second) = partitions.split_at(partitions.len() / 2);
        let mut together = read(&case, Some(first.to_vec()), |_| LARGE).await.0;
        together.extend(read(&case, Some(second.to_vec()), |_| LARGE).await.0);
        assert_eq!(together, whole.0, "two readers together give what one does");
    }
}

async fn partitions(case: &SourceCase<'_>) -> Assigned {
    let listed = (case.make)().partitions().await.expect("the partitions can be listed");
    let ids: BTreeSet<PartitionId> = listed.iter().map(|partition| partition.id).collect();
    assert_eq!(ids.len(), listed.len(), "partitions have different numbers");
    ids.into_iter().map(|id| (id, None)).collect()
}

/// Reads to the end, or `case.rows` rows. Also returns for each batch what positions followed it, and
/// how many rows of each partition were seen by then.
async fn read(
    case: &SourceCase<'_>,
    assigned: Option<Assigned>,
    limit_of: impl Fn(usize) -> BatchLimit,
) -> (Read, Vec<(BTreeMap<PartitionId, usize>, Assigned)>) {
    let factory = (case.make)();
    let assigned = match assigned {
        Some(assigned) => assigned,
        None => partitions(case).await,
    };
    let mut open: BTreeSet<PartitionId> = assigned.iter().map(|(id, _)| *id).collect();
    let mut source = factory.open(assigned, case.clock.clone()).await.expect("the source opens");
    let mut rows = Read::new();
    let mut positions = Vec::new();
    let mut count = 0;
    for turn in 0.. {
        if case.rows.is_some_and(|enough| count >= enough) {
            break;
        }
        let limit = limit_of(turn);
        match impatient_next(&mut *source, limit).await {
            SourceEvent::Rows(batch) => {
                assert!(!batch.is_empty(), "a batch is never empty");
                assert!(batch.len() <= limit.rows, "a batch of {} rows passes {limit:?}", batch.len());
                let before_last: usize = batch.values().iter().take(batch.len() - 1).map(<[u8]>::len).sum();
                assert!(before_last < limit.bytes.max(1), "a batch passes {limit:?} by more than one row");
                let lineage = batch.lineage().expect("rows have a lineage");
                assert!(open.contains(&lineage.partition), "rows are of an assigned partition that has not ended");
                let partition = rows.entry(lineage.partition).or_default();
                let pairs = lineage.offsets.iter().copied().zip(batch.values().iter().map(<[u8]>::to_vec));
                partition.extend(pairs);
                count += batch.len();
            }
            SourceEvent::Malformed { partition, offset, reason, .. } => {
                assert!(open.contains(&partition), "malformed records are of an assigned partition that has not ended");
                assert!(!reason.is_empty(), "a malformed record has a reason");
                rows.entry(partition).or_default().push((offset, reason.into_bytes()));
                count += 1;
            }
            SourceEvent::PartitionEnd(partition) => {
                assert!(open.remove(&partition), "partition {partition:?} ends once");
                continue;
            }
            SourceEvent::End => {
                assert!(open.is_empty(), "the source ends after its partitions, {open:?} have not");
                break;
            }
        }
        let seen = rows.iter().map(|(&id, rows)| (id, rows.len())).collect();
        let now = source.positions();
        source.acknowledge(Epoch(turn as u64 + 1), &now).await.expect("acknowledgements are taken");
        positions.push((seen, now.into_iter().map(|(id, at)| (id, Some(at))).collect()));
    }
    if let Some(enough) = case.rows {
        // Limits decide how far the last batch goes.
        let mut left = enough;
        for partition in rows.values_mut() {
            partition.truncate(left);
            left -= partition.len();
        }
    }
    (rows, positions)
}

/// Calls `next`, drops the call a few times while it waits, and then waits.
async fn impatient_next(source: &mut dyn Source, limit: BatchLimit) -> SourceEvent {
    for _ in 0..3 {
        tokio::select! {
            biased;
            event = source.next(limit) => return event.expect("the source reads"),
            () = tokio::task::yield_now() => {}
        }
    }
    source.next(limit).await.expect("the source reads")
}
