//! What an operator returned, made into batches for its output ports.

use std::sync::Arc;

use wasmill_model::{Batch, Bitmap, Column, Emission, Firings, Output, Rejected, Rows, Timestamp};

/// What the rows of an outcome come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// Input rows.
    Batch(&'a Batch),
    /// Timers that fired.
    Firings(&'a Firings),
    /// The watermark alone.
    Watermark(Timestamp),
}

/// Batches by output port in the order of delivery. Empty ones are left out.
pub(crate) fn batches(
    emissions: Vec<Emission>,
    rejected: &[Rejected],
    origin: Origin<'_>,
    now_nanos: u64,
) -> Vec<(u16, Batch)> {
    emissions
        .into_iter()
        .filter_map(|Emission { port, output }| {
            let batch = match (output, origin) {
                (Output::Rows(rows), _) => from_rows(rows, rejected, origin, now_nanos),
                (Output::Unchanged, Origin::Batch(input)) => without(input.clone(), rejected),
                (Output::Keep(mut kept), Origin::Batch(input)) => {
                    for row in rejected {
                        kept.set(row.row as usize, false);
                    }
                    input.keep(&kept)
                }
                (Output::Values(values), Origin::Batch(input)) => {
                    without(input.clone().with_values(Arc::new(values)), rejected)
                }
                // Without input rows there is nothing that could stay as it was.
                (Output::Unchanged | Output::Keep(_) | Output::Values(_), _) => return None,
            };
            (!batch.is_empty()).then_some((port, batch))
        })
        .collect()
}

fn without(batch: Batch, rejected: &[Rejected]) -> Batch {
    if rejected.is_empty() {
        return batch;
    }
    let mut kept = Bitmap::filled(batch.len(), true);
    for row in rejected {
        kept.set(row.row as usize, false);
    }
    batch.keep(&kept)
}

fn from_rows(mut rows: Rows, rejected: &[Rejected], origin: Origin<'_>, now_nanos: u64) -> Batch {
    if !rejected.is_empty() && matches!(origin, Origin::Batch(_)) {
        drop_rejected(&mut rows, rejected);
    }
    let Rows { times, keys, values, origins } = rows;
    let inherit_times = times.is_empty();
    let inherit_keys = keys.is_empty();
    let time_of: &dyn Fn(u32) -> i64 = match origin {
        Origin::Batch(input) => &|row| input.times()[row as usize],
        Origin::Firings(fired) => &|row| fired.times[row as usize],
        Origin::Watermark(time) => &move |_| time.0,
    };
    let times = if inherit_times {
        match origin {
            Origin::Watermark(time) => vec![time.0; values.len()],
            _ => origins.iter().map(|&row| time_of(row)).collect(),
        }
    } else {
        times
    };
    let keys = match origin {
        _ if !inherit_keys => keys,
        Origin::Batch(input) => input.keys().gather(&origins),
        Origin::Firings(fired) => fired.keys.gather(&origins),
        Origin::Watermark(_) => Column::empty_rows(values.len()),
    };
    let arrived = match origin {
        Origin::Batch(input) => input.arrived_nanos(),
        Origin::Firings(_) | Origin::Watermark(_) => now_nanos,
    };
    let batch = Batch::new(Arc::new(times), Arc::new(keys), Arc::new(values), arrived);
    match origin {
        Origin::Batch(input) => batch.following(input, &origins),
        Origin::Firings(_) | Origin::Watermark(_) => batch,
    }
}

fn drop_rejected(rows: &mut Rows, rejected: &[Rejected]) {
    let is_rejected = |row: u32| rejected.binary_search_by_key(&row, |r| r.row).is_ok();
    let kept: Vec<u32> =
        (0..rows.origins.len() as u32).filter(|&place| !is_rejected(rows.origins[place as usize])).collect();
    if kept.len() == rows.origins.len() {
        return;
    }
    if !rows.times.is_empty() {
        rows.times = kept.iter().map(|&place| rows.times[place as usize]).collect();
    }
    if !rows.keys.is_empty() {
        rows.keys = rows.keys.gather(&kept);
    }
    rows.values = rows.values.gather(&kept);
    rows.origins = kept.iter().map(|&place| rows.origins[place as usize]).collect();
}

/// The rejected rows of an input and why, for the dead-letter queue.
pub(crate) fn rejected_rows(input: &Batch, rejected: &[Rejected]) -> Option<(Batch, Vec<String>)> {
    if rejected.is_empty() {
        return None;
    }
    let rows: Vec<u32> = rejected.iter().map(|r| r.row).collect();
    Some((input.gather(&rows), rejected.iter().map(|r| r.reason.clone()).collect()))
}

#[cfg(test)]
mod tests {
    use wasmill_model::BatchBuilder;

    use super::*;

    fn input() -> Batch {
        let mut builder = BatchBuilder::default();
        for (time, key, value) in [(10, "a", "1"), (20, "b", "2"), (30, "c", "3")] {
            builder.push(Timestamp(time), key.as_bytes(), value.as_bytes());
        }
        builder.finish(5)
    }

    fn values(batch: &Batch) -> Vec<&str> {
        batch.values().iter().map(|v| std::str::from_utf8(v).expect("text")).collect()
    }

    fn rejected(row: u32) -> Vec<Rejected> {
        vec![Rejected { row, reason: "bad".into() }]
    }

    fn one(output: Output, rejected: &[Rejected], origin: Origin<'_>) -> Vec<(u16, Batch)> {
        batches(vec![Emission { port: 1, output }], rejected, origin, 9)
    }

    #[test]
    fn rejected_rows_go_out_in_no_form() {
        let input = input();
        let origin = Origin::Batch(&input);
        let rejected = rejected(1);
        let unchanged = one(Output::Unchanged, &rejected, origin);
        assert_eq!((unchanged[0].0, values(&unchanged[0].1)), (1, vec!["1", "3"]));
        let kept = one(Output::Keep(Bitmap::filled(3, true)), &rejected, origin);
        assert_eq!(values(&kept[0].1), ["1", "3"]);
        let mapped = one(Output::Values(["x", "y", "z"].iter().collect()), &rejected, origin);
        assert_eq!(values(&mapped[0].1), ["x", "z"]);
        let rows = Rows {
            times: vec![],
            keys: Column::default(),
            values: ["p", "q", "r"].iter().collect(),
            origins: vec![2, 1, 0],
        };
        let rows = one(Output::Rows(rows), &rejected, origin);
        assert_eq!(values(&rows[0].1), ["p", "r"]);
        assert_eq!(**rows[0].1.times(), [30, 10], "times are those of the origins");
        assert_eq!(**rows[0].1.keys(), ["c", "a"].iter().collect());
    }

    #[test]
    fn timers_lend_their_times_and_keys() {
        let fired = Firings { times: vec![7, 8], keys: ["k", "l"].iter().collect(), tags: Column::empty_rows(2) };
        let rows = Rows { times: vec![], keys: Column::default(), values: ["v"].iter().collect(), origins: vec![1] };
        let out = one(Output::Rows(rows), &[], Origin::Firings(&fired));
        assert_eq!((**out[0].1.times()).as_slice(), [8]);
        assert_eq!(**out[0].1.keys(), ["l"].iter().collect());
        assert_eq!(out[0].1.arrived_nanos(), 9);
    }

    #[test]
    fn empty_outputs_are_left_out() {
        let input = input();
        assert!(one(Output::Keep(Bitmap::filled(3, false)), &[], Origin::Batch(&input)).is_empty());
    }
}
