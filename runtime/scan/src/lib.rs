//! Finds fields in JSON without parsing all of it.
//!
//! The host takes event times and keys out of rows with a [`Pointer`]; guests take the fields they
//! need with [`Fields`]. Neither builds a tree: text that was not asked for is jumped over, eight
//! bytes at a time and more in long strings, and a search stops where all was found.
//!
//! # What is promised
//! - On valid JSON the result is that of a full parser. Where an object repeats a key, the
//!   **first** one counts (a search that stops early cannot know of a later one).
//! - A scan is not a validation. On text that is not JSON the result is an error or a slice of the
//!   input; the accessors of [`Raw`] check what they decode, so that `as_u64`, `as_str` and the
//!   others give `None` rather than a wrong value.
//! - No input panics. Time is linear in the input. Values nested deeper than [`DEPTH_MAX`] are an
//!   error. Nothing is allocated but the text of strings and keys with escapes.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod cursor;
mod error;
mod fields;
mod pointer;
mod raw;
mod text;
mod word;

pub use cursor::DEPTH_MAX;
pub use error::{Fault, PointerError, ScanError};
pub use fields::{Fields, fields};
pub use pointer::Pointer;
pub use raw::{Entries, Items, Kind, Raw};
