//! Finding fields in JSON without parsing all of it.

/// A place in a JSON value (RFC 6901).
#[derive(Debug, Clone)]
pub struct Pointer;
