//! A connection whose peer must read: one that takes nothing for too long is cut off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmill_env::Clock;

/// A stream that fails once a write has waited so long.
pub(super) struct Patient<S> {
    stream: S,
    clock: Arc<dyn Clock>,
    patience: Duration,
    /// Completes when patience is at its end; there while a write waits.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, clock: Arc<dyn Clock>, patience: Duration) -> Self {
        Self { stream, clock, patience, waiting: None }
    }

    fn judged<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let (clock, patience) = (&self.clock, self.patience);
        let waiting = self.waiting.get_or_insert_with(|| {
            let clock = Arc::clone(clock);
            Box::pin(async move { clock.sleep(patience).await })
        });
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judged(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judged(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judged(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judged(context, closed)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use wasmill_env::SimulatedClock;
    use wasmill_model::Timestamp;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_cut_off_and_one_that_does_is_not() {
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Patient::new(near, Arc::clone(&clock) as _, Duration::from_secs(30));
        let mut writing = pin!(near.write_all(b"123456789"));
        let mut poll = || writing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending(), "four bytes have room");
        clock.advance(Duration::from_secs(29));
        assert!(poll().is_pending());
        far.read_exact(&mut [0; 4]).await.expect("four bytes");
        assert!(poll().is_pending(), "four more have room");
        clock.advance(Duration::from_secs(29));
        assert!(poll().is_pending(), "it has waited for 29 s since the peer has read");
        clock.advance(Duration::from_secs(2));
        let Poll::Ready(ended) = poll() else { panic!("it waits still") };
        assert_eq!(ended.expect_err("cut off").kind(), io::ErrorKind::TimedOut);
    }
}
