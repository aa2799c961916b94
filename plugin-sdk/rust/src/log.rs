//! Log lines of an operator. They appear in the job's log once the call that wrote them counts.

pub use crate::bindings::wasmill::operator::log::Level;

/// Writes a line. Use [`debug!`](crate::debug), [`info!`](crate::info), [`warn!`](crate::warn) or
/// [`error!`](crate::error).
pub fn write(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::wasmill::operator::log::write(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    native::write(level, message);
}

/// Writes at level `debug`: for the author of the operator.
#[macro_export]
macro_rules! debug {
    ($($words:tt)+) => { $crate::log::write($crate::log::Level::Debug, &::std::format!($($words)+)) };
}

/// Writes at level `info`: for whoever looks.
#[macro_export]
macro_rules! info {
    ($($words:tt)+) => { $crate::log::write($crate::log::Level::Info, &::std::format!($($words)+)) };
}

/// Writes at level `warn`: something is odd.
#[macro_export]
macro_rules! warn {
    ($($words:tt)+) => { $crate::log::write($crate::log::Level::Warn, &::std::format!($($words)+)) };
}

/// Writes at level `error`: something is wrong.
#[macro_export]
macro_rules! error {
    ($($words:tt)+) => { $crate::log::write($crate::log::Level::Error, &::std::format!($($words)+)) };
}

/// Off Wasm there is no host: lines are kept for `testing`.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native {
    use std::cell::RefCell;

    use super::Level;

    const LINES_MAX: usize = 10_000;

    thread_local! {
        static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn write(level: Level, message: &str) {
        LINES.with_borrow_mut(|lines| {
            if lines.len() < LINES_MAX {
                lines.push((level, message.to_owned()));
            }
        });
    }

    pub(crate) fn take() -> Vec<(Level, String)> {
        LINES.take()
    }
}

/// Sends the message of a panic to the log before the trap, which has none.
pub(crate) fn install_panic_hook() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| write(Level::Error, &panic.to_string()))));
    }
}
