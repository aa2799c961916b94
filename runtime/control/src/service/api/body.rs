//! What comes in with a request, bounded in bytes and in time.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::{header, request::Parts};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use wasmill_env::Clock;

use super::Shared;
use crate::service::problem::Problem;
use crate::service::room::{Room, Taken};

/// Bytes of a body of JSON.
const JSON_BYTES_MAX: u64 = 256 << 10;
/// So much of a body is taken in before other requests have their turn.
const STRETCH_BYTES: usize = 256 << 10;
/// A body has come after this long.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// Reads a body of at most so many bytes. They take room of whoever sends them, which [`auth`](super::auth) puts into
/// the request: as many as it says it has before it is read, any others as they come.
pub(super) async fn read(
    body: Body,
    bytes_max: u64,
    clock: &dyn Clock,
    room: Option<&Room>,
) -> Result<(Vec<u8>, Taken), Problem> {
    let too_large = || Problem::too_large(format!("a body of this request has at most {bytes_max} bytes"));
    let reading = async {
        let mut taken = Taken::default();
        let mut has = |bytes: u64| room.map_or(Ok(()), |room| room.take(&mut taken, bytes));
        // What it says it will be: who finds no room is told before anything is read, and nothing is moved as it grows.
        let expected = body.size_hint().lower();
        if expected > bytes_max {
            return Err(too_large());
        }
        has(expected)?;
        let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
        let mut at_a_stretch = 0;
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| Problem::bad(format!("the body cannot be read: {error}")))?;
            let length = (bytes.len() + part.len()) as u64;
            if length > bytes_max {
                return Err(too_large());
            }
            has(length.saturating_sub(expected.max(bytes.len() as u64)))?;
            bytes.extend_from_slice(&part);
            at_a_stretch += part.len();
            if at_a_stretch >= STRETCH_BYTES {
                at_a_stretch = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok((bytes, taken))
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
        let (bytes, _taken) = read(body, JSON_BYTES_MAX, service.clock(), parts.extensions.get()).await?;
        // Nothing is the same as an empty object.
        let text = if bytes.is_empty() { b"{}" } else { bytes.as_slice() };
        let value = serde_json::from_slice(text).map_err(|error| Problem::bad(format!("the body: {error}")))?;
        Ok(Self(value))
    }
}

/// A body of any bytes, of at most as many as `MAX`, and the room that it takes while it is worked on.
pub(super) struct Bytes<const MAX: u64>(pub(super) Vec<u8>, pub(super) Taken);

impl<const MAX: u64> FromRequest<Shared> for Bytes<MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Shared) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        is_plain(&parts)?;
        let (bytes, taken) = read(body, MAX, service.clock(), parts.extensions.get()).await?;
        Ok(Self(bytes, taken))
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
    use crate::service::room::Hall;

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
        assert_eq!(read(Body::from("1234"), 4, &clock, None).await.expect("fits").0, b"1234");
        assert_eq!(read(Body::from("12345"), 4, &clock, None).await.expect_err("too large").status, 413);
        // What is being worked on takes room until it is done.
        let room = Hall::default().room();
        let large = || Body::from(vec![0; 40 << 20]);
        let (_, taken) = read(large(), 1 << 30, &clock, Some(&room)).await.expect("there is room");
        assert_eq!(read(large(), 1 << 30, &clock, Some(&room)).await.expect_err("no room").status, 429);
        drop(taken);
        assert!(read(large(), 1 << 30, &clock, Some(&room)).await.is_ok());
        // One that does not say how long it is takes no more, and no less.
        let parts = |count| {
            Body::from_stream(futures_util::stream::iter(
                (0..count).map(|_| Ok::<_, std::io::Error>(vec![0; 16 << 20])),
            ))
        };
        let (bytes, taken) = read(parts(4), 1 << 30, &clock, Some(&room)).await.expect("64 MiB are there");
        assert_eq!(bytes.len(), 64 << 20);
        assert_eq!(read(Body::from("1"), 4, &clock, Some(&room)).await.expect_err("no room").status, 429);
        drop((bytes, taken));
        assert_eq!(read(parts(5), 1 << 30, &clock, Some(&room)).await.expect_err("no room").status, 429);
        assert_eq!(read(parts(1), 4, &clock, Some(&room)).await.expect_err("too large").status, 413);
    }
}
