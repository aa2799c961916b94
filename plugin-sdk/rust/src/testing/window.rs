use std::collections::BTreeMap;

use super::Rejected;
use crate::aggregate::AggregateDriver;
use crate::bindings::exports::wasmill::operator::aggregate::Panes;
use crate::bindings::wasmill::operator::types::{Batch, Column};
use crate::column::Rows;
use crate::{Aggregate, ConfigError};

/// A row that an aggregate has emitted for a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRow {
    /// The first microsecond of the window.
    pub start: i64,
    /// The first microsecond behind the window.
    pub end: i64,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// Runs one aggregate over tumbling or sliding windows that fire when the watermark reaches their
/// last microsecond. Events behind that are dropped.
///
/// Failures of calls panic with their reason, as a test wants it.
pub struct WindowTester<X: Aggregate> {
    driver: AggregateDriver<X>,
    size: i64,
    slide: i64,
    watermark: i64,
    /// By window start and key.
    windows: BTreeMap<(i64, Vec<u8>), Vec<u8>>,
    rows: Vec<WindowRow>,
    rejected: Vec<Rejected>,
}

impl<X: Aggregate> WindowTester<X>
where
    X::Accumulator: Default,
{
    /// Windows of a size in microseconds, side by side.
    ///
    /// # Panics
    /// Where the aggregate refuses the configuration (JSON, or empty for none).
    #[must_use]
    pub fn tumbling(config: &str, size: i64) -> Self {
        Self::sliding(config, size, size)
    }

    /// Windows of a size, one every `slide`, both in microseconds.
    ///
    /// # Panics
    /// Where the aggregate refuses the configuration (JSON, or empty for none).
    #[must_use]
    pub fn sliding(config: &str, size: i64, slide: i64) -> Self {
        match Self::open(config, size, slide) {
            Ok(tester) => tester,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`WindowTester::sliding`], for tests of wrong configurations.
    ///
    /// # Errors
    /// Where the aggregate refuses the configuration.
    ///
    /// # Panics
    /// Where the size is not positive or less than the slide.
    pub fn open(config: &str, size: i64, slide: i64) -> Result<Self, ConfigError> {
        assert!(slide > 0 && size >= slide, "0 < slide <= size");
        let driver = AggregateDriver::open(config.as_bytes())?;
        let (windows, rows, rejected) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { driver, size, slide, watermark: i64::MIN, windows, rows, rejected })
    }

    /// Sends one event.
    pub fn send(&mut self, time: i64, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.send_all([(time, key, value)]);
    }

    /// Sends events of (time in microseconds, key, value), in one call.
    ///
    /// # Panics
    /// Where the call fails.
    pub fn send_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, events: impl IntoIterator<Item = (i64, K, V)>) {
        let mut batch = Batch { times: Vec::new(), keys: Column::EMPTY, values: Column::EMPTY };
        let mut groups = Vec::new();
        let mut open: Vec<(i64, Vec<u8>)> = Vec::new();
        for (time, key, value) in events {
            let last = time.div_euclid(self.slide) * self.slide;
            let mut start = last;
            while start > time - self.size {
                if start + self.size - 1 > self.watermark {
                    let window = (start, key.as_ref().to_vec());
                    let group = open.iter().position(|one| *one == window).unwrap_or_else(|| {
                        open.push(window);
                        open.len() - 1
                    });
                    groups.push(group as u32);
                    batch.times.push(time);
                    batch.keys.push(key.as_ref());
                    batch.values.push(value.as_ref());
                }
                start -= self.slide;
            }
        }
        let mut accumulators = Column::EMPTY;
        open.iter().for_each(|window| accumulators.push(self.windows.get(window).map_or(&[], |bytes| bytes)));
        let folded = match self.driver.fold(&accumulators, &groups, &batch) {
            Ok(folded) => folded,
            Err(failure) => panic!("fold failed: {failure:?}"),
        };
        for (window, bytes) in open.into_iter().zip(Rows::of(&folded.accumulators).iter()) {
            self.windows.insert(window, bytes.to_vec());
        }
        self.rejected.extend(folded.rejected);
    }

    /// Splits every window's accumulator in two and merges them again: what `merge` must not change.
    /// Sends nothing itself: `first` and `second` are the events of either half.
    ///
    /// # Panics
    /// Where a call fails.
    #[must_use]
    pub fn merged(&self, first: &[(i64, &str, &str)], second: &[(i64, &str, &str)]) -> Vec<u8> {
        let fold = |events: &[(i64, &str, &str)]| {
            let mut batch = Batch { times: Vec::new(), keys: Column::EMPTY, values: Column::EMPTY };
            for (time, key, value) in events {
                batch.times.push(*time);
                batch.keys.push(key.as_bytes());
                batch.values.push(value.as_bytes());
            }
            let new = Column { ends: vec![0], data: Vec::new() };
            match self.driver.fold(&new, &vec![0; events.len()], &batch) {
                Ok(folded) => folded.accumulators.data,
                Err(failure) => panic!("fold failed: {failure:?}"),
            }
        };
        let mut both = Column::EMPTY;
        both.push(&fold(first));
        both.push(&fold(second));
        match self.driver.merge(&both, &[0, 0], 1) {
            Ok(merged) => merged.data,
            Err(failure) => panic!("merge failed: {failure:?}"),
        }
    }

    /// Raises the watermark: windows that are complete fire, oldest first.
    ///
    /// # Panics
    /// Where the call fails.
    pub fn watermark(&mut self, watermark: i64) {
        self.watermark = self.watermark.max(watermark);
        let (size, now) = (self.size, self.watermark);
        let open = std::mem::take(&mut self.windows);
        let (due, open) = open.into_iter().partition(|((start, _), _)| start.saturating_add(size - 1) <= now);
        self.windows = open;
        self.fire(due);
    }

    fn fire(&mut self, due: BTreeMap<(i64, Vec<u8>), Vec<u8>>) {
        let mut panes = Panes { starts: Vec::new(), ends: Vec::new(), keys: Column::EMPTY };
        let mut accumulators = Column::EMPTY;
        for ((start, key), bytes) in due {
            panes.starts.push(start);
            panes.ends.push(start + self.size);
            panes.keys.push(&key);
            accumulators.push(&bytes);
        }
        let results = match self.driver.finish(&panes, &accumulators) {
            Ok(results) => results,
            Err(failure) => panic!("finish failed: {failure:?}"),
        };
        let keys = Rows::of(&panes.keys);
        for (row, value) in Rows::of(&results.values).iter().enumerate() {
            let pane = results.panes.get(row).map_or(row, |pane| *pane as usize);
            let (start, end) = (panes.starts[pane], panes.ends[pane]);
            self.rows.push(WindowRow { start, end, key: keys.get(pane).to_vec(), value: value.to_vec() });
        }
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> &[WindowRow] {
        &self.rows
    }

    /// Rows since the last look, in order.
    pub fn take_rows(&mut self) -> Vec<WindowRow> {
        std::mem::take(&mut self.rows)
    }

    /// Values of all rows, as text.
    #[must_use]
    pub fn values(&self) -> Vec<String> {
        self.rows.iter().map(|row| String::from_utf8_lossy(&row.value).into_owned()).collect()
    }

    /// Rejected rows.
    #[must_use]
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }
}
