use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use wasmill_env::{RealClock, SimulatedDisk};
use wasmill_model::{BatchBuilder, Column};
use wasmill_plan::{LatePolicy, OrderBy, TimeOrder};
use wasmill_spec::{ByteSize, Period};
use wasmill_tenancy::{Allowance, Processor};

use super::*;

const SHARE: Share = Share { index: 0, of: 1 };
const WALL: Timestamp = Timestamp(1_000);

fn slot(by: &OrderBy, memory: Option<u64>, disk: &SimulatedDisk, account: Option<&Account>) -> OrderSlot {
    let bytes_max = ByteSize::from_bytes(memory.unwrap_or(1 << 30));
    let (by, late) = (by.clone(), LatePolicy::Forward);
    let spec = OrderSpec { by, late, rows_max: 1_000_000, bytes_max, spill: memory.map(|_| bytes_max) };
    let open = |_| Spill::open(Arc::new(disk.clone()), Path::new("/spill"), "n.0.0".to_owned(), 1 << 30);
    let spill = memory.map(open).transpose().expect("opens");
    OrderSlot::new(NodeName::new("n").expect("a name"), 0, &spec, spill, account)
}

type Bytes = Box<[u8]>;
/// Time, key, value, header.
type Row = (i64, Vec<u8>, Vec<u8>, Vec<u8>);

/// The buffer with what cuts of it have stored, as a job has them.
struct Job {
    by: OrderBy,
    memory: Option<u64>,
    slot: OrderSlot,
    disk: SimulatedDisk,
    stored: BTreeMap<(Bytes, Bytes), Vec<u8>>,
    /// What went on.
    out: Vec<Row>,
    peak: u64,
}

impl Job {
    fn new(by: OrderBy, memory: Option<u64>) -> Self {
        let disk = SimulatedDisk::default();
        let (slot, stored) = (slot(&by, memory, &disk, None), BTreeMap::new());
        Self { by, memory, slot, disk, stored, out: Vec::new(), peak: 0 }
    }

    fn keep(&mut self, batch: &Batch) {
        let header = |row| batch.headers().map(|headers| headers.row(row).to_vec()).unwrap_or_default();
        let row = |row: usize| {
            (batch.times()[row], batch.keys().row(row).into(), batch.values().row(row).into(), header(row))
        };
        self.out.extend((0..batch.len()).map(row));
    }

    fn let_go(&mut self) {
        while let Some(batch) = self.slot.next(WALL).expect("the disk has no faults") {
            self.keep(&batch);
            self.peak = self.peak.max(self.slot.rows.bytes());
        }
        self.peak = self.peak.max(self.slot.rows.bytes());
    }

    fn offer(&mut self, batch: &Batch) {
        let ordered = self.slot.offer(batch, WALL);
        if let Some(late) = ordered.forwarded {
            self.keep(&late);
        }
        assert!(ordered.malformed.is_none());
        self.let_go();
    }

    fn cut(&mut self) {
        for record in self.slot.cut(SHARE).expect("the disk has no faults") {
            match record.value {
                Some(value) => drop(self.stored.insert((record.key, record.name), value)),
                None => assert!(self.stored.remove(&(record.key, record.name)).is_some(), "only what is there goes"),
            }
        }
    }

    /// Dies behind a cut, with what is on disk, and goes on.
    fn restart(&mut self) {
        self.cut();
        self.disk = SimulatedDisk::default();
        let record = |((key, name), value): (&(Bytes, Bytes), &Vec<u8>)| HeldRecord {
            node: NodeName::new("n").expect("a name"),
            port: 0,
            key: key.clone(),
            name: name.clone(),
            value: Some(value.clone()),
        };
        let records = self.stored.iter().map(record).collect();
        let watermark = self.slot.watermark;
        self.slot = slot(&self.by, self.memory, &self.disk, None);
        assert!(self.slot.restore(records, SHARE, WALL, 0).is_ok());
        // Sources tell theirs again.
        self.slot.watermark(watermark);
        self.let_go();
    }

