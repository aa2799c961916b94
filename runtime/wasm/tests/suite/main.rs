//! The host against guests that behave and guests that do not.

mod calls;
mod support;
