use std::cell::RefCell;
use std::rc::Rc;

use super::Rejected;
use super::host::{Memory, MemoryHost, number};
use crate::bindings::exports::wasmill::operator::migration::Entries;
use crate::bindings::exports::wasmill::operator::timed::Firings;
use crate::bindings::wasmill::operator::types::{Batch, Clock, Column, Failure, Outcome, Output};
use crate::column::{Rows, bits};
use crate::driver::Driver;
use crate::{ConfigError, Operator};

/// A row that an operator has emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The output port.
    pub port: u16,
    /// Microseconds since the Unix epoch.
    pub time: i64,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

impl Row {
    /// The value as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }
}

/// An entry of the state, as flushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// The event key.
    pub key: Vec<u8>,
    /// The sub-key, empty for a value.
    pub subkey: Vec<u8>,
    /// The bytes.
    pub value: Vec<u8>,
}

/// Runs one operator.
///
/// Failures of calls panic with their reason, as a test wants it.
pub struct Tester<X: Operator> {
    config: String,
    driver: Option<Driver<X>>,
    memory: Rc<RefCell<Memory>>,
    rows: Vec<Row>,
    rejected: Vec<Rejected>,
    forms: Vec<&'static str>,
}

impl<X: Operator> Tester<X> {
    /// An operator with this configuration (JSON, or empty for none).
    ///
    /// # Panics
    /// Where the operator refuses it.
    #[must_use]
    pub fn new(config: &str) -> Self {
        match Self::open(config) {
            Ok(tester) => tester,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`Tester::new`], for tests of wrong configurations.
    ///
    /// # Errors
    /// Where the operator refuses the configuration.
    pub fn open(config: &str) -> Result<Self, ConfigError> {
        let memory = Rc::new(RefCell::new(Memory { now: [i64::MIN, 0], ..Memory::default() }));
        let mut tester = Self {
            config: config.to_owned(),
            driver: None,
            memory,
            rows: Vec::new(),
            rejected: Vec::new(),
            forms: Vec::new(),
        };
        tester.reopen()?;
        Ok(tester)
    }

    fn reopen(&mut self) -> Result<(), ConfigError> {
        let driver = Driver::open(self.config.as_bytes(), Box::new(MemoryHost(self.memory.clone())))?;
        let spaces = driver.describe("test", "0.0.0").spaces;
        self.memory.borrow_mut().ttls = spaces.into_iter().map(|s| s.ttl.map(|ttl| (ttl.clock, ttl.micros))).collect();
        self.driver = Some(driver);
        Ok(())
    }

    fn driver(&mut self) -> &mut Driver<X> {
        self.driver.as_mut().expect("opened by `new`")
    }

    /// Sends one event with time 0 to the first port.
    pub fn send(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.send_all([(key, value)]);
    }

    /// Sends events with time 0 to the first port, in one call.
    pub fn send_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, events: impl IntoIterator<Item = (K, V)>) {
        self.send_at(0, events.into_iter().map(|(key, value)| (0, key, value)));
    }

