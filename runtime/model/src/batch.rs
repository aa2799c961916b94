use std::ops::Range;
use std::sync::Arc;

use crate::{Bitmap, Column, ColumnBuilder, PaneKind, PartitionId, PluginDigest, Timestamp};

/// Where the rows of a batch came from: one partition of one source, one offset a row.
///
/// Rows that a window or a timer makes come from nowhere in particular and have no lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The partition, numbered within its source.
    pub partition: PartitionId,
    /// The offset of each row in its partition, as the connector counts (bytes, lines, records).
    pub offsets: Arc<Vec<u64>>,
}

/// The plugins that made the rows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Makers {
    /// One plugin made them all.
    One(PluginDigest),
    /// The maker of each row: lanes of a convoy, in which two versions run, are put together again.
    Each(Arc<Vec<Option<PluginDigest>>>),
}

impl Makers {
    fn gather(&self, rows: &[u32]) -> Self {
        match self {
            Self::One(maker) => Self::One(*maker),
            Self::Each(makers) => Self::Each(pick(makers, rows)),
        }
    }
}

/// Events side by side: one row an event, up to a few thousand.
///
/// Columns are shared: cloning a batch, fanning it out or replacing one column copies no row.
///
/// # Invariants
/// Every column has [`Batch::len`] rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    times: Arc<Vec<i64>>,
    keys: Arc<Column>,
    values: Arc<Column>,
    headers: Option<Arc<Column>>,
    lineage: Option<Lineage>,
    places: Option<Arc<Vec<u32>>>,
    makers: Option<Makers>,
    kinds: Option<Arc<Vec<PaneKind>>>,
    arrived_nanos: u64,
}

impl Batch {
    /// A batch of events without headers or lineage. Times are microseconds since the Unix epoch;
    /// `arrived_nanos` is the monotonic time at which its oldest event entered the host.
    ///
    /// # Panics
    /// Where the columns differ in length: a broken invariant of ours, never of a guest.
    #[must_use]
    pub fn new(times: Arc<Vec<i64>>, keys: Arc<Column>, values: Arc<Column>, arrived_nanos: u64) -> Self {
        assert!(
            times.len() == keys.len() && times.len() == values.len(),
            "columns of one batch differ: {} times, {} keys, {} values",
            times.len(),
            keys.len(),
            values.len()
        );
        Self {
            times,
            keys,
            values,
            headers: None,
            lineage: None,
            places: None,
            makers: None,
            kinds: None,
            arrived_nanos,
        }
    }