    fn end(&mut self) {
        self.slot.watermark(Timestamp::MAX);
        self.let_go();
        self.cut();
        assert!(self.slot.rows.is_empty() && self.disk.files().is_empty());
        assert!(self.stored.keys().all(|(_, name)| name.first() != Some(&ROW)), "no row is left behind");
    }
}

fn by() -> impl Strategy<Value = OrderBy> {
    let most = Period::from_micros(i64::MAX as u64);
    let time = move |bound| OrderBy::Time(TimeOrder { bound, most });
    prop_oneof![
        Just(time(TimeBound::Watermark)),
        (0..400_u64).prop_map(move |bound| time(TimeBound::Fixed(Period::from_micros(bound)))),
        Just(time(TimeBound::KSlack)),
        any::<bool>().prop_map(|per_key| {
            let field = "/n".parse().expect("a pointer");
            let order =
                SequenceOrder { field, per_key, first: 0, keys_max: 100, gap: None, placeholder: None, done: None };
            OrderBy::Sequence(order)
        }),
    ]
}

/// Rows by their times and numbers, in batches, some of them with headers.
fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let row = (0..2_000_i64, 0..4_u8, 0..60_u64);
    let batch = (prop::collection::vec(row, 1..40), any::<bool>()).prop_map(|(rows, with_headers)| {
        let mut batch = BatchBuilder::default();
        for (time, key, number) in &rows {
            batch.push(Timestamp(*time), &[*key], format!("{{\"n\":{number}}}").as_bytes());
        }
        let headers = with_headers.then(|| Arc::new(rows.iter().map(|row| format!("h{}", row.0)).collect::<Column>()));
        batch.finish(1).with_headers(headers)
    });
    prop::collection::vec(batch, 1..30)
}

proptest! {
    /// With memory for a few rows, and deaths in between, the same rows leave in the same order as with all memory
    /// and none; memory stays bounded, and nothing stays on disk.
    #[test]
    fn rows_on_disk_leave_as_those_in_memory(
        by in by(), batches in batches(), memory in 100..3_000_u64, watermark_every in 1..9_usize,
        deaths in prop::collection::vec(any::<bool>(), 30),
    ) {
        let (mut plain, mut spilling) = (Job::new(by.clone(), None), Job::new(by, Some(memory)));
        let largest = batches.iter().map(Batch::byte_len).max().unwrap_or_default() as u64;
        for (nth, batch) in batches.iter().enumerate() {
            for job in [&mut plain, &mut spilling] {
                job.offer(batch);
                if nth % watermark_every == 0 {
                    job.slot.watermark(Timestamp(nth as i64 * 50));
                    job.let_go();
                }
            }
            if deaths[nth] {
                spilling.restart();
            }
            if matches!(plain.by, OrderBy::Time(_)) {
                prop_assert_eq!(plain.slot.promised(), spilling.slot.promised());
            }
            prop_assert_eq!(plain.slot.rows.len(), spilling.slot.rows.len());
        }
        for job in [&mut plain, &mut spilling] {
            job.end();
            if matches!(job.by, OrderBy::Sequence(_)) {
                // Keys have no order among themselves.
                job.out.sort_by(|one, other| one.1.cmp(&other.1));
            }
        }
        prop_assert_eq!(plain.out, spilling.out);
        prop_assert_eq!(spilling.slot.counts.forced, 0);
        prop_assert!(spilling.peak <= memory + largest, "{} bytes where {memory} and a batch of {largest} may be", spilling.peak);
    }
}

#[test]
fn much_more_than_fits_waits_on_disk_and_memory_stays_as_it_is() {
    let bound = TimeBound::Fixed(Period::from_micros(u64::MAX >> 1));
    let by = OrderBy::Time(TimeOrder { bound, most: Period::from_micros(u64::MAX >> 1) });
    let memory = 256 << 10;
    let mut job = Job::new(by, Some(memory));
    // 200,000 rows of 100 bytes in no order at all.
    let mut random = 1_u64;
    for _ in 0..100 {
        let mut batch = BatchBuilder::default();
        for _ in 0..2_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            batch.push(Timestamp((random >> 20) as i64), b"key", &[7; 100]);
        }
        job.offer(&batch.finish(0));
        job.cut();
    }
    let counts = job.slot.counts();
    assert!(counts.on_disk > 195_000 && counts.held == 200_000 && counts.forced == 0, "{counts:?}");
    job.end();
    assert!(job.out.len() == 200_000 && job.out.is_sorted_by_key(|row| row.0));
    assert!(job.peak <= memory + (250 << 10), "{}", job.peak);
    assert!(job.slot.counts.spilled < 300_000, "a row is written about once: {}", job.slot.counts.spilled);
}