    /// Sends events of (time in microseconds, key, value) to a port, in one call.
    ///
    /// # Panics
    /// Where the call fails.
    pub fn send_at<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        port: u16,
        events: impl IntoIterator<Item = (i64, K, V)>,
    ) {
        if let Err(failure) = self.try_send_at(port, events) {
            panic!("process failed: {failure:?}");
        }
    }

    /// As [`Tester::send_at`], for tests of calls that fail.
    ///
    /// # Errors
    /// Where the call fails.
    pub fn try_send_at<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        port: u16,
        events: impl IntoIterator<Item = (i64, K, V)>,
    ) -> Result<(), Failure> {
        let mut batch = Batch { times: Vec::new(), keys: Column::EMPTY, values: Column::EMPTY };
        for (time, key, value) in events {
            batch.times.push(time);
            batch.keys.push(key.as_ref());
            batch.values.push(value.as_ref());
        }
        let outcome = self.driver().process(port, &batch)?;
        self.take(outcome, &batch);
        self.fire_due();
        Ok(())
    }

    /// Raises the watermark: timers that are due fire, and the operator hears of it where it wants to.
    ///
    /// # Panics
    /// Where a call fails.
    pub fn watermark(&mut self, watermark: i64) {
        self.memory.borrow_mut().now[0] = watermark;
        self.fire_due();
        if X::WATERMARKS {
            match self.driver().on_watermark(watermark) {
                Ok(outcome) => {
                    let none = Batch { times: vec![watermark], keys: Column::EMPTY, values: Column::EMPTY };
                    self.take(outcome, &none);
                }
                Err(failure) => panic!("on-watermark failed: {failure:?}"),
            }
            self.fire_due();
        }
    }

    /// Moves the wall clock: timers that are due fire.
    ///
    /// # Panics
    /// Where a call fails.
    pub fn clock(&mut self, now: i64) {
        self.memory.borrow_mut().now[1] = now;
        self.fire_due();
    }

    /// Timers may set timers: all that are due, to the last. Bounded, as a timer that sets itself
    /// again at once would go on for ever.
    fn fire_due(&mut self) {
        for _ in 0..10_000 {
            let mut fired = false;
            for clock in [Clock::Event, Clock::Processing] {
                let mut memory = self.memory.borrow_mut();
                let now = memory.now[usize::from(number(clock))];
                let mut due: Vec<_> = (memory.timers.iter())
                    .filter(|((of, ..), at)| *of == number(clock) && **at <= now)
                    .map(|((_, key, tag), at)| (*at, key.clone(), tag.clone()))
                    .collect();
                due.sort();
                let mut firings = Firings { times: Vec::new(), keys: Column::EMPTY, tags: Column::EMPTY };
                for (at, key, tag) in due {
                    firings.times.push(at);
                    firings.keys.push(&key);
                    firings.tags.push(&tag);
                    memory.timers.remove(&(number(clock), key, tag));
                }
                drop(memory);
                if firings.times.is_empty() {
                    continue;
                }
                fired = true;
                match self.driver().on_timers(clock, &firings) {
                    Ok(outcome) => {
                        let origins = Batch { times: firings.times, keys: firings.keys, values: Column::EMPTY };
                        self.take(outcome, &origins);
                    }
                    Err(failure) => panic!("on-timers failed: {failure:?}"),
                }
            }
            if !fired {
                return;
            }
        }
        panic!("timers go on for ever: one sets itself again at a time that has passed");
    }

    /// What the host makes of an outcome.
    fn take(&mut self, outcome: Outcome, input: &Batch) {
        let rejected: Vec<u32> = outcome.rejected.iter().map(|one| one.row).collect();
        assert!(rejected.windows(2).all(|pair| pair[0] < pair[1]), "rejected rows rise strictly");
        let (keys, values) = (Rows::of(&input.keys), Rows::of(&input.values));
        let rows = input.times.len();
        let mut push = |port, time, key: &[u8], value: &[u8]| {
            self.rows.push(Row { port, time, key: key.to_vec(), value: value.to_vec() });
        };
        let counts = |row: usize| !rejected.contains(&(row as u32));
        for emission in outcome.emissions {
            let port = emission.port;
            match emission.output {
                Output::Unchanged => {
                    self.forms.push("unchanged");
                    (0..rows).filter(|row| counts(*row)).for_each(|row| {
                        push(port, input.times[row], keys.get(row), values.get(row));
                    });
                }
                Output::Keep(bitmap) => {
                    self.forms.push("keep");
                    for (row, keep) in bits(&bitmap, rows).enumerate() {
                        if keep && counts(row) {
                            push(port, input.times[row], keys.get(row), values.get(row));
                        }
                    }
                }
                Output::Values(new) => {
                    self.forms.push("values");
                    assert_eq!(new.ends.len(), rows, "one value for every row");
                    for (row, value) in Rows::of(&new).iter().enumerate().filter(|(row, _)| counts(*row)) {
                        push(port, input.times[row], keys.get(row), value);
                    }
                }
                Output::Rows(new) => {
                    self.forms.push("rows");
                    let own_keys = Rows::of(&new.batch.keys);
                    for (row, value) in Rows::of(&new.batch.values).iter().enumerate() {
                        let origin = new.origins.get(row).map_or(0, |origin| *origin as usize);
                        if !new.origins.is_empty() && !counts(origin) {
                            continue;
                        }
                        let time = new.batch.times.get(row).copied().unwrap_or(input.times[origin]);
                        let key = if own_keys.is_empty() { keys.get(origin) } else { own_keys.get(row) };
                        push(port, time, key, value);
                    }
                }
            }
        }
        self.rejected.extend(outcome.rejected);
    }

    /// What a cut and a swap do: flush, drop the instance, open another on the same state.
    ///
    /// # Panics
    /// Where the operator cannot be opened again.
    pub fn restart(&mut self) {
        self.flush();
        self.crash();
    }

    /// What a changed configuration does: flush, and open another instance on the same state.
    ///
    /// # Panics
    /// Where the operator refuses the configuration.
    pub fn restart_with(&mut self, config: &str) {
        config.clone_into(&mut self.config);
        self.restart();
    }

    /// What an older version has left in a space, taken over: (key, sub-key, value).
    ///
    /// # Errors
    /// Where the operator does not know that version, or an entry is none of it.
    ///
    /// # Panics
    /// Where there is no such space.
    pub fn migrate(&mut self, space: &str, from_version: u32, entries: &[(&str, &[u8], &[u8])]) -> Result<(), Failure> {
        let number = self.space(space);
        let mut old = Entries { keys: Column::EMPTY, subkeys: Column::EMPTY, values: Column::EMPTY };
        for (key, subkey, value) in entries {
            old.keys.push(key.as_bytes());
            old.subkeys.push(subkey);
            old.values.push(value);
        }
        let migrated = self.driver().migrate(number, from_version, &old)?;
        let mut memory = self.memory.borrow_mut();
        for ((row, value), (key, subkey, _)) in (0..).zip(Rows::of(&migrated.values).iter()).zip(entries) {
            if !migrated.dropped.contains(&row) {
                let now = memory.now;
                memory.state.insert((number, key.as_bytes().to_vec(), subkey.to_vec()), (value.to_vec(), now));
            }
        }
        Ok(())
    }

    fn space(&mut self, name: &str) -> u16 {
        let spaces = self.driver().describe("test", "0.0.0").spaces;
        let number = spaces.iter().position(|one| one.name == name);
        number.unwrap_or_else(|| panic!("there is no state space `{name}`")) as u16
    }

    /// What a crash does: drop the instance with what it has not flushed, and open another.
    ///
    /// # Panics
    /// Where the operator cannot be opened again.
    pub fn crash(&mut self) {
        self.driver = None;
        if let Err(error) = self.reopen() {
            panic!("{error}");
        }
    }

    /// Writes cached state, as before a cut.
    pub fn flush(&mut self) {
        self.driver().flush();
    }

    /// Rows since the last look, in order.
    pub fn take_rows(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }

    /// Values of all rows, as text.
    #[must_use]
    pub fn values(&self) -> Vec<String> {
        self.rows.iter().map(Row::text).collect()
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Values of one port, as text.
    #[must_use]
    pub fn port(&self, port: u16) -> Vec<String> {
        self.rows.iter().filter(|row| row.port == port).map(Row::text).collect()
    }

    /// Rejected rows.
    #[must_use]
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// In what form each output crossed: `unchanged`, `keep`, `values` or `rows`.
    #[must_use]
    pub fn forms(&self) -> &[&'static str] {
        &self.forms
    }

    /// The state of a space as of now; it is flushed first.
    ///
    /// # Panics
    /// Where there is no such space.
    pub fn state(&mut self, space: &str) -> Vec<StateEntry> {
        self.flush();
        let number = self.space(space);
        let memory = self.memory.borrow();
        let entries = memory.state.iter().filter(|((of, ..), _)| *of == number);
        entries
            .map(|((_, key, subkey), (value, _))| StateEntry {
                key: key.clone(),
                subkey: subkey.clone(),
                value: value.clone(),
            })
            .collect()
    }

    /// Timers that wait: (clock, key, tag, time).
    #[must_use]
    pub fn timers(&self) -> Vec<(Clock, Vec<u8>, Vec<u8>, i64)> {
        let clock = |number| if number == 0 { Clock::Event } else { Clock::Processing };
        let memory = self.memory.borrow();
        memory.timers.iter().map(|((of, key, tag), at)| (clock(*of), key.clone(), tag.clone(), *at)).collect()
    }

    /// The value of a counter.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.memory.borrow().counters.get(name).copied().unwrap_or(0)
    }

    /// The value of a gauge.
    #[must_use]
    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.memory.borrow().gauges.get(name).copied()
    }

    /// What a distribution has observed.
    #[must_use]
    pub fn observations(&self, name: &str) -> Vec<f64> {
        self.memory.borrow().observations.get(name).cloned().unwrap_or_default()
    }

    /// Calls of state functions since the last look: what moves, and how often.
    pub fn take_state_calls(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.memory.borrow_mut().calls)
    }
}
