//! Room for what requests keep in memory: bodies on their way and in work, files that are read whole.
//!
//! A permit is a byte. A tenant takes from its own room and from that of the service, and whoever finds none is
//! answered rather than made to wait, which would hold a connection.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Bytes that requests of one tenant may hold at a time.
const TENANT_BYTES_MAX: usize = 64 << 20;
/// Bytes that requests of all tenants may hold at a time.
const SERVICE_BYTES_MAX: usize = 256 << 20;

/// The room of a tenant, within that of the service.
#[derive(Debug, Clone)]
pub(super) struct Room {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// The room of the service.
#[derive(Debug, Clone)]
pub(super) struct Hall(Arc<Semaphore>);

/// Bytes that were taken. They are given back when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Taken(Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>);

impl Default for Hall {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SERVICE_BYTES_MAX)))
    }
}

impl Hall {
    /// Room of one more tenant.
    pub(super) fn room(&self) -> Room {
        Room { own: Arc::new(Semaphore::new(TENANT_BYTES_MAX)), all: Arc::clone(&self.0) }
    }
}

impl Room {
    /// Takes so many bytes more.
    pub(super) fn take(&self, taken: &mut Taken, bytes: u64) -> Result<(), Problem> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let own = Arc::clone(&self.own).try_acquire_many_owned(bytes).map_err(|_| {
            Problem::too_many(format!("requests of the tenant hold {} MiB already", TENANT_BYTES_MAX >> 20), 1)
        })?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(bytes).map_err(|_| Problem {
            retry_after: Some(1),
            ..Problem::unavailable(format!("requests of all tenants hold {} MiB already", SERVICE_BYTES_MAX >> 20))
        })?;
        match &mut taken.0 {
            Some((own_before, all_before)) => {
                own_before.merge(own);
                all_before.merge(all);
            }
            None => taken.0 = Some((own, all)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_room_and_all_of_them_have_theirs() {
        let hall = Hall::default();
        let rooms: Vec<Room> = (0..5).map(|_| hall.room()).collect();
        let mut all = Vec::new();
        for room in &rooms[..4] {
            let mut taken = Taken::default();
            room.take(&mut taken, 1 << 20).expect("there is room");
            room.take(&mut taken, 63 << 20).expect("there is room");
            let refused = room.take(&mut taken, 1).expect_err("none is left");
            assert_eq!((refused.status, refused.retry_after), (429, Some(1)));
            all.push(taken);
        }
        let mut taken = Taken::default();
        let refused = rooms[4].take(&mut taken, 1).expect_err("none is left");
        assert_eq!((refused.status, refused.retry_after), (503, Some(1)));
        all.pop();
        rooms[4].take(&mut taken, 64 << 20).expect("it was given back");
        assert_eq!((rooms[4].own.available_permits(), hall.0.available_permits()), (0, 0));
        drop((taken, all));
        assert_eq!((rooms[0].own.available_permits(), hall.0.available_permits()), (64 << 20, 256 << 20));
    }
}
