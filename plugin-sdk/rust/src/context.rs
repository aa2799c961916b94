use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;

use crate::Reject;
use crate::bindings::wasmill::operator::types::{Clock, Emission, Outcome, Rejected};
use crate::event::{Event, Events};
use crate::output::{Origin, PortOutput};
use crate::state::Shared;

/// What an operator acts through during a call: it emits rows, sets timers and asks for the time.
///
/// Rows leave by the first output port unless [`Context::port`] says otherwise.
pub struct Context<'b> {
    pub(crate) shared: Rc<Shared>,
    events: Events<'b>,
    event: Event<'b>,
    origin: Origin,
    slots: Vec<u32>,
    ports: Vec<PortOutput>,
    names: Rc<[String]>,
    rejected: Vec<Rejected>,
}

/// An output port by its place or its name.
pub trait PortRef {
    /// Its place among these.
    fn resolve(&self, names: &[String]) -> Option<usize>;
}

impl PortRef for u16 {
    #[inline]
    fn resolve(&self, names: &[String]) -> Option<usize> {
        Some(usize::from(*self)).filter(|at| *at < names.len())
    }
}

impl PortRef for usize {
    #[inline]
    fn resolve(&self, names: &[String]) -> Option<usize> {
        Some(*self).filter(|at| *at < names.len())
    }
}

impl PortRef for &str {
    fn resolve(&self, names: &[String]) -> Option<usize> {
        names.iter().position(|name| name == self)
    }
}

impl<'b> Context<'b> {
    pub(crate) fn new(
        shared: Rc<Shared>,
        names: Rc<[String]>,
        events: Events<'b>,
        origin: Origin,
        slots: Vec<u32>,
    ) -> Self {
        let ports = names.iter().map(|_| PortOutput::default()).collect();
        Self {
            shared,
            events,
            event: Event { row: 0, port: 0, time: 0, key: &[], value: &[] },
            origin,
            slots,
            ports,
            names,
            rejected: Vec::new(),
        }
    }

    /// The events of this call.
    #[inline]
    #[must_use]
    pub fn events(&self) -> Events<'b> {
        self.events
    }

    /// Handles the events of this call one by one: state and timers are those of the event's key,
    /// and an event that is rejected leaves no trace in state, timers and output.
    #[inline(always)]
    pub fn each(&mut self, mut handle: impl FnMut(Event<'b>, &mut Self) -> Result<(), Reject>) {
        let events = self.events;
        for event in events.iter() {
            self.enter(event);
            if let Err(reject) = handle(event, self) {
                self.reject(reject);
            }
        }
        self.shared.leave();
    }

    /// Lets those events out for which a function says so, by the first port: the fast way of a
    /// filter without state, in a [`Operator::batch`](crate::Operator::batch) that emits nothing
    /// else.
    #[inline(always)]
    pub fn filter(&mut self, mut keep: impl FnMut(Event<'b>) -> Result<bool, Reject>) {
        let events = self.events;
        let mut bits = Vec::with_capacity(events.len().div_ceil(64));
        let mut word = 0;
        for event in events.iter() {
            let place = event.row % 64;
            match keep(event) {
                Ok(keep) => word |= u64::from(keep) << place,
                Err(reject) => self.rejected.push(Rejected { row: event.row, reason: reject.into_reason() }),
            }
            if place == 63 {
                bits.push(std::mem::take(&mut word));
            }
        }
        if events.len() % 64 != 0 {
            bits.push(word);
        }
        if let Some(port) = self.ports.first_mut() {
            port.keep(bits, events.len() as u32);
        }
    }

    #[inline(always)]
    fn enter(&mut self, event: Event<'b>) {
        self.event = event;
        if let Some(slot) = self.slots.get(event.row as usize) {
            self.shared.enter(*slot);
        }
    }

    #[cold]
    fn reject(&mut self, reject: Reject) {
        self.shared.undo();
        self.ports.iter_mut().for_each(|port| port.reject(self.event.row));
        self.rejected.push(Rejected { row: self.event.row, reason: reject.into_reason() });
    }

    /// Another output port, by place or by name.
    ///
    /// # Panics
    /// Where the operator declares no such port.
    #[inline]
    pub fn port(&mut self, port: impl PortRef) -> Port<'_, 'b> {
        match port.resolve(&self.names) {
            Some(at) => Port { context: self, at },
            None => panic!("no such output port; this operator declares {:?}", self.names),
        }
    }

    /// Lets the event out as it came in.
    #[inline(always)]
    pub fn forward(&mut self) {
        self.forward_at(0);
    }

    /// Emits a value, with the key and time of the event.
    #[inline(always)]
    pub fn emit(&mut self, value: impl AsRef<[u8]>) {
        self.emit_at(0, None, None, |buffer| crate::append(buffer, value.as_ref()));
    }

    /// Emits a value that is written into a buffer: nothing is copied. What the buffer holds
    /// already belongs to other rows.
    #[inline(always)]
    pub fn emit_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.emit_at(0, None, None, write);
    }

    /// Emits a value as JSON.
    ///
    /// # Errors
    /// Where JSON cannot hold the value.
    #[inline]
    pub fn emit_json(&mut self, value: &impl Serialize) -> Result<(), Reject> {
        self.emit_json_at(0, None, None, value)
    }

    /// A row with a key or a time of its own: `ctx.row().key(b"total").emit(b"7")`.
    #[inline]
    pub fn row(&mut self) -> RowBuilder<'_, 'b> {
        self.port(0usize).row()
    }

    #[inline(always)]
    fn forward_at(&mut self, at: usize) {
        assert!(self.origin == Origin::Input, "only events can be forwarded: a timer or a watermark emits rows");
        if let Some(port) = self.ports.get_mut(at) {
            port.forward(&self.event, &self.events);
        }
    }

    #[inline(always)]
    fn emit_at(&mut self, at: usize, key: Option<&[u8]>, time: Option<i64>, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(port) = self.ports.get_mut(at) {
            port.start_value(&self.event, &self.events, self.origin, key.is_some() || time.is_some());
            write(port.buffer());
            port.end_value(&self.event, key, time, &self.events);
        }
    }

    fn emit_json_at(
        &mut self,
        at: usize,
        key: Option<&[u8]>,
        time: Option<i64>,
        value: &impl Serialize,
    ) -> Result<(), Reject> {
        let Some(port) = self.ports.get_mut(at) else { return Ok(()) };
        port.start_value(&self.event, &self.events, self.origin, key.is_some() || time.is_some());
        if let Err(error) = serde_json::to_writer(port.buffer(), value) {
            port.undo_value();
            return Err(error.into());
        }
        port.end_value(&self.event, key, time, &self.events);
        Ok(())
    }

    /// The time by a clock, in microseconds since the Unix epoch: the watermark of the stage, or
    /// the wall clock at the start of the call.
    #[must_use]
    pub fn now(&self, clock: Clock) -> i64 {
        self.shared.now(clock)
    }

    /// Sets a timer for the key of the event; [`Operator::timer`](crate::Operator::timer) is
    /// called when it is due. One per clock, key and tag: setting it again moves it. `at` is in
    /// microseconds since the Unix epoch.
    pub fn set_timer(&mut self, clock: Clock, at: i64, tag: impl AsRef<[u8]>) {
        self.shared.timer(clock, tag.as_ref(), Some(at));
    }

    /// Sets a timer for some time after now.
    pub fn set_timer_in(&mut self, clock: Clock, after: Duration, tag: impl AsRef<[u8]>) {
        let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        self.set_timer(clock, self.now(clock).saturating_add(micros), tag);
    }

    /// Deletes a timer of the event's key, where there is one.
    pub fn delete_timer(&mut self, clock: Clock, tag: impl AsRef<[u8]>) {
        self.shared.timer(clock, tag.as_ref(), None);
    }

    pub(crate) fn take_slots(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.slots)
    }

    pub(crate) fn outcome(mut self) -> Outcome {
        let (rows, origin) = (self.events.len(), self.origin);
        let emissions = (0..)
            .zip(&mut self.ports)
            .filter_map(|(port, output)| Some(Emission { port, output: output.finish(rows, origin)? }))
            .collect();
        Outcome { emissions, rejected: self.rejected }
    }
}

