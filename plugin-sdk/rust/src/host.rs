//! What the SDK asks of the host: the seam between a plugin and a plain test.

use crate::bindings::wasmill::operator::types::{Clock, Column};

/// State and timers, in batches.
pub(crate) trait Host {
    /// Whether there is any: without, no other function may be called.
    fn stateful(&self) -> bool;
    fn get_many(&self, space: u16, keys: &Column, subkeys: &Column) -> (Vec<u64>, Column);
    fn put_many(&self, space: u16, keys: &Column, subkeys: &Column, values: &Column);
    fn delete_many(&self, space: u16, keys: &Column, subkeys: &Column);
    fn scan(&self, space: u16, key: &[u8], start: &[u8], limit: u32) -> (Column, Column);
    fn now(&self, clock: Clock) -> i64;
    fn set_timers(&self, clock: Clock, keys: &Column, tags: &Column, times: &[i64]);
    fn delete_timers(&self, clock: Clock, keys: &Column, tags: &Column);
    fn count(&self, name: &str, delta: u64);
    fn gauge(&self, name: &str, value: f64);
    fn observe(&self, name: &str, value: f64);
}

/// Said wherever an operator without state turns out to need it.
pub(crate) const NOT_STATEFUL: &str =
    "this operator uses state, timers or watermarks: export it with `wasmill_sdk::operator!(TYPE, stateful)`";

/// The host of the world `stateless`: no import of state or timers is so much as mentioned, so
/// that the component has none.
pub(crate) struct StatelessHost;

impl Host for StatelessHost {
    fn stateful(&self) -> bool {
        false
    }
    fn get_many(&self, _: u16, _: &Column, _: &Column) -> (Vec<u64>, Column) {
        panic!("{NOT_STATEFUL}")
    }
    fn put_many(&self, _: u16, _: &Column, _: &Column, _: &Column) {
        panic!("{NOT_STATEFUL}")
    }
    fn delete_many(&self, _: u16, _: &Column, _: &Column) {
        panic!("{NOT_STATEFUL}")
    }
    fn scan(&self, _: u16, _: &[u8], _: &[u8], _: u32) -> (Column, Column) {
        panic!("{NOT_STATEFUL}")
    }
    fn now(&self, _: Clock) -> i64 {
        panic!("{NOT_STATEFUL}")
    }
    fn set_timers(&self, _: Clock, _: &Column, _: &Column, _: &[i64]) {
        panic!("{NOT_STATEFUL}")
    }
    fn delete_timers(&self, _: Clock, _: &Column, _: &Column) {
        panic!("{NOT_STATEFUL}")
    }
    fn count(&self, name: &str, delta: u64) {
        wasm::count(name, delta);
    }
    fn gauge(&self, name: &str, value: f64) {
        wasm::gauge(name, value);
    }
    fn observe(&self, name: &str, value: f64) {
        wasm::observe(name, value);
    }
}

/// The host of the world `stateful`.
pub(crate) struct StatefulHost;

impl Host for StatefulHost {
    fn stateful(&self) -> bool {
        true
    }
    fn get_many(&self, space: u16, keys: &Column, subkeys: &Column) -> (Vec<u64>, Column) {
        wasm::state::get_many(space, keys, subkeys)
    }
    fn put_many(&self, space: u16, keys: &Column, subkeys: &Column, values: &Column) {
        wasm::state::put_many(space, keys, subkeys, values);
    }
    fn delete_many(&self, space: u16, keys: &Column, subkeys: &Column) {
        wasm::state::delete_many(space, keys, subkeys);
    }
    fn scan(&self, space: u16, key: &[u8], start: &[u8], limit: u32) -> (Column, Column) {
        wasm::state::scan(space, key, start, limit)
    }
    fn now(&self, clock: Clock) -> i64 {
        wasm::timers::now(clock)
    }
    fn set_timers(&self, clock: Clock, keys: &Column, tags: &Column, times: &[i64]) {
        wasm::timers::set_many(clock, keys, tags, times);
    }
    fn delete_timers(&self, clock: Clock, keys: &Column, tags: &Column) {
        wasm::timers::delete_many(clock, keys, tags);
    }
    fn count(&self, name: &str, delta: u64) {
        wasm::count(name, delta);
    }
    fn gauge(&self, name: &str, value: f64) {
        wasm::gauge(name, value);
    }
    fn observe(&self, name: &str, value: f64) {
        wasm::observe(name, value);
    }
}

/// The imports. Off Wasm the bindings are stubs that panic and are never reached: `testing` brings
/// a host of its own.
mod wasm {
    use crate::bindings::wasmill::operator::metrics;
    pub(super) use crate::bindings::wasmill::operator::{state, timers};

    pub(super) fn count(name: &str, delta: u64) {
        metrics::add(name, delta);
    }
    pub(super) fn gauge(name: &str, value: f64) {
        metrics::set(name, value);
    }
    pub(super) fn observe(name: &str, value: f64) {
        metrics::observe(name, value);
    }
}
