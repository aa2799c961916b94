//! From a valid job to a graph of tasks. Pure.
//!
//! Neighbouring nodes of equal partitioning become one *chain*: they run in one task, batch by
//! batch, with no queue between them. Between chains rows travel through a keyed exchange.

mod graph;

pub use graph::{Chain, Edge, Extraction, Node, NodeKind, Plan, Routing, TimeExtraction, TimeUnit, Watermarks};
