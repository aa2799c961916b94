//! Keeps cores from resting while latencies are compared.
//!
//! A machine that rests is slower to wake up, and runs at another clock rate, than one that is busy. So a
//! process of the lowest priority keeps each core busy, whether there is load or not: it takes only what
//! nobody wants.

use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// A process for each core.
pub(crate) struct Busy(Vec<Child>);

impl Busy {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut busy = Self(Vec::new());
        for _ in 0..cores {
            // `--idle`: it gives way at once, as a low priority alone does not.
            let mut command = Command::new("chrt");
            command.args(["--idle", "0", "sh", "-c", "while :; do :; done"]);
            let child = command.stdin(Stdio::null()).spawn().context("cannot start `chrt` (of util-linux)")?;
            busy.0.push(child);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Nothing of it is needed any more.
            let _gone = child.kill().is_err();
            let _gone = child.wait().is_err();
        }
    }
}
