//! Metrics of an operator, published under its job and stage. Made in
//! [`Operator::open`](crate::Operator::open); sent once a call.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::host::Host;

/// Observations of one call that are kept; more than these are dropped.
const OBSERVATIONS_MAX: usize = 1024;

/// A number that only grows.
#[derive(Clone)]
pub struct Counter(Rc<Cell<u64>>);

impl Counter {
    /// Adds to it.
    #[inline]
    pub fn add(&self, delta: u64) {
        self.0.set(self.0.get().wrapping_add(delta));
    }
}

/// A number that goes up and down.
#[derive(Clone)]
pub struct Gauge(Rc<Cell<Option<f64>>>);

impl Gauge {
    /// Sets it.
    #[inline]
    pub fn set(&self, value: f64) {
        self.0.set(Some(value));
    }
}

/// The distribution of what is observed. Up to 1,024 observations of a call are kept.
#[derive(Clone)]
pub struct Histogram(Rc<RefCell<Vec<f64>>>);

impl Histogram {
    /// Records one observation.
    #[inline]
    pub fn observe(&self, value: f64) {
        let mut seen = self.0.borrow_mut();
        if seen.len() < OBSERVATIONS_MAX {
            seen.push(value);
        }
    }
}

#[derive(Default)]
pub(crate) struct Metrics {
    counters: Vec<(String, Counter)>,
    gauges: Vec<(String, Gauge)>,
    histograms: Vec<(String, Histogram)>,
}

impl Metrics {
    pub(crate) fn counter(&mut self, name: &str) -> Counter {
        let counter = Counter(Rc::default());
        self.counters.push((name.to_owned(), counter.clone()));
        counter
    }

    pub(crate) fn gauge(&mut self, name: &str) -> Gauge {
        let gauge = Gauge(Rc::default());
        self.gauges.push((name.to_owned(), gauge.clone()));
        gauge
    }

    pub(crate) fn histogram(&mut self, name: &str) -> Histogram {
        let histogram = Histogram(Rc::default());
        self.histograms.push((name.to_owned(), histogram.clone()));
        histogram
    }

    pub(crate) fn send(&self, host: &dyn Host) {
        for (name, counter) in self.counters.iter().filter(|(_, counter)| counter.0.get() > 0) {
            host.count(name, counter.0.take());
        }
        for (name, gauge) in &self.gauges {
            if let Some(value) = gauge.0.take() {
                host.gauge(name, value);
            }
        }
        for (name, histogram) in &self.histograms {
            histogram.0.borrow_mut().drain(..).for_each(|value| host.observe(name, value));
        }
    }

    /// Forgets what a failed call has counted.
    pub(crate) fn clear(&self) {
        self.counters.iter().for_each(|(_, counter)| counter.0.set(0));
        self.gauges.iter().for_each(|(_, gauge)| gauge.0.set(None));
        self.histograms.iter().for_each(|(_, histogram)| histogram.0.borrow_mut().clear());
    }
}
