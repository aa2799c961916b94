use std::sync::Arc;

use wasmill_contract::{Share, Sink, SinkFactory, SinkHandle};
use wasmill_env::Clock;
use wasmill_model::{Batch, BatchBuilder, Epoch, Timestamp, Visibility};

/// A sink to check.
pub struct SinkCase<'a> {
    /// Makes the sink, always for the same target.
    pub make: &'a dyn Fn() -> Arc<dyn SinkFactory>,
    /// What a reader of committed rows sees in the target now, in order.
    pub visible: &'a dyn Fn() -> Vec<Vec<u8>>,
    /// Empties the target.
    pub reset: &'a dyn Fn(),
    /// The clock it gets.
    pub clock: Arc<dyn Clock>,
    /// Rows of each epoch.
    pub rows: usize,
}

/// Where a run dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// Rows of the epoch are written.
    Written,
    /// It is prepared, and the epoch was not committed.
    PreparedInVain,
    /// It is prepared and the epoch is durable, but the sink has not heard of it.
    Prepared,
    /// The sink has committed.
    Committed,
}

const EPOCHS: u64 = 4;

/// Checks that a sink keeps its contract:
/// - a run gives every row once, in order;
/// - rows are visible after the commit of their epoch only;
/// - preparing the next epoch before committing this one changes nothing, nor does committing twice,
///   nor an epoch without rows;
/// - a run that dies anywhere and goes on from its last durable handle gives the same rows as one
///   that does not, also where it dies after its last commit.
///
/// A sink that shows rows at once has to pass the first only.
///
/// # Panics
/// Where it does not.
pub async fn check_sink(case: SinkCase<'_>) {
    let every: Vec<Vec<u8>> = (1..=EPOCHS).flat_map(|epoch| rows(&case, epoch)).collect();
    (case.reset)();
    let mut sink = open(&case, None).await;
    run(&case, &mut *sink, 1).await;
    drop(sink);
    assert_eq!((case.visible)(), every, "a whole run gives every row once, in order");
    if !transactional(&case) {
        return;
    }
    overlapping_epochs(&case).await;
    for epoch in 1..=EPOCHS {
        for death in [Death::Written, Death::PreparedInVain, Death::Prepared, Death::Committed] {
            (case.reset)();
            let handle = run_until(&case, epoch, death).await;
            let durable = match death {
                Death::Written | Death::PreparedInVain => epoch - 1,
                Death::Prepared | Death::Committed => epoch,
            };
            check_visible(&case, durable);
            let mut sink = open(&case, handle).await;
            check_visible(&case, durable);
            run(&case, &mut *sink, durable + 1).await;
            drop(sink);
            assert_eq!((case.visible)(), every, "a run that died in epoch {epoch} ({death:?}) gives every row once");
        }
    }
}

fn transactional(case: &SinkCase<'_>) -> bool {
    (case.make)().capabilities().visibility != Visibility::AtOnce
}

async fn open(case: &SinkCase<'_>, handle: Option<SinkHandle>) -> Box<dyn Sink> {
    (case.make)().open(Share::WHOLE, handle, case.clock.clone()).await.expect("the sink opens")
}

fn rows(case: &SinkCase<'_>, epoch: u64) -> Vec<Vec<u8>> {
    (0..case.rows).map(|row| format!("epoch {epoch} row {row}").into_bytes()).collect()
}

fn batches(case: &SinkCase<'_>, epoch: u64) -> Vec<Batch> {
    rows(case, epoch)
        .chunks(7)
        .map(|rows| {
            let mut batch = BatchBuilder::default();
            for row in rows {
                batch.push(Timestamp(0), b"key", row);
            }
            batch.finish(0)
        })
        .collect()
}

/// No row of an epoch behind `durable` may be seen, and none out of order.
fn check_visible(case: &SinkCase<'_>, durable: u64) {
    let allowed: Vec<Vec<u8>> = (1..=durable).flat_map(|epoch| rows(case, epoch)).collect();
    let visible = (case.visible)();
    assert!(
        allowed.starts_with(&visible),
        "after epoch {durable} a reader sees {} rows that are not the first of {} committed ones",
        visible.len(),
        allowed.len()
    );
}

async fn write(case: &SinkCase<'_>, sink: &mut dyn Sink, epoch: u64) {
    for batch in batches(case, epoch) {
        sink.write(&batch).await.expect("rows are taken");
    }
}

/// Runs the epochs from `first` on to the end.
async fn run(case: &SinkCase<'_>, sink: &mut dyn Sink, first: u64) {
    let transactional = transactional(case);
    for epoch in first..=EPOCHS {
        write(case, sink, epoch).await;
        let check = || transactional.then(|| check_visible(case, epoch - 1));
        check();
        sink.prepare(Epoch(epoch)).await.expect("prepares");
        check();
        sink.commit(Epoch(epoch), false).await.expect("commits");
    }
    // The last epoch has no rows, and is committed twice.
    let last = Epoch(EPOCHS + 1);
    sink.prepare(last).await.expect("prepares an empty epoch");
    sink.commit(last, true).await.expect("commits the last epoch");
    sink.commit(last, true).await.expect("commits the last epoch again");
}

/// Runs until `death` in `epoch`. Returns the last durable handle.
async fn run_until(case: &SinkCase<'_>, epoch: u64, death: Death) -> Option<SinkHandle> {
    let mut sink = open(case, None).await;
    let mut durable = None;
    for now in 1..=epoch {
        write(case, &mut *sink, now).await;
        if now == epoch && death == Death::Written {
            break;
        }
        let handle = sink.prepare(Epoch(now)).await.expect("prepares");
        if now == epoch && death == Death::PreparedInVain {
            break;
        }
        durable = Some(handle);
        if now == epoch && death == Death::Prepared {
            break;
        }
        sink.commit(Epoch(now), now == EPOCHS).await.expect("commits");
    }
    durable
}

async fn overlapping_epochs(case: &SinkCase<'_>) {
    (case.reset)();
    let mut sink = open(case, None).await;
    write(case, &mut *sink, 1).await;
    sink.prepare(Epoch(1)).await.expect("prepares");
    for epoch in 2..=EPOCHS {
        write(case, &mut *sink, epoch).await;
        let handle = sink.prepare(Epoch(epoch)).await.expect("prepares");
        check_visible(case, epoch - 2);
        sink.commit(Epoch(epoch - 1), false).await.expect("commits");
        sink.commit(Epoch(epoch - 1), false).await.expect("commits again");
        check_visible(case, epoch - 1);
        drop(handle);
    }
    sink.commit(Epoch(EPOCHS), true).await.expect("commits the last epoch");
    let every: Vec<Vec<u8>> = (1..=EPOCHS).flat_map(|epoch| rows(case, epoch)).collect();
    assert_eq!((case.visible)(), every, "epochs that overlap give every row once, in order");
}
