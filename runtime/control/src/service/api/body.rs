//! What comes in with a request, bounded in bytes and in time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::{header, request::Parts};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmill_env::Clock;

use super::Shared;
use crate::service::problem::Problem;
use crate::service::tenant::BODIES_BYTES_MAX;

/// Bytes of a body of JSON.
const JSON_BYTES_MAX: u64 = 256 << 10;
/// A body has come after this long.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// Where bodies of one tenant that are on their way have their room, a permit a byte. Put into a request with
/// who sends it.
#[derive(Debug, Clone)]
pub(super) struct BodyRoom(pub(super) Arc<Semaphore>);

/// Reads a body of at most so many bytes. They are counted as they come, also against those that are on
/// their way for the same tenant.
pub(super) async fn read(
    body: Body,
    bytes_max: u64,
    clock: &dyn Clock,
    room: Option<&BodyRoom>,
) -> Result<Vec<u8>, Problem> {
    let reading = async {
        let mut bytes = Vec::new();
        let mut taken: Option<OwnedSemaphorePermit> = None;
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| Problem::bad(format!("the body cannot be read: {error}")))?;
            if (bytes.len() + part.len()) as u64 > bytes_max {
                return Err(Problem::too_large(format!("a body of this request has at most {bytes_max} bytes")));
            }
            if let Some(BodyRoom(room)) = room {
                let most = BODIES_BYTES_MAX >> 20;
                let no_room = |_| Problem::too_many(format!("bodies of {most} MiB are on their way already"), 1);
                let more = u32::try_from(part.len()).unwrap_or(u32::MAX);
                let more = Arc::clone(room).try_acquire_many_owned(more).map_err(no_room)?;
                match &mut taken {
                    Some(taken) => taken.merge(more),
                    None => taken = Some(more),
                }
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    };
    tokio::select! {
        read = reading => read,
        () = clock.sleep(BODY_PATIENCE) => {
            let seconds = BODY_PATIENCE.as_secs();
            Err(Problem { status: 408, ..Problem::bad(format!("the body had not come after {seconds} s")) })
        }
    }
}

/// Compressed bodies are not read, so they cannot be bombs.
pub(super) fn is_plain(parts: &Parts) -> Result<(), Problem> {
    match parts.headers.get(header::CONTENT_ENCODING) {
        Some(coding) if coding != "identity" => {
            Err(Problem { status: 415, ..Problem::bad("compressed bodies are not read: send it as it is") })
        }
        _ => Ok(()),
    }
}

/// A body of JSON: no unknown fields, none twice, nothing nested deeply.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Shared) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        is_plain(&parts)?;
        let bytes = read(body, JSON_BYTES_MAX, service.clock(), parts.extensions.get()).await?;
        // Nothing is the same as an empty object.
        let text = if bytes.is_empty() { b"{}" } else { bytes.as_slice() };
        let value = serde_json::from_slice(text).map_err(|error| Problem::bad(format!("the body: {error}")))?;
        Ok(Self(value))
    }
}

/// A body of any bytes, of at most as many as `MAX`.
pub(super) struct Bytes<const MAX: u64>(pub(super) Vec<u8>);

impl<const MAX: u64> FromRequest<Shared> for Bytes<MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Shared) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        is_plain(&parts)?;
        read(body, MAX, service.clock(), parts.extensions.get()).await.map(Self)
    }
}

/// What stands behind the question mark.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        let asked = Query::<T>::try_from_uri(&parts.uri);
        asked.map(|Query(asked)| Self(asked)).map_err(|error| Problem::bad(error.body_text()))
    }
}

/// A name in the path.
pub(super) fn named<T>(text: &str, new: fn(&str) -> Result<T, wasmill_model::NameError>) -> Result<T, Problem> {
    new(text).map_err(|error| Problem::bad(format!("{text:?}: {error}")))
}

/// A limit of a page: at least 1, at most `max`.
pub(super) fn page(limit: Option<u64>, max: usize) -> Result<usize, Problem> {
    match limit {
        None => Ok(max.min(100)),
        Some(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=max).contains(limit))
            .ok_or_else(|| Problem::bad(format!("`limit` is 1 to {max}, not {limit}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wasmill_env::SimulatedClock;
    use wasmill_model::Timestamp;

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up_after_a_minute() {
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>("{")]);
        let body = Body::from_stream(first.chain(futures_util::stream::pending()));
        let reading = {
            let clock = Arc::clone(&clock);
            tokio::spawn(async move { read(body, JSON_BYTES_MAX, &*clock, None).await })
        };
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(BODY_PATIENCE);
        let problem = reading.await.expect("it ends").expect_err("given up");
        assert_eq!((problem.status, problem.detail.as_str()), (408, "the body had not come after 60 s"));
    }

    #[tokio::test]
    async fn a_body_is_counted_as_it_comes() {
        let clock = SimulatedClock::new(Timestamp(0));
        assert_eq!(read(Body::from("1234"), 4, &clock, None).await.expect("fits"), b"1234");
        assert_eq!(read(Body::from("12345"), 4, &clock, None).await.expect_err("too large").status, 413);
        // Bodies of one tenant share their room, and leave it.
        let room = BodyRoom(Arc::new(Semaphore::new(4)));
        assert_eq!(read(Body::from("1234"), 9, &clock, Some(&room)).await.expect("there is room"), b"1234");
        assert_eq!(read(Body::from("12345"), 9, &clock, Some(&room)).await.expect_err("no room").status, 429);
        assert_eq!(room.0.available_permits(), 4);
    }
}
