//! Topics: a naive model, crashes, old files, many at once.

mod common;
mod crash;
mod formats;
mod fuzz;
mod model;
mod shared;
