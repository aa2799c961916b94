use std::sync::Arc;

use wasmill_contract::TimerChange;
use wasmill_model as model;
use wasmtime::component::Linker;

use super::{KEY_BYTES_MAX, define, define_action};
use crate::abi::{Clock, Column, interface};
use crate::capability::state::{column, rows_within};
use crate::guest::{Guest, Violation};

const TIMERS_PER_CALL_MAX: usize = 100_000;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut timers = linker.instance(interface!("timers"))?;
    define(&mut timers, "now", |guest, (clock,): (Clock,)| {
        let context = guest.context("timers.now")?;
        Ok(match clock.into() {
            model::Clock::Event => context.watermark.0,
            model::Clock::Processing => context.wall.0,
        })
    })?;
    define_action(&mut timers, "set-many", |guest, (clock, keys, tags, times): (Clock, Column, Column, Vec<i64>)| {
        if times.len() != keys.ends.len() {
            let (times, keys) = (times.len(), keys.ends.len());
            return Err(Violation::Contract(format!("timers.set-many has {times} times for {keys} keys")));
        }
        guest.change_timers("timers.set-many", clock, keys, tags, Some(times))
    })?;
    define_action(&mut timers, "delete-many", |guest, (clock, keys, tags): (Clock, Column, Column)| {
        guest.change_timers("timers.delete-many", clock, keys, tags, None)
    })
}

impl Guest {
    fn change_timers(
        &mut self,
        call: &'static str,
        clock: Clock,
        keys: Column,
        tags: Column,
        times: Option<Vec<i64>>,
    ) -> Result<(), Violation> {
        let keys = column(call, "keys", keys)?;
        let mut tags = column(call, "tags", tags)?;
        if tags.is_empty() {
            tags = model::Column::empty_rows(keys.len());
        }
        if tags.len() != keys.len() {
            return Err(Violation::Contract(format!("{call} has {} tags for {} keys", tags.len(), keys.len())));
        }
        rows_within(call, "a key", &keys, KEY_BYTES_MAX)?;
        rows_within(call, "a tag", &tags, KEY_BYTES_MAX)?;
        self.call.timers += keys.len();
        if self.call.timers > TIMERS_PER_CALL_MAX {
            return Err(Violation::Limit(format!("{TIMERS_PER_CALL_MAX} timers in one call")));
        }
        let set = self.call.timers as u64;
        let context = self.context(call)?;
        if let Some(account) = context.bounded_by().filter(|_| times.is_some()) {
            account.timers.room_for(set).map_err(Violation::Limit)?;
        }
        context.timers.push(TimerChange { clock: clock.into(), keys: Arc::new(keys), tags: Arc::new(tags), times });
        Ok(())
    }
}
