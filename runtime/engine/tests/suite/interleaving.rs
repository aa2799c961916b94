//! The promise of ordering buffers, as one property over whole jobs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use wasmill_plan::{LATE, LatePolicy, OrderBy, OrderSpec, Routing, SequenceOrder, TimeBound, TimeOrder};
use wasmill_spec::{ByteSize, Period};

use crate::support::graph::{Graph, identity};
use crate::support::mortal::{deaths, survive};
use crate::support::{Got, KeepSink, ListSource, Row};

const KEYS: [&str; 3] = ["a", "b", "c"];
/// Rows of a key, each with a number of its own.
const ROWS: u64 = 120;

/// Rows of all keys in partitions: each comes up to `delay` places late, wherever, and some come twice.
fn partitions() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let row = (0..4_usize, 0..60_i64, prop::bool::weighted(0.1));
    (1..5_usize, prop::collection::vec(row, KEYS.len() * ROWS as usize)).prop_map(|(count, rows)| {
        let mut sent: Vec<(i64, usize, Row)> = Vec::new();
        for (at, (partition, delay, twice)) in rows.into_iter().enumerate() {
            let (key, number) = (KEYS[at % KEYS.len()], at / KEYS.len());
            let row = (at as i64 * 10, key, format!("{{\"n\":{number}}}"));
            if twice {
                sent.push((at as i64 + delay / 2, (partition + 1) % count, row.clone()));
            }
            sent.push((at as i64 + delay, partition % count, row));
        }
        sent.sort_by_key(|(place, ..)| *place);
        let mut partitions = vec![Vec::new(); count];
        sent.into_iter().for_each(|(_, partition, row)| partitions[partition].push(row));
        partitions
    })
}

fn orders() -> impl Strategy<Value = OrderBy> {
    let most = Period::from_micros(i64::MAX as u64);
    let time = move |bound| OrderBy::Time(TimeOrder { bound, most });
    prop_oneof![
        Just(time(TimeBound::Watermark)),
        (0..800_u64).prop_map(move |bound| time(TimeBound::Fixed(Period::from_micros(bound)))),
        Just(time(TimeBound::AqKSlack { quality_ppm: 900_000, window: Period::from_micros(0) })),
        Just(OrderBy::Sequence(SequenceOrder {
            field: "/n".parse().expect("a pointer"),
            per_key: true,
            first: 0,
            keys_max: 100,
            gap: None,
            placeholder: None,
            done: None,
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However partitions, delays and duplicates meet, in so many tasks, with rows on disk or none, and whatever dies
    /// when: every row leaves once, in order or as late, and those of a key that leave in order are in it.
    #[test]
    fn every_row_is_there_once_in_the_order_of_its_key(
        partitions in partitions(), by in orders(), batch in 1..12_usize, readers in 1..3_u16, spills in any::<bool>(),
        tasks in prop::collection::vec(1..4_u16, 5), deaths in deaths(),
    ) {
        let (sink, side) = (KeepSink::default(), KeepSink::default());
        let by_sequence = matches!(by, OrderBy::Sequence(_));
        let (bytes_max, spill) = if spills { (2_000, Some(1 << 20)) } else { (1 << 30, None) };
        let order = OrderSpec {
            by,
            late: LatePolicy::Side,
            rows_max: 1_000_000,
            bytes_max: ByteSize::from_bytes(bytes_max),
            spill: spill.map(ByteSize::from_bytes),
        };
        survive(&deaths, |run| {
            let mut graph = Graph::new();
            let list = ListSource { partitions: partitions.clone(), bounded: true, batch };
            let source = graph.list(list, readers);
            // What buffers by time have learned is of one task.
            let stage = graph.stage(identity(), if by_sequence { tasks[run] } else { tasks[0] });
            let [out, late] = [&sink, &side].map(|sink| graph.sink(sink));
            graph.edge((source, 0), (stage, 0), Routing::Keyed);
            graph.edge((stage, 0), (out, 0), Routing::Keyed);
            graph.edge((stage, LATE), (late, 0), Routing::Keyed);
            graph.orders.insert((stage, 0), order.clone());
            graph
        });
        let counted = |rows: &mut dyn Iterator<Item = Got>| {
            let mut counts = BTreeMap::<Got, usize>::new();
            rows.for_each(|row| *counts.entry(row).or_default() += 1);
            counts
        };
        let out = sink.committed();
        let mut sent = partitions.into_iter().flatten().map(|(time, key, value)| (time, key.to_owned(), value));
        let got = counted(&mut out.iter().cloned().chain(side.committed()));
        prop_assert_eq!(got, counted(&mut sent), "rows in = rows out + late rows");
        for key in KEYS {
            let of_key = || out.iter().filter(|row| row.1 == key);
            if by_sequence {
                let expected: Vec<String> = (0..ROWS).map(|number| format!("{{\"n\":{number}}}")).collect();
                prop_assert_eq!(of_key().map(|row| row.2.clone()).collect::<Vec<_>>(), expected, "{}", key);
            } else {
                prop_assert!(of_key().map(|row| row.0).is_sorted(), "{key}");
            }
        }
    }
}
