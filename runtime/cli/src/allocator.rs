//! How the allocator keeps memory in a process whose jobs come and go by the thousand.
//!
//! By itself it backs memory with pages of 2 MiB, keeps pages that are free with the thread that had them,
//! and gives them back once somebody allocates. That suits one busy job. A service whose jobs have gone to
//! rest would stay as large as it ever was.

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::{c_int, c_long};
use std::sync::Arc;
use std::time::Duration;

// Linked in tests, too, where it is not the allocator.
use mimalloc as _;
use wasmill_env::Clock;

// Numbers of options in mimalloc.h, in these versions: they hold within a minor one.
const VERSIONS: std::ops::Range<c_int> = 30_300..30_400;
const GENERIC_COLLECT: c_int = 34;
const PAGE_RECLAIM_ON_FREE: c_int = 35;
const PAGE_FULL_RETAIN: c_int = 36;

/// A thread looks for what it may give back once so many of its allocations were not the quickest ones.
const COLLECT_EVERY: c_long = 500;
/// And before it rests, where it has not for so long.
const PARK_COLLECT: Duration = Duration::from_secs(1);
/// A thread that has nothing to block on ends after so long: a few operations a second would keep all of them,
/// as each has its turn.
const BLOCKING_KEPT: Duration = Duration::from_millis(250);
/// From one time that all that is free goes back to the system to the next.
const GIVE_BACK: Duration = Duration::from_secs(5);

#[expect(unsafe_code, reason = "functions of mimalloc that its crate does not declare")]
unsafe extern "C" {
    safe fn mi_version() -> c_int;
    safe fn mi_option_set(option: c_int, value: c_long);
    safe fn mi_collect(force: bool);
}

/// Has threads that are started from here on keep less of what is free, at the price of some page faults.
pub(crate) fn frugal() {
    // It works without, too: memory is larger then.
    let _unsupported = rustix::thread::disable_transparent_huge_pages(true).is_err();
    if VERSIONS.contains(&mi_version()) {
        mi_option_set(GENERIC_COLLECT, COLLECT_EVERY);
        // Whoever frees the last of a page of a thread that has ended takes it over.
        mi_option_set(PAGE_RECLAIM_ON_FREE, 1);
        mi_option_set(PAGE_FULL_RETAIN, 0);
    }
}

/// Has the threads of a runtime let go of pages that they keep for themselves: workers before they rest, and
/// those that block by their end.
pub(crate) fn tune(builder: &mut tokio::runtime::Builder, clock: Arc<dyn Clock>) {
    thread_local!(static LAST: Cell<u64> = const { Cell::new(0) });
    builder.thread_keep_alive(BLOCKING_KEPT).on_thread_park(move || {
        let now = clock.monotonic_nanos();
        if u128::from(now.saturating_sub(LAST.get())) > PARK_COLLECT.as_nanos() {
            LAST.set(now);
            mi_collect(false);
        }
    });
}

/// Gives what is free back to the system, from time to time. Within a runtime.
pub(crate) async fn keep_small(clock: &dyn Clock) -> Infallible {
    loop {
        clock.sleep(GIVE_BACK).await;
        // It may take some milliseconds. A panic is none of ours.
        let _ended = tokio::task::spawn_blocking(|| mi_collect(true)).await.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_allocator() {
        assert!(VERSIONS.contains(&mi_version()), "look up the numbers of the options in its mimalloc.h");
    }
}