    /// The same batch with encoded headers, one row an event.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_headers(mut self, headers: Option<Arc<Column>>) -> Self {
        assert!(headers.as_ref().is_none_or(|h| h.len() == self.len()), "one header row an event");
        self.headers = headers;
        self
    }

    /// The same batch with a lineage.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_lineage(mut self, lineage: Option<Lineage>) -> Self {
        assert!(lineage.as_ref().is_none_or(|l| l.offsets.len() == self.len()), "one offset an event");
        self.lineage = lineage;
        self
    }

    /// The same batch with the place of each row in the batch that a convoy split.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_places(mut self, places: Option<Arc<Vec<u32>>>) -> Self {
        assert!(places.as_ref().is_none_or(|p| p.len() == self.len()), "one place an event");
        self.places = places;
        self
    }

    /// The same batch, made by a plugin. One call of one instance makes a batch.
    #[must_use]
    pub fn with_maker(self, maker: Option<PluginDigest>) -> Self {
        self.with_makers(maker.map(Makers::One))
    }

    /// The same batch, made by these plugins.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_makers(mut self, makers: Option<Makers>) -> Self {
        assert!(!matches!(&makers, Some(Makers::Each(each)) if each.len() != self.len()), "one maker an event");
        self.makers = makers;
        self
    }

    /// The plugins that made the rows; none of rows as a source read them.
    #[must_use]
    pub fn makers(&self) -> Option<&Makers> {
        self.makers.as_ref()
    }

    /// The plugin that made a row; none of one as a source read it.
    #[must_use]
    pub fn maker(&self, row: usize) -> Option<PluginDigest> {
        match self.makers.as_ref()? {
            Makers::One(maker) => Some(*maker),
            Makers::Each(makers) => makers[row],
        }
    }

    /// The same batch with what each row of a pane is.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_kinds(mut self, kinds: Option<Arc<Vec<PaneKind>>>) -> Self {
        assert!(kinds.as_ref().is_none_or(|kinds| kinds.len() == self.len()), "one kind an event");
        self.kinds = kinds;
        self
    }

    /// The same batch with other times.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_times(mut self, times: Arc<Vec<i64>>) -> Self {
        assert_eq!(times.len(), self.len(), "one time an event");
        self.times = times;
        self
    }

    /// The same batch with other keys.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_keys(mut self, keys: Arc<Column>) -> Self {
        assert_eq!(keys.len(), self.len(), "one key an event");
        self.keys = keys;
        self
    }

    /// The same batch with other values.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_values(mut self, values: Arc<Column>) -> Self {
        assert_eq!(values.len(), self.len(), "one value an event");
        self.values = values;
        self
    }

    /// How many events.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no event.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Event times in microseconds since the Unix epoch.
    #[must_use]
    #[inline]
    pub fn times(&self) -> &Arc<Vec<i64>> {
        &self.times
    }

    /// Keys; an event without one has the empty key.
    #[must_use]
    #[inline]
    pub fn keys(&self) -> &Arc<Column> {
        &self.keys
    }

    /// Values.
    #[must_use]
    #[inline]
    pub fn values(&self) -> &Arc<Column> {
        &self.values
    }

    /// Encoded headers, where the source has any.
    #[must_use]
    pub fn headers(&self) -> Option<&Arc<Column>> {
        self.headers.as_ref()
    }

    /// Where the rows came from, where they came from a source.
    #[must_use]
    pub fn lineage(&self) -> Option<&Lineage> {
        self.lineage.as_ref()
    }

    /// The place of each row in the batch that a convoy split, while it is in a lane.
    #[must_use]
    pub fn places(&self) -> Option<&Arc<Vec<u32>>> {
        self.places.as_ref()
    }

    /// What each row is, where they come from windows that fire more than once.
    #[must_use]
    pub fn kinds(&self) -> Option<&Arc<Vec<PaneKind>>> {
        self.kinds.as_ref()
    }

    /// Monotonic nanoseconds at which the oldest event entered the host.
    #[must_use]
    pub fn arrived_nanos(&self) -> u64 {
        self.arrived_nanos
    }

    /// The latest event time, [`Timestamp::MIN`] of an empty batch.
    #[must_use]
    pub fn time_max(&self) -> Timestamp {
        self.times.iter().copied().max().map_or(Timestamp::MIN, Timestamp)
    }

    /// Bytes this batch takes in a queue.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        8 * self.times.len()
            + self.keys.byte_len()
            + self.values.byte_len()
            + self.headers.as_ref().map_or(0, |h| h.byte_len())
            + self.lineage.as_ref().map_or(0, |l| 8 * l.offsets.len())
            + self.places.as_ref().map_or(0, |p| 4 * p.len())
            + self.kinds.as_ref().map_or(0, |kinds| kinds.len())
    }

    /// The rows named by `rows`, in that order, headers, lineage and kinds with them.
    ///
    /// # Panics
    /// Where a row does not exist.
    #[must_use]
    pub fn gather(&self, rows: &[u32]) -> Self {
        let keys = Arc::new(self.keys.gather(rows));
        let values = Arc::new(self.values.gather(rows));
        Self::new(pick(&self.times, rows), keys, values, self.arrived_nanos)
            .with_makers(self.makers.as_ref().map(|makers| makers.gather(rows)))
            .following(self, rows)
    }

    /// The same rows with what follows a row through every change of it: headers, lineage, places and kinds of the
    /// rows of `input` that they come from.
    ///
    /// # Panics
    /// Where there is not one origin a row, or an origin does not exist.
    #[must_use]
    pub fn following(mut self, input: &Self, origins: &[u32]) -> Self {
        assert_eq!(origins.len(), self.len(), "one origin an event");
        self.headers = input.headers.as_ref().map(|headers| Arc::new(headers.gather(origins)));
        self.lineage = (input.lineage.as_ref())
            .map(|from| Lineage { partition: from.partition, offsets: pick(&from.offsets, origins) });
        self.places = input.places.as_ref().map(|places| pick(places, origins));
        self.kinds = input.kinds.as_ref().map(|kinds| pick(kinds, origins));
        self
    }

    /// The rows of a range. The batch itself where that is all of them.
    ///
    /// # Panics
    /// Where a row does not exist.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        if rows == (0..self.len()) {
            return self.clone();
        }
        self.gather(&(rows.start as u32..rows.end as u32).collect::<Vec<_>>())
    }

    /// The rows whose bit is set. The batch itself where all are.
    ///
    /// # Panics
    /// Where the bitmap has another length.
    #[must_use]
    pub fn keep(&self, kept: &Bitmap) -> Self {
        assert_eq!(kept.len(), self.len(), "one bit an event");
        if kept.count() == self.len() {
            return self.clone();
        }
        self.gather(&kept.ones())
    }

    /// Rows of several batches as one, each named by batch and row. Headers stay where some batch has them; a
    /// lineage of one partition, and what rows are stay where all have them; makers stay; places do not. It arrived
    /// when the first did.
    ///
    /// # Panics
    /// Where a row does not exist.
    #[must_use]
    pub fn weave(parts: &[Self], rows: &[(u32, u32)]) -> Self {
        if let [part] = parts {
            let rows: Vec<u32> = rows.iter().map(|&(_, row)| row).collect();
            return part.gather(&rows).with_places(None);
        }
        let column = |of: &dyn Fn(&Self) -> Option<&Column>| {
            let columns: Vec<_> = parts.iter().map(of).collect();
            let row = |&(part, row): &(u32, u32)| columns[part as usize].map_or(&b""[..], |own| own.row(row as usize));
            let mut woven = ColumnBuilder::with_capacity(rows.len(), rows.iter().map(|at| row(at).len()).sum());
            rows.iter().for_each(|at| woven.push(row(at)));
            Arc::new(woven.finish())
        };
        let makers = parts.first().and_then(|part| part.makers.clone());
        let one_maker = !matches!(makers, Some(Makers::Each(_))) && parts.iter().all(|part| part.makers == makers);
        let each_maker = || rows.iter().map(|&(part, row)| parts[part as usize].maker(row as usize)).collect();
        let makers = if one_maker { makers } else { Some(Makers::Each(Arc::new(each_maker()))) };
        let lineages = || parts.iter().map(|part| part.lineage.as_ref()).collect::<Option<Vec<_>>>();
        let lineage = lineages().and_then(|lineages| {
            let partition = lineages.first()?.partition;
            let offset = |&(part, row): &(u32, u32)| lineages[part as usize].offsets[row as usize];
            let offsets = || Arc::new(rows.iter().map(offset).collect());
            let one = lineages.iter().all(|lineage| lineage.partition == partition);
            one.then(|| Lineage { partition, offsets: offsets() })
        });
        let kinds = parts.iter().map(|part| part.kinds.as_ref()).collect::<Option<Vec<_>>>();
        Self {
            times: Arc::new(rows.iter().map(|&(part, row)| parts[part as usize].times[row as usize]).collect()),
            keys: column(&|part| Some(&*part.keys)),
            values: column(&|part| Some(&*part.values)),
            headers: parts.iter().any(|part| part.headers.is_some()).then(|| column(&|part| part.headers.as_deref())),
            lineage,
            places: None,
            makers,
            kinds: kinds
                .map(|kinds| Arc::new(rows.iter().map(|&(part, row)| kinds[part as usize][row as usize]).collect())),
            arrived_nanos: parts.iter().map(|part| part.arrived_nanos).min().unwrap_or_default(),
        }
    }
}

