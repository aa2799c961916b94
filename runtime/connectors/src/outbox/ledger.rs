//! What waits to be delivered: the half that decides.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmill_model::{Batch, ColumnBuilder, Epoch};

/// Rows of one epoch that are delivered together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) epoch: Epoch,
    /// The index of the first row in its epoch.
    pub(super) index: u64,
    pub(super) rows: Batch,
}

/// A parcel ends where it has reached one of these.
const PARCEL_ROWS: usize = 16_384;
const PARCEL_BYTES: usize = 1 << 20;

/// Rows in order, from those being delivered to those just written.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Whole parcels, oldest first.
    parcels: VecDeque<Parcel>,
    /// Parcels in front that belong to durable epochs.
    committed: usize,
    committed_rows: usize,
    committed_bytes: usize,
    /// Rows of the epoch under way that fill no parcel yet.
    open: Vec<Batch>,
    open_rows: usize,
    open_bytes: usize,
    /// The epoch under way. Unknown until the first [`Ledger::prepare`]: parcels made before it have
    /// the epoch 0 until then.
    prepared: Epoch,
    /// The index of the next row.
    next_index: u64,
}

impl Ledger {
    /// What a durable handle held.
    pub(super) fn recovered(parcels: Vec<Parcel>) -> Self {
        let mut ledger = Self { parcels: parcels.into(), ..Self::default() };
        ledger.prepared = ledger.parcels.back().map_or(Epoch(0), |parcel| parcel.epoch);
        ledger.commit(ledger.prepared);
        ledger
    }

    /// Rows and bytes of durable epochs that are not delivered.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.committed_rows, self.committed_bytes)
    }

    pub(super) fn write(&mut self, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        self.open_rows += batch.len();
        self.open_bytes += batch.byte_len();
        self.open.push(batch.clone());
        if self.open_rows >= PARCEL_ROWS || self.open_bytes >= PARCEL_BYTES {
            self.close_parcel();
        }
    }

    fn close_parcel(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let rows = concatenated(std::mem::take(&mut self.open));
        let index = self.next_index;
        self.next_index += rows.len() as u64;
        (self.open_rows, self.open_bytes) = (0, 0);
        self.parcels.push_back(Parcel { epoch: Epoch(0), index, rows });
    }

    /// Ends the epoch under way. What is not delivered is what a crash must not lose.
    pub(super) fn prepare(&mut self, epoch: Epoch) -> impl Iterator<Item = &Parcel> {
        self.close_parcel();
        for parcel in self.parcels.iter_mut().rev().take_while(|parcel| parcel.epoch == Epoch(0)) {
            parcel.epoch = epoch;
        }
        (self.prepared, self.next_index) = (epoch, 0);
        self.parcels.iter()
    }

    /// Epochs up to this one are durable. Returns whether that gives something to deliver.
    pub(super) fn commit(&mut self, epoch: Epoch) -> bool {
        let before = self.committed;
        while let Some(parcel) = self.parcels.get(self.committed)
            && parcel.epoch != Epoch(0)
            && parcel.epoch <= epoch
        {
            self.committed += 1;
            self.committed_rows += parcel.rows.len();
            self.committed_bytes += parcel.rows.byte_len();
        }
        self.committed > before
    }

    /// What is to be delivered next. It stays until [`Ledger::delivered`].
    pub(super) fn next(&self) -> Option<&Parcel> {
        self.parcels.front().filter(|_| self.committed > 0)
    }

    /// The target has the parcel that [`Ledger::next`] gave.
    pub(super) fn delivered(&mut self) {
        if self.committed > 0
            && let Some(parcel) = self.parcels.pop_front()
        {
            self.committed -= 1;
            self.committed_rows -= parcel.rows.len();
            self.committed_bytes -= parcel.rows.byte_len();
        }
    }
}

