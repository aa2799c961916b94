use std::fmt;

/// Why a text could not be scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanError {
    offset: usize,
    fault: Fault,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Something else stands where this was expected.
    Expected(&'static str),
    /// The text ends inside of a value.
    Ends,
    /// Values are nested deeper than [`crate::DEPTH_MAX`].
    TooDeep,
}

impl ScanError {
    #[cold]
    pub(crate) fn expected(text: &[u8], offset: usize, what: &'static str) -> Self {
        let fault = if offset < text.len() { Fault::Expected(what) } else { Fault::Ends };
        Self { offset: offset.min(text.len()), fault }
    }

    #[cold]
    pub(crate) fn too_deep(offset: usize) -> Self {
        Self { offset, fault: Fault::TooDeep }
    }

    /// Where, in bytes from the start of the text.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.offset;
        match self.fault {
            Fault::Expected(what) => write!(f, "not JSON at byte {at}: expected {what}"),
            Fault::Ends => write!(f, "not JSON: the text ends at byte {at}, inside of a value"),
            Fault::TooDeep => write!(f, "JSON nested deeper than {} levels at byte {at}", crate::DEPTH_MAX),
        }
    }
}

impl std::error::Error for ScanError {}

/// Why a text is not a JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerError {
    pub(crate) pointer: String,
    pub(crate) reason: &'static str,
}

impl fmt::Display for PointerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a JSON pointer: {}", self.pointer, self.reason)
    }
}

impl std::error::Error for PointerError {}
