//! The durable store from outside: against a model, under crashes and faults, and on frozen files.

mod common;
mod crash;
mod formats;
mod fuzz;
mod model;
