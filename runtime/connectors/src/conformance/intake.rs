use std::sync::Arc;

use wasmill_contract::{BatchLimit, BoxFuture, Source, SourceEvent, SourceFactory};
use wasmill_env::Clock;
use wasmill_model::{Epoch, PartitionId, Position};

/// What became of rows that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// They were taken, or are on their way.
    Taken,
    /// The sender was told to come again.
    Refused,
}

/// A source that takes rows in from senders, to check.
pub struct IntakeCase<'a> {
    /// Makes the source, always with the same state. It has room for 64 KiB.
    pub make: &'a dyn Fn() -> Arc<dyn SourceFactory>,
    /// Sends rows to a location, in order, and waits until they are taken or refused; until they
    /// have left, where nobody answers.
    pub send: &'a dyn Fn(String, Vec<Vec<u8>>) -> BoxFuture<'static, Sent>,
    /// Whether a sender hears that its rows are durable.
    pub answers: bool,
    /// The clock it gets: one that moves.
    pub clock: Arc<dyn Clock>,
}

const LIMIT: BatchLimit = BatchLimit { rows: 3, bytes: 1 << 20 };
const PARTITION: PartitionId = PartitionId(0);

/// Checks that a source that takes rows in keeps its contract:
/// - rows come in the order in which they were sent, with rising offsets;
/// - where it is replayable, rows that were taken come again from any position that was not
///   acknowledged, and those before it may be gone;
/// - acknowledgements make room: what a sender may leave behind unread is bounded, whoever sends more
///   is held or dropped, which is counted, and rows are taken again once those before are committed.
///
/// # Panics
/// Where it does not.
pub async fn check_intake(case: IntakeCase<'_>) {
    let rows = |from: usize, to: usize| -> Vec<Vec<u8>> {
        (from..to).map(|row| format!("{{\"row\":{row}}}").into_bytes()).collect()
    };
    let replayable = (case.make)().capabilities().replayable;
    let mut source = open(&case, None).await;
    let first = send(&case, &*source, rows(0, 20));
    let mut position = None;
    let mut given = 0;
    while given < 20 {
        let before = given;
        let batch = next(&mut *source).await;
        assert!(batch.len() <= LIMIT.rows, "a batch keeps its limit");
        given += batch.len();
        assert_eq!(batch, rows(before, given), "rows come as they were sent");
        if position.is_none() && given >= 10 {
            let now = source.positions();
            source.acknowledge(Epoch(1), &now).await.expect("acknowledgements are taken");
            position = Some((now, given));
        }
    }
    assert_eq!(first.await.expect("the sender is well"), Sent::Taken);
    if replayable {
        // What was not acknowledged comes again, and then what comes new.
        let (positions, seen) = position.expect("ten rows were given");
        drop(source);
        source = open(&case, positions.into_iter().next().map(|(_, position)| position)).await;
        let more = send(&case, &*source, rows(20, 30));
        let mut again = Vec::new();
        while again.len() < 30 - seen {
            again.extend(next(&mut *source).await);
        }
        assert_eq!(again, rows(seen, 30), "rows that were not acknowledged come again, in order");
        assert_eq!(more.await.expect("the sender is well"), Sent::Taken);
        let now = source.positions();
        source.acknowledge(Epoch(2), &now).await.expect("acknowledgements are taken");
    }
    backpressure(&case, source).await;
}

/// Nobody reads: rows stop being taken, and that is counted.
async fn backpressure(case: &IntakeCase<'_>, mut source: Box<dyn Source>) {
    let piece = vec![vec![b'7'; 1_000]; 8];
    let mut sends = Vec::new();
    let counted = |source: &dyn Source| source.counts().held + source.counts().dropped;
    while counted(&*source) == 0 {
        assert!(sends.len() < 100_000, "what may wait unread is bounded");
        let sent = send(case, &*source, piece.clone());
        if (case.make)().capabilities().replayable || !case.answers {
            sends.push(sent.await.expect("the sender is well"));
        } else {
            // Without a log the answer comes when the job takes the rows.
            tokio::spawn(sent);
            sends.push(Sent::Taken);
        }
        tokio::task::yield_now().await;
    }
    // What waits is worked off and committed.
    let mut epoch = 3;
    while let Some(()) = some(&mut *source).await {
        let now = source.positions();
        source.acknowledge(Epoch(epoch), &now).await.expect("acknowledgements are taken");
        epoch += 1;
    }
    let marked = vec![b"\"after\"".to_vec()];
    let sent = send(case, &*source, marked.clone());
    loop {
        let batch = next(&mut *source).await;
        let now = source.positions();
        source.acknowledge(Epoch(epoch), &now).await.expect("acknowledgements are taken");
        epoch += 1;
        if batch.contains(&marked[0]) {
            break;
        }
    }
    assert_eq!(sent.await.expect("the sender is well"), Sent::Taken, "there is room again");
}

async fn open(case: &IntakeCase<'_>, from: Option<Position>) -> Box<dyn Source> {
    let opened = (case.make)().open(vec![(PARTITION, from)], Arc::clone(&case.clock)).await;
    opened.expect("the source opens")
}

fn send(case: &IntakeCase<'_>, source: &dyn Source, rows: Vec<Vec<u8>>) -> tokio::task::JoinHandle<Sent> {
    let location = source.location().expect("it says where it is");
    tokio::spawn((case.send)(location, rows))
}

/// The next rows. A call that waits is dropped a few times first.
async fn next(source: &mut dyn Source) -> Vec<Vec<u8>> {
    let mut dropped = 0;
    let event = loop {
        tokio::select! {
            biased;
            event = source.next(LIMIT) => break event,
            () = tokio::task::yield_now(), if dropped < 3 => dropped += 1,
        }
    };
    match event.expect("the source reads") {
        SourceEvent::Rows(batch) => {
            let lineage = batch.lineage().expect("rows have a lineage");
            assert!(lineage.offsets.windows(2).all(|pair| pair[0] < pair[1]), "offsets rise");
            batch.values().iter().map(<[u8]>::to_vec).collect()
        }
        event => panic!("rows were expected, not {event:?}"),
    }
}

/// Takes rows if there are any at once.
async fn some(source: &mut dyn Source) -> Option<()> {
    for _ in 0..20 {
        tokio::select! {
            biased;
            event = source.next(BatchLimit { rows: 4_096, bytes: 1 << 20 }) => {
                event.expect("the source reads");
                return Some(());
            }
            () = tokio::task::yield_now() => {}
        }
    }
    None
}
