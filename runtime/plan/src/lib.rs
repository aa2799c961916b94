//! From a valid job to a graph of tasks. Pure.
//!
//! Neighbouring nodes of equal partitioning become one *chain*: they run in one task, batch by
//! batch, with no queue between them. Between chains rows travel through a keyed exchange.
//!
//! [`plan`] takes the job and the [`Facts`] that only others know: what plugins say about
//! themselves, what connectors can do, whether a crash is recovered from. It derives what every
//! path from a source to a sink [gives](PathDelivery), and refuses a job that asks for more.
//! [`Explanation`] and [`Picture`] show the result to people.

mod changes;
mod convoy;
mod delivery;
mod exchange;
mod explain;
mod facts;
mod graph;
mod picture;
mod planner;
mod ports;

pub use delivery::{Guarantee, PathDelivery, PathFacts, Verdict, WeakestLink};
pub use exchange::{Exchange, exchange, is_same_edge};
pub use explain::{Explanation, window_text};
pub use facts::{Facts, Recovery, SinkFacts, SourceFacts};
pub use graph::{
    Align, Chain, Convoy, Edge, Extraction, LATE, Node, NodeKind, Plan, Routing, TimeExtraction, Watermarks,
};
pub use picture::Picture;
pub use planner::{Planned, plan};
pub use wasmill_spec::{FaultPolicy, LatePolicy, OrderBy, OrderSpec, SequenceOrder, TimeBound, TimeOrder, TimeUnit};