/// One batch of all rows, without their lineage.
fn concatenated(mut batches: Vec<Batch>) -> Batch {
    if let [_] = *batches
        && let Some(only) = batches.pop()
    {
        return only.with_lineage(None);
    }
    let rows = batches.iter().map(Batch::len).sum();
    let mut times = Vec::with_capacity(rows);
    let bytes = |column: fn(&Batch) -> usize| batches.iter().map(column).sum();
    let mut keys = ColumnBuilder::with_capacity(rows, bytes(|batch| batch.keys().data().len()));
    let mut values = ColumnBuilder::with_capacity(rows, bytes(|batch| batch.values().data().len()));
    let with_headers = batches.iter().any(|batch| batch.headers().is_some());
    let mut headers = ColumnBuilder::default();
    for batch in &batches {
        times.extend_from_slice(batch.times());
        batch.keys().iter().for_each(|key| keys.push(key));
        batch.values().iter().for_each(|value| values.push(value));
        if with_headers {
            match batch.headers() {
                Some(column) => column.iter().for_each(|row| headers.push(row)),
                None => (0..batch.len()).for_each(|_| headers.push(b"")),
            }
        }
    }
    let arrived = batches.iter().map(Batch::arrived_nanos).min().unwrap_or(0);
    Batch::new(Arc::new(times), Arc::new(keys.finish()), Arc::new(values.finish()), arrived)
        .with_headers(with_headers.then(|| Arc::new(headers.finish())))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use wasmill_model::{BatchBuilder, Timestamp};

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, usize),
        Prepare,
        Commit,
        Deliver,
        Crash,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..4_usize, prop_oneof![9 => 1..20_usize, 1 => Just(PARCEL_ROWS)]).prop_map(|(batches, rows)| Step::Write(batches, rows)),
            3 => Just(Step::Prepare),
            3 => Just(Step::Commit),
            4 => Just(Step::Deliver),
            1 => Just(Step::Crash),
        ]
    }

    fn batch(first: u64, rows: usize) -> Batch {
        let mut builder = BatchBuilder::default();
        for row in 0..rows as u64 {
            builder.push(Timestamp(0), b"k", &(first + row).to_le_bytes());
        }
        builder.finish(0)
    }

    /// Drops ids it has seen.
    #[derive(Default)]
    struct Target {
        ids: HashMap<(u64, u64), u64>,
        rows: Vec<u64>,
    }

    impl Target {
        fn take(&mut self, Parcel { epoch, index, rows }: &Parcel) {
            for (row, index) in rows.values().iter().zip(*index..) {
                let value = u64::from_le_bytes(row.try_into().expect("8 bytes"));
                match self.ids.insert((epoch.0, index), value) {
                    Some(known) => assert_eq!(known, value, "an id names one row"),
                    None => self.rows.push(value),
                }
            }
        }
    }

    proptest! {
        /// A target that drops ids it has seen ends up with the rows of durable epochs, once and in
        /// order, whatever dies when.
        #[test]
        fn rows_of_durable_epochs_arrive_once_and_in_order(steps in proptest::collection::vec(step(), 1..60)) {
            let mut ledger = Ledger::default();
            let (mut epoch, mut durable_epoch) = (0, 0);
            // Rows of each epoch, by the naive model.
            let mut written: Vec<Vec<u64>> = vec![Vec::new()];
            let mut handles: Vec<Vec<Parcel>> = vec![Vec::new()];
            let mut durable: Vec<u64> = Vec::new();
            let mut target = Target::default();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Write(batches, rows) => for _ in 0..batches {
                        ledger.write(&batch(next, rows));
                        written.last_mut().expect("an epoch").extend(next..next + rows as u64);
                        next += rows as u64;
                    },
                    Step::Prepare => {
                        epoch += 1;
                        handles.push(ledger.prepare(Epoch(epoch)).cloned().collect());
                        written.push(Vec::new());
                    }
                    Step::Commit if durable_epoch < epoch => {
                        durable.extend(&written[durable_epoch as usize]);
                        durable_epoch += 1;
                        ledger.commit(Epoch(durable_epoch));
                        prop_assert!(!ledger.commit(Epoch(durable_epoch)));
                    }
                    Step::Commit => {}
                    Step::Deliver => if let Some(parcel) = ledger.next() {
                        target.take(parcel);
                        ledger.delivered();
                    },
                    Step::Crash => {
                        ledger = Ledger::recovered(handles[durable_epoch as usize].clone());
                        epoch = durable_epoch;
                        handles.truncate(epoch as usize + 1);
                        written.truncate(epoch as usize);
                        written.push(Vec::new());
                    }
                }
                prop_assert!(durable.starts_with(&target.rows));
                let waiting = ledger.parcels.iter().take(ledger.committed);
                prop_assert_eq!(ledger.waiting().0, waiting.map(|parcel| parcel.rows.len()).sum::<usize>());
            }
            while let Some(parcel) = ledger.next() {
                target.take(parcel);
                ledger.delivered();
            }
            prop_assert_eq!(target.rows, durable);
        }
    }
}