/// A tenant that may have so many bytes of state.
fn account(state_bytes: u64) -> Arc<Account> {
    let processor = Processor::new(1, Arc::new(RealClock::default()));
    Account::new(&processor, &Allowance { state_bytes, ..Allowance::UNLIMITED })
}

#[test]
fn what_a_tenant_has_no_room_for_goes_on_at_once() {
    let most = 64 << 10;
    let account = account(most);
    let by = OrderBy::Time(TimeOrder { bound: TimeBound::Watermark, most: Period::from_micros(1) });
    let mut slot = slot(&by, None, &SimulatedDisk::default(), Some(&account));
    let batch = |from: i64| {
        let mut batch = BatchBuilder::default();
        (0..100).for_each(|row| batch.push(Timestamp(from + 99 - row), b"key", &[7; 100]));
        batch.finish(0)
    };
    let one = batch(0).byte_len() as u64 + 100 * HELD_ROW_BYTES;
    let mut gone = Vec::new();
    for nth in 0..50 {
        slot.offer(&batch(nth * 100), WALL);
        while let Some(batch) = slot.next(WALL).expect("there is no disk") {
            gone.extend_from_slice(batch.times());
        }
        assert!(account.state.used() <= most, "{} bytes", account.state.used());
        assert!(nth < 2 || account.state.used() > most - 2 * one, "it holds what it may: {}", account.state.used());
    }
    assert!(gone.len() > 4_000 && slot.counts().forced == gone.len() as u64);
    assert!(gone.iter().copied().eq(0..gone.len() as i64), "the first of them go");
    drop(slot);
    assert_eq!(account.state.used(), 0);
}

#[test]
fn keys_that_a_tenant_has_no_room_for_are_forgotten() {
    let most = 4 << 20;
    let account = account(most);
    let (field, keys_max) = ("/n".parse().expect("a pointer"), u64::MAX);
    let order = SequenceOrder { field, per_key: true, first: 0, keys_max, gap: None, placeholder: None, done: None };
    let mut slot = slot(&OrderBy::Sequence(order), None, &SimulatedDisk::default(), Some(&account));
    let mut gone = 0;
    for nth in 0..200_u32 {
        let mut batch = BatchBuilder::default();
        for row in 0..100_u32 {
            let mut key = vec![0; 1_000];
            key[..8].copy_from_slice(&(u64::from(nth) << 32 | u64::from(row)).to_le_bytes());
            batch.push(Timestamp(0), &key, br#"{"n": 0}"#);
        }
        slot.offer(&batch.finish(0), WALL);
        while let Some(batch) = slot.next(WALL).expect("there is no disk") {
            gone += batch.len();
        }
        assert!(account.state.used() <= most + (512 << 10), "{} bytes", account.state.used());
    }
    assert_eq!(gone, 20_000, "each is the first of its key");
    assert!((18_000..20_000).contains(&slot.counts().forgotten), "{}", slot.counts().forgotten);
}

#[test]
fn what_another_build_stored_is_refused_with_what_to_do() {
    let by = OrderBy::Time(TimeOrder { bound: TimeBound::KSlack, most: Period::from_micros(1) });
    for (name, says) in
        [(vec![OLD_OF_KEY], "another state directory"), (vec![ROW, 1], "cannot be read"), (vec![9], "cannot be read")]
    {
        let node = NodeName::new("n").expect("a name");
        let record = HeldRecord { node, port: 0, key: Box::default(), name: name.into(), value: Some(vec![0; 8]) };
        let mut slot = slot(&by, None, &SimulatedDisk::default(), None);
        match slot.restore(vec![record], SHARE, WALL, 0) {
            Err(NotRestored::Damaged(reason)) => assert!(reason.contains(says), "{reason}"),
            _ => panic!("it is refused"),
        }
    }
}
