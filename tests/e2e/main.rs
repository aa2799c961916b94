//! The binary as people use it: one file for each thing it promises.

mod apply;
mod beside;
mod beside_windows;
mod control;
mod convoy;
mod disk;
mod faults;
mod ingest;
mod jobs;
mod migrate;
mod order;
mod pictures;
mod plugins;
mod project;
mod raw;
mod savepoint;
mod service;
mod state;
mod stop;
mod support;
mod swap;
mod topics;
mod why;
