use std::collections::HashMap;

use wasmill_contract::MetricUpdate;
use wasmill_model::LogLevel;
use wasmtime::component::Linker;

use super::define_action;
use crate::abi::interface;
use crate::guest::Guest;

const NAMES_MAX: usize = 200;
const NAME_BYTES_MAX: usize = 64;
const OBSERVATIONS_PER_CALL_MAX: u32 = 10_000;

/// The metrics that an instance has named, and where the running call put the update of each.
#[derive(Debug, Default)]
pub(crate) struct MetricNames {
    places: HashMap<String, Option<usize>>,
    touched: bool,
}

impl MetricNames {
    pub(crate) fn begin_call(&mut self) {
        if std::mem::take(&mut self.touched) {
            self.places.values_mut().for_each(|place| *place = None);
        }
    }
}

pub(super) fn add_to(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut metrics = linker.instance(interface!("metrics"))?;
    define_action(&mut metrics, "add", |guest, (name, delta): (String, u64)| {
        guest.update(name, MetricUpdateKind::Add(delta));
        Ok(())
    })?;
    define_action(&mut metrics, "set", |guest, (name, value): (String, f64)| {
        guest.update(name, MetricUpdateKind::Set(value));
        Ok(())
    })?;
    define_action(&mut metrics, "observe", |guest, (name, value): (String, f64)| {
        guest.update(name, MetricUpdateKind::Observe(value));
        Ok(())
    })
}

#[derive(Clone, Copy)]
enum MetricUpdateKind {
    Add(u64),
    Set(f64),
    Observe(f64),
}

impl Guest {
    /// Counters and gauges of one call fold into one update each. What the bounds refuse is
    /// dropped and said in the log: a metric is no reason to fail a batch.
    fn update(&mut self, name: String, kind: MetricUpdateKind) {
        let Some(context) = &mut self.context else { return };
        if let MetricUpdateKind::Observe(_) = kind {
            self.call.observations += 1;
            if self.call.observations > OBSERVATIONS_PER_CALL_MAX {
                if self.call.observations == OBSERVATIONS_PER_CALL_MAX + 1 {
                    let bound = format!("a call may observe {OBSERVATIONS_PER_CALL_MAX} values, the rest is dropped");
                    self.say(LogLevel::Warn, bound);
                }
                return;
            }
        }
        if let Some(place) = self.metric_names.places.get(&name).copied() {
            let earlier = place.and_then(|place| context.metrics.get_mut(place));
            match (kind, earlier) {
                (MetricUpdateKind::Add(delta), Some(MetricUpdate::Add(_, sum))) => {
                    *sum = sum.saturating_add(delta);
                    return;
                }
                (MetricUpdateKind::Set(value), Some(MetricUpdate::Set(_, last))) => {
                    *last = value;
                    return;
                }
                _ => {}
            }
        } else if !is_name(&name) {
            self.say(LogLevel::Warn, format!("metric {name:?} dropped: a name is [a-z0-9_]{{1,{NAME_BYTES_MAX}}}"));
            return;
        } else if self.metric_names.places.len() >= NAMES_MAX {
            self.say(LogLevel::Warn, format!("metric {name} dropped: an instance may name {NAMES_MAX}"));
            return;
        }
        self.metric_names.touched = true;
        if let Some(place) = self.metric_names.places.get_mut(&name) {
            *place = Some(context.metrics.len());
        } else {
            self.metric_names.places.insert(name.clone(), Some(context.metrics.len()));
        }
        context.metrics.push(match kind {
            MetricUpdateKind::Add(delta) => MetricUpdate::Add(name, delta),
            MetricUpdateKind::Set(value) => MetricUpdate::Set(name, value),
            MetricUpdateKind::Observe(value) => MetricUpdate::Observe(name, value),
        });
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}
