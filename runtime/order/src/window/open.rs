//! Which windows are open, and what for.

use wasmill_model::Timestamp;

use super::{SlicedWindows, Windows};

/// What one window holds for one key, and when it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenWindow {
    /// The event key.
    pub key: Box<[u8]>,
    /// `[start, end)`, microseconds since the Unix epoch; all of time where it has no bounds in time.
    pub start: i64,
    /// See `start`.
    pub end: i64,
    /// The watermark at which it fires, or where it has fired, is dropped.
    pub due: Timestamp,
    /// When the wall clock makes it fire, where it does.
    pub wall_due: Option<Timestamp>,
    /// Whether the watermark has passed its end: it waits for late events.
    pub passed: bool,
}

impl Windows {
    /// What is held: one for each window and key, or where windows share it, for each slice and key.
    #[must_use]
    pub fn held(&self) -> usize {
        match self {
            Self::Sliced(windows) => windows.accumulators(),
            Self::Keyed(windows) => windows.panes(),
        }
    }

    /// Up to `most` of the windows that are open, those first that the watermark reaches first.
    #[must_use]
    pub fn open(&self, most: usize) -> Vec<OpenWindow> {
        match self {
            Self::Sliced(windows) => windows.open(most),
            Self::Keyed(windows) => windows.open(most),
        }
    }
}

impl SlicedWindows {
    fn open(&self, most: usize) -> Vec<OpenWindow> {
        let mut open: Vec<OpenWindow> = Vec::new();
        for &place in self.by_start.values() {
            let slice = &self.slices[place as usize];
            let (start, end) = self.slicing.window(slice.bounds.first.max(self.progress.next_window));
            let due = Timestamp(end.saturating_sub(1));
            for slot in 0..slice.len().min(most) as u32 {
                let key = slice.key(slot);
                // A window of several slices has a key once.
                if !open.iter().any(|other| other.start == start && *other.key == *key) {
                    open.push(OpenWindow { key: key.into(), start, end, due, wall_due: None, passed: false });
                }
            }
            if open.len() >= most {
                break;
            }
        }
        open.truncate(most);
        open
    }
}

#[cfg(test)]
mod tests {
    use wasmill_model::{BatchBuilder, Column, Firing, Folded, WindowShape, WindowSpec};

    use super::*;

    fn with_rows(spec: WindowSpec, rows: &[(i64, &str)]) -> Windows {
        let mut windows = Windows::new(spec).expect("windows");
        let mut batch = BatchBuilder::default();
        rows.iter().for_each(|(time, key)| batch.push(Timestamp(*time), key.as_bytes(), b"v"));
        let batch = batch.finish(0);
        let assignment = windows.assign(&batch, Timestamp(0)).expect("assigned");
        let accumulators: Column = assignment.accumulators.iter().map(|_| "a").collect();
        windows.store(&assignment, &Folded { accumulators, rejected: vec![] }).expect("stored");
        windows
    }

    fn told(windows: &Windows, most: usize) -> Vec<(String, i64, i64, i64, bool)> {
        let text = |window: OpenWindow| String::from_utf8_lossy(&window.key).into_owned();
        let each = windows.open(most).into_iter();
        each.map(|window| (text(window.clone()), window.start, window.end, window.due.0, window.passed)).collect()
    }

    #[test]
    fn the_windows_that_fire_first_are_named_first() {
        let rows = [(25, "b"), (12, "a"), (13, "b"), (31, "a")];
        let shape = WindowShape::Sliding { size_micros: 20, slide_micros: 10 };
        let mut sliced = with_rows(shape.into(), &rows);
        let first = ("a".to_owned(), 0, 20, 19, false);
        assert_eq!(told(&sliced, 1), std::slice::from_ref(&first));
        assert_eq!(told(&sliced, 3)[..2], [first, ("b".to_owned(), 0, 20, 19, false)]);
        assert_eq!(sliced.held(), 4);
        while sliced.fire(Timestamp(19), Timestamp(0), 10).is_some() {}
        assert_eq!(told(&sliced, 1), [("a".to_owned(), 10, 30, 29, false)], "the one before has fired");

        let firing = Firing { lateness_micros: 5, ..Firing::default() };
        let shape = WindowShape::Tumbling { size_micros: 20 };
        let mut keyed = with_rows(WindowSpec { shape, firing }, &rows);
        assert_eq!((keyed.held(), told(&keyed, 1)), (4, vec![("a".to_owned(), 0, 20, 19, false)]));
        while keyed.fire(Timestamp(19), Timestamp(0), 10).is_some() {}
        assert_eq!(told(&keyed, 1), [("a".to_owned(), 0, 20, 24, true)], "it waits for late events");
    }
}
