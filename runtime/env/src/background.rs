use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{mpsc, oneshot};

/// Work that waits for the thread. Who brings more waits.
const WAITING_MAX: usize = 64;
/// Above what people begin by themselves, so that whatever wants a processor is served before it.
const NICENESS: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// A thread of low priority for what takes a processor for milliseconds while no row waits for it, such as hashing a
/// plugin: one piece of work after the other, whoever brings it, so that no number of requests is felt by rows.
#[derive(Debug, Clone)]
pub struct Background(mpsc::Sender<Work>);

impl Background {
    /// Starts the thread, which ends with the last clone.
    ///
    /// # Errors
    /// Where the machine has no thread left.
    pub fn start() -> io::Result<Self> {
        let (sender, mut waiting) = mpsc::channel::<Work>(WAITING_MAX);
        std::thread::Builder::new().name("wasmill-beside".into()).spawn(move || {
            // Where it cannot be had, the work is done beside everything else.
            let _beside = rustix::process::nice(NICENESS).is_err();
            while let Some(work) = waiting.blocking_recv() {
                work();
            }
        })?;
        Ok(Self(sender))
    }

    /// Does `work` when it is its turn. Work whose caller went away before is left out.
    ///
    /// # Errors
    /// Where the work panicked, as its message says.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        let work = move || {
            if !answer.is_closed() {
                // Nobody is left to hear of it where the caller went away meanwhile.
                let _gone = answer.send(catch_unwind(AssertUnwindSafe(work))).is_err();
            }
        };
        let ended = |_| io::Error::other("the thread of low priority ended");
        self.0.send(Box::new(work)).await.map_err(|_| ended(()))?;
        answered.await.map_err(|_| ended(()))?.map_err(|panic| io::Error::other(message(&*panic)))
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", said.unwrap_or("for no reason that it gave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_in_turn_and_a_panic_ends_nothing_else() {
        let background = Background::start().expect("a thread");
        let niceness = || rustix::process::nice(0).expect("a niceness");
        let here = niceness();
        assert_eq!(background.run(niceness).await.expect("done"), (here + NICENESS).min(19));
        let failed = background.run(|| -> u32 { panic!("row {}", 7) }).await.expect_err("panicked");
        assert_eq!(failed.to_string(), "it panicked: row 7");
        assert_eq!(background.run(|| 1 + 1).await.expect("done"), 2);
    }

    #[tokio::test]
    async fn work_of_a_caller_who_went_away_is_left_out() {
        let background = Background::start().expect("a thread");
        let (go, gone) = std::sync::mpsc::sync_channel::<()>(1);
        let (count, counted) = std::sync::mpsc::sync_channel::<u32>(2);
        let (begin, begun) = oneshot::channel();
        let first = tokio::spawn({
            let background = background.clone();
            async move { background.run(move || begin.send(()).is_ok() && gone.recv().is_ok()).await }
        });
        begun.await.expect("the thread is busy with it");
        let mut second = Box::pin(background.run({
            let count = count.clone();
            move || count.send(2)
        }));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx).is_pending())).await);
        drop(second);
        go.send(()).expect("it waits");
        assert!(first.await.expect("joined").expect("done"));
        background.run(move || count.send(3)).await.expect("done").expect("counted");
        assert_eq!(counted.iter().collect::<Vec<_>>(), [3]);
    }
}
