use std::fmt;

pub use crate::bindings::wasmill::operator::types::Failure;

/// Why a row cannot be processed. The row goes to the dead-letter queue with this reason, what the
/// operator changed or emitted for it is undone, and the rest of the batch goes on.
///
/// Every error converts with `?`; [`reject!`](crate::reject) makes one from words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    reason: String,
}

/// Reasons are cut here, in bytes.
const REASON_BYTES_MAX: usize = 1024;

impl Reject {
    /// A rejection with its reason: what was expected and what was there.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > REASON_BYTES_MAX {
            let cut = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
            reason.truncate(cut);
        }
        Self { reason }
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn into_reason(self) -> String {
        self.reason
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl<E: std::error::Error> From<E> for Reject {
    #[cold]
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// Rejects the current row: `reject!("price {price} is negative")`.
#[macro_export]
macro_rules! reject {
    ($($words:tt)+) => {
        return ::core::result::Result::Err($crate::Reject::new(::std::format!($($words)+)).into())
    };
}