/// An output port during a call.
pub struct Port<'c, 'b> {
    context: &'c mut Context<'b>,
    at: usize,
}

impl<'c, 'b> Port<'c, 'b> {
    /// Lets the event out as it came in.
    #[inline]
    pub fn forward(&mut self) {
        self.context.forward_at(self.at);
    }

    /// Emits a value, with the key and time of the event.
    #[inline]
    pub fn emit(&mut self, value: impl AsRef<[u8]>) {
        self.context.emit_at(self.at, None, None, |buffer| crate::append(buffer, value.as_ref()));
    }

    /// As [`Context::emit_with`].
    #[inline]
    pub fn emit_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.context.emit_at(self.at, None, None, write);
    }

    /// Emits a value as JSON.
    ///
    /// # Errors
    /// Where JSON cannot hold the value.
    pub fn emit_json(&mut self, value: &impl Serialize) -> Result<(), Reject> {
        self.context.emit_json_at(self.at, None, None, value)
    }

    /// A row with a key or a time of its own.
    #[inline]
    pub fn row(self) -> RowBuilder<'c, 'b> {
        RowBuilder { port: self, key: None, time: None }
    }
}

/// A row with a key or a time of its own.
#[must_use = "a row leaves with `emit`"]
pub struct RowBuilder<'c, 'b> {
    port: Port<'c, 'b>,
    key: Option<&'c [u8]>,
    time: Option<i64>,
}

impl<'c> RowBuilder<'c, '_> {
    /// Its key.
    #[inline]
    pub fn key(mut self, key: &'c (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Its event time, in microseconds since the Unix epoch.
    #[inline]
    pub fn time(mut self, time: i64) -> Self {
        self.time = Some(time);
        self
    }

    /// Emits it with this value.
    #[inline]
    pub fn emit(self, value: impl AsRef<[u8]>) {
        self.emit_with(|buffer| crate::append(buffer, value.as_ref()));
    }

    /// Emits it with a value that is written into a buffer.
    #[inline]
    pub fn emit_with(self, write: impl FnOnce(&mut Vec<u8>)) {
        self.port.context.emit_at(self.port.at, self.key, self.time, write);
    }

    /// Emits it with a value as JSON.
    ///
    /// # Errors
    /// Where JSON cannot hold the value.
    pub fn emit_json(self, value: &impl Serialize) -> Result<(), Reject> {
        self.port.context.emit_json_at(self.port.at, self.key, self.time, value)
    }
}
