//! Faults that tests put into a running process: death at a named step, and planted bugs.
//!
//! A build without debug assertions holds neither: both functions are empty there, and no
//! environment variable is read. They are globals, unlike the other parts of this crate, because
//! the process that is to die is the real binary, and because a part handed to every constructor
//! would be one that only tests read.
//!
//! Both cost a look at a static, so they stand where things happen once per epoch, file or batch,
//! never once per event.

/// Names a point and the passing at which the process dies there, from 1: `frame-synced:3`.
pub const KILL_VARIABLE: &str = "WASMILL_KILL";

/// Names one of [`PLANTED_BUGS`].
pub const PLANTED_VARIABLE: &str = "WASMILL_PLANTED";

/// Makes limits small, where it is set, so that a short run reaches them.
pub const SMALL_VARIABLE: &str = "WASMILL_SMALL";

/// Every point at which [`kill_point`] may end the process, in the order of an epoch's life. Each
/// name stands at one place of the sources; a tidy test holds that.
pub const KILL_POINTS: &[&str] = &[
    // The engine, from barrier to acknowledgement.
    "epoch-injected",
    "barrier-aligned",
    "stages-cut",
    "sink-prepare",
    "sink-prepared",
    "cut-reported",
    "cuts-complete",
    "epoch-durable",
    "sink-commit",
    "sink-left",
    "sink-committed",
    "source-acknowledge",
    "source-acknowledged",
    "job-closing",
    "job-closed",
    // Rows of an ordering buffer that wait on disk.
    "spill-written",
    "spill-read",
    "spill-removed",
    // Another plugin in a stage.
    "swap-kept",
    "swap-prepared",
    "swap-settled",
    "state-migrated",
    // Another graph.
    "exchange-parked",
    "exchange-made",
    // The log of a job.
    "frame-append",
    "frame-appended",
    "frame-synced",
    "file-written",
    "file-synced",
    "file-renamed",
    "file-named",
    "compaction-begun",
    "compaction-block",
    "compaction-finish",
    "compaction-removed",
    "store-locked",
    "store-read",
    "store-rewritten",
    "store-opened",
    // Files of rows.
    "file-sink-written",
    "file-sink-synced",
    "file-sink-finish",
    "file-sink-renamed",
    "file-sink-recover",
    "file-sink-truncated",
    "letters-written",
    // Topics and what is delivered after an epoch.
    "outbox-deliver",
    "outbox-delivered",
    "topic-append",
    "topic-appended",
    "topic-synced",
    "topic-rolled",
    "topic-expired",
    "topic-compacted",
    // What a service is to do.
    "serve-record-synced",
    "serve-record-kept",
    "serve-job-deployed",
    "serve-job-rests",
    "serve-job-asleep",
    "serve-job-wakes",
];

/// Every bug that [`planted`] may let in, with what it does.
pub const PLANTED_BUGS: &[(&str, &str)] = &[
    ("acknowledge-before-sync", "an epoch counts once it is written, before it is synced"),
    ("rename-before-sync", "a file of the log has its name before its bytes are durable"),
    ("name-not-synced", "a file of the log has its name, and a crash may take it away again"),
    ("checksum-not-verified", "frames are taken as they are read"),
    ("last-frame-forgotten", "recovery does not write the last frame again, which nothing says is durable"),
    ("failed-sync-forgotten", "a store goes on after a failed write as if nothing had happened"),
    ("epochs-in-any-order", "the store takes any epoch as the next one"),
    ("rescaled-to-others", "state is dealt to tasks by other key groups than rows are"),
    ("store-reused-after-trap", "an instance that has failed goes on in place of a fresh one"),
    ("undo-skipped", "what a failed call has written stays"),
    ("state-not-in-cut", "changes of state are left out of the cut"),
    ("timers-not-in-cut", "timers are left out of the cut"),
    ("panes-not-in-cut", "open windows are left out of the cut"),
    ("held-not-in-cut", "rows that an ordering buffer holds are left out of the cut"),
    ("letters-not-in-cut", "rejected rows are left out of the cut"),
    ("watermark-of-the-fastest", "the maximum of the inputs' watermarks instead of their minimum"),
    ("barrier-not-aligned", "rows behind a barrier are worked off before the other inputs have theirs"),
    ("lanes-as-they-stand", "a ticket of a convoy leaves lane by lane"),
    ("moved-keys-forgotten", "keys move to another lane without what the first one keeps of them"),
    ("swap-not-recorded", "the epoch does not say which plugin was swapped in"),
    ("swap-trial-counts", "what a plugin did when it was tried stays"),
    ("commit-before-durable", "sinks are told to commit before the epoch is durable"),
    ("positions-before-rows", "positions are committed of rows that are still in a buffer"),
    ("file-not-truncated", "rows that were never committed stay in the file"),
    ("half-a-line-kept", "a direct writer goes on behind half a row"),
    ("most-once-leaves-early", "at-most-once: rows leave before their epoch is durable"),
    ("once-is-at-once", "exactly-once: the sink is the direct one"),
];

/// Ends the process with signal 9 if `WASMILL_KILL` names this point and this passing.
#[inline]
pub fn kill_point(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::kill_point(name);
    #[cfg(not(debug_assertions))]
    let _unarmed = name;
}

/// Whether `WASMILL_PLANTED` names this bug.
#[inline]
#[must_use]
pub fn planted(name: &'static str) -> bool {
    #[cfg(debug_assertions)]
    return armed::planted(name);
    #[cfg(not(debug_assertions))]
    {
        let _unarmed = name;
        false
    }
}

/// Whether limits that only long runs reach are to be small: the bytes at which a log is folded, say.
#[inline]
#[must_use]
pub fn small_limits() -> bool {
    #[cfg(debug_assertions)]
    return armed::small_limits();
    #[cfg(not(debug_assertions))]
    false
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::{KILL_POINTS, KILL_VARIABLE, PLANTED_BUGS, PLANTED_VARIABLE};

    /// The point, and how many passings are left until it kills.
    static KILL: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let wanted = std::env::var(KILL_VARIABLE).ok()?;
        let (name, nth) = wanted.rsplit_once(':')?;
        Some((name.to_owned(), AtomicU64::new(nth.parse().ok()?)))
    });

    static PLANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(PLANTED_VARIABLE).ok());

    pub(super) fn small_limits() -> bool {
        static SMALL: LazyLock<bool> = LazyLock::new(|| std::env::var_os(super::SMALL_VARIABLE).is_some());
        *SMALL
    }

    pub(super) fn kill_point(name: &'static str) {
        debug_assert!(KILL_POINTS.contains(&name), "{name} is not in KILL_POINTS");
        if let Some((wanted, left)) = &*KILL
            && wanted == name
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            // Nothing runs behind it: no destructor, no buffer is written.
            let _dying = kill_process(getpid(), Signal::KILL);
        }
    }

    pub(super) fn planted(name: &'static str) -> bool {
        debug_assert!(PLANTED_BUGS.iter().any(|(bug, _)| *bug == name), "{name} is not in PLANTED_BUGS");
        PLANTED.as_deref() == Some(name)
    }
}
