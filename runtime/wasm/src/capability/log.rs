use wasmill_contract::LogLine;
use wasmill_model::LogLevel;
use wasmtime::component::Linker;

use super::define_action;
use crate::abi::{Level, interface};
use crate::guest::Guest;
use crate::text;

const LINE_BYTES_MAX: usize = 8 << 10;
const LINES_PER_CALL_MAX: u32 = 100;
/// Of the error lines of a call, kept to explain a trap.
const COMPLAINT_BYTES_MAX: usize = 4 << 10;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut log = linker.instance(interface!("log"))?;
    define_action(&mut log, "write", |guest, (level, message): (Level, String)| {
        guest.log(level.into(), message);
        Ok(())
    })
}

impl Guest {
    fn log(&mut self, level: LogLevel, message: String) {
        if level == LogLevel::Error {
            // A runtime that dies says so in several pieces. The first ones say most.
            let complaint = self.call.complaint.get_or_insert_default();
            let room = COMPLAINT_BYTES_MAX.saturating_sub(complaint.len());
            complaint.push_str(&message[..message.floor_char_boundary(room)]);
            if room > message.len() && !message.ends_with('\n') {
                complaint.push('\n');
            }
        }
        self.say(level, message);
    }

    /// Adds a line to the log of the call.
    pub(crate) fn say(&mut self, level: LogLevel, message: String) {
        if self.call.log_lines >= LINES_PER_CALL_MAX {
            self.call.log_dropped += 1;
            return;
        }
        self.call.log_lines += 1;
        if let Some(context) = &mut self.context {
            context.log.push(LogLine { level, message: text::clean(message, LINE_BYTES_MAX) });
        }
    }

    /// Says at the end of a call how many lines it lost.
    pub(crate) fn close_log(&mut self) {
        let dropped = std::mem::take(&mut self.call.log_dropped);
        if dropped > 0
            && let Some(context) = &mut self.context
        {
            let message = format!("{dropped} more lines dropped: a call may log {LINES_PER_CALL_MAX}");
            context.log.push(LogLine { level: LogLevel::Warn, message });
        }
    }
}