fn pick<T: Copy>(of: &[T], rows: &[u32]) -> Arc<Vec<T>> {
    Arc::new(rows.iter().map(|&row| of[row as usize]).collect())
}

/// A batch in the making, row by row.
#[derive(Debug, Clone, Default)]
pub struct BatchBuilder {
    times: Vec<i64>,
    keys: ColumnBuilder,
    values: ColumnBuilder,
}

impl BatchBuilder {
    /// Adds one event.
    pub fn push(&mut self, time: Timestamp, key: &[u8], value: &[u8]) {
        self.times.push(time.0);
        self.keys.push(key);
        self.values.push(value);
    }

    /// Events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no event yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Bytes so far.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        8 * self.times.len() + self.keys.byte_len() + self.values.byte_len()
    }

    /// The batch.
    #[must_use]
    pub fn finish(self, arrived_nanos: u64) -> Batch {
        Batch::new(Arc::new(self.times), Arc::new(self.keys.finish()), Arc::new(self.values.finish()), arrived_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut builder = BatchBuilder::default();
        builder.push(Timestamp(1), b"a", b"one");
        builder.push(Timestamp(3), b"b", b"three");
        builder.push(Timestamp(2), b"a", b"two");
        builder.finish(7).with_lineage(Some(Lineage { partition: PartitionId(4), offsets: Arc::new(vec![10, 20, 30]) }))
    }

    #[test]
    fn gathered_rows_keep_their_lineage() {
        let gathered = batch().gather(&[2, 0]);
        assert_eq!(**gathered.times(), [2, 1]);
        assert_eq!(*gathered.lineage().expect("kept").offsets, [30, 10]);
        assert_eq!(**gathered.values(), ["two", "one"].iter().collect());
        assert_eq!(gathered.arrived_nanos(), 7);
        assert_eq!(batch().time_max(), Timestamp(3));
    }

    #[test]
    fn a_whole_slice_shares_every_column() {
        let whole = batch();
        assert!(Arc::ptr_eq(whole.slice(0..3).values(), whole.values()));
        assert_eq!(whole.slice(1..3), whole.gather(&[1, 2]));
        assert!(whole.slice(3..3).is_empty());
    }

    #[test]
    fn woven_rows_keep_what_all_parts_have() {
        let (whole, plain) = (batch(), batch().with_lineage(None));
        let woven = Batch::weave(&[whole.gather(&[1]), whole.gather(&[0, 2])], &[(1, 0), (0, 0), (1, 1)]);
        assert_eq!(woven, whole);
        let woven = Batch::weave(&[plain, whole], &[(1, 2), (0, 0)]);
        assert_eq!((woven.lineage(), &**woven.times()), (None, &vec![2, 1]));
        assert!(Batch::weave(&[], &[]).is_empty());
    }

    #[test]
    fn rows_keep_their_maker_however_they_are_cut() {
        let (one, other) = (Some(PluginDigest([1; 32])), Some(PluginDigest([2; 32])));
        let made = batch().with_maker(one);
        assert_eq!(made.gather(&[2]).maker(0), one);
        assert_eq!(made.clone().with_keys(Arc::clone(made.values())).maker(2), one);
        let same = Batch::weave(&[made.clone(), made.clone()], &[(0, 1), (1, 0)]);
        assert_eq!(same.makers(), made.makers(), "no list where there is one");
        let mixed = Batch::weave(&[made.clone(), batch().with_maker(other), batch()], &[(0, 1), (1, 0), (2, 2)]);
        let makers = |batch: &Batch| (0..batch.len()).map(|row| batch.maker(row)).collect::<Vec<_>>();
        assert_eq!(makers(&mixed), [one, other, None]);
        assert_eq!(makers(&mixed.gather(&[2, 1])), [None, other]);
        assert_eq!(makers(&Batch::weave(&[made, mixed], &[(1, 1), (0, 0), (1, 2)])), [other, one, None]);
        assert_eq!(batch().maker(0), None);
    }

    #[test]
    fn a_full_bitmap_shares_every_column() {
        let whole = batch();
        let kept = whole.keep(&Bitmap::filled(3, true));
        assert!(Arc::ptr_eq(kept.values(), whole.values()));
        let mut some = Bitmap::filled(3, false);
        some.set(1, true);
        assert_eq!(**whole.keep(&some).values(), ["three"].iter().collect());
    }
}
