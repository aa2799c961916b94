//! A record that is read often and changed durably.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;
use wasmill_env::Disk;

use super::blocking::blocking;
use super::problem::Problem;
use super::record::Kept;

/// Holds a record. Readers see the last one that is durable.
///
/// # Cancellation
/// A change whose future is dropped is made all the same, or not at all.
#[derive(Debug)]
pub(super) struct Registry<T> {
    inner: Arc<Inner<T>>,
    /// One change at a time.
    changing: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct Inner<T> {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    current: RwLock<Arc<T>>,
}

impl<T: Kept + Clone + Send + Sync + 'static> Registry<T> {
    /// Of a record that is on disk, in `dir`.
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, current: T) -> Self {
        let current = RwLock::new(Arc::new(current));
        Self { inner: Arc::new(Inner { disk, dir, current }), changing: Arc::default() }
    }

    /// The record as it is on disk.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.inner.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something beside the record while nobody changes it. `act` may block.
    pub(super) async fn alone<R: Send + 'static>(
        &self,
        act: impl FnOnce() -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        let alone = Arc::clone(&self.changing).lock_owned().await;
        blocking(move || {
            let _alone = alone;
            act()
        })
        .await
    }

    /// Changes the record, alone. `act` decides; where it refuses nothing has changed. The change is
    /// durable when this returns.
    pub(super) async fn change<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut T) -> Result<R, Problem>,
    ) -> Result<R, Problem> {
        let alone = Arc::clone(&self.changing).lock_owned().await;
        let before = self.get();
        let mut next = T::clone(&before);
        let result = act(&mut next)?;
        let inner = Arc::clone(&self.inner);
        let written = tokio::task::spawn_blocking(move || {
            let _alone = alone;
            next.keep(Some(&before), &*inner.disk, &inner.dir)?;
            *inner.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
            Ok(())
        });
        let written: io::Result<()> = written.await.map_err(io::Error::other).and_then(|written| written);
        match written {
            Ok(()) => Ok(result),
            Err(error) if wasmill_env::is_full(&error) => {
                Err(Problem::unavailable("the disk of the service is full: nothing was changed"))
            }
            Err(error) => Err(Problem::internal(format!("cannot keep the change: {error}"))),
        }
    }
}
