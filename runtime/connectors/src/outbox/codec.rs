//! The handle of an outbox. See `docs/formats.md`.
//!
//! ```text
//! handle   version u8 = 1 · life u64 · parcel…
//! parcel   epoch u64 · index u64 · rows u32 · columns u8 (1: with headers)
//!          times i64… · keys · values · [headers]
//! column   ends u32… · data
//! ```

use std::sync::Arc;

use wasmill_contract::{ConnectorError, SinkHandle};
use wasmill_model::{Batch, Column, Epoch, ErrorKind};

use super::ledger::Parcel;

const VERSION: u8 = 1;

pub(super) fn encode<'a>(life: u64, parcels: impl Iterator<Item = &'a Parcel>) -> SinkHandle {
    let mut out = vec![VERSION];
    out.extend_from_slice(&life.to_le_bytes());
    for Parcel { epoch, index, rows } in parcels {
        out.reserve(32 + rows.byte_len());
        out.extend_from_slice(&epoch.0.to_le_bytes());
        out.extend_from_slice(&index.to_le_bytes());
        // A parcel is bounded far below 4 billion rows.
        out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        out.push(u8::from(rows.headers().is_some()));
        for time in rows.times().iter() {
            out.extend_from_slice(&time.to_le_bytes());
        }
        for column in [Some(rows.keys()), Some(rows.values()), rows.headers()].into_iter().flatten() {
            for end in column.ends() {
                out.extend_from_slice(&end.to_le_bytes());
            }
            out.extend_from_slice(column.data());
        }
    }
    SinkHandle(out)
}

/// The life and the parcels of a handle.
pub(super) fn decode(handle: &SinkHandle) -> Result<(u64, Vec<Parcel>), ConnectorError> {
    let corrupt = || ConnectorError::new(ErrorKind::Corrupt, "the stored handle is not one of an outbox");
    let mut rest = Bytes(&handle.0);
    match rest.take(1) {
        Some([VERSION]) => {}
        Some(&[version]) if version > VERSION => {
            let message = format!("the stored handle of an outbox has version {version}, this program reads 1");
            return Err(ConnectorError::new(ErrorKind::Config, message));
        }
        _ => return Err(corrupt()),
    }
    let life = rest.u64().ok_or_else(corrupt)?;
    let mut parcels = Vec::new();
    while !rest.0.is_empty() {
        parcels.push(rest.parcel().ok_or_else(corrupt)?);
    }
    Ok((life, parcels))
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn column(&mut self, rows: usize) -> Option<Arc<Column>> {
        let ends = self.take(rows.checked_mul(4)?)?;
        let ends: Vec<u32> =
            ends.chunks_exact(4).map(|end| u32::from_le_bytes([end[0], end[1], end[2], end[3]])).collect();
        let data = self.take(ends.last().copied().unwrap_or(0) as usize)?;
        Column::from_parts(ends, data.to_vec()).ok().map(Arc::new)
    }

    fn parcel(&mut self) -> Option<Parcel> {
        let (epoch, index) = (Epoch(self.u64()?), self.u64()?);
        let rows = u32::from_le_bytes(self.take(4)?.try_into().ok()?) as usize;
        let with_headers = match self.take(1)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let times = self.take(rows.checked_mul(8)?)?.chunks_exact(8);
        let times = times.map(|time| time.try_into().map(i64::from_le_bytes)).collect::<Result<Vec<_>, _>>().ok()?;
        let (keys, values) = (self.column(rows)?, self.column(rows)?);
        let headers = if with_headers { Some(self.column(rows)?) } else { None };
        Some(Parcel { epoch, index, rows: Batch::new(Arc::new(times), keys, values, 0).with_headers(headers) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(rows: &[Vec<u8>]) -> Arc<Column> {
        Arc::new(rows.iter().collect())
    }

    fn parcel() -> impl Strategy<Value = Parcel> {
        let row =
            (any::<i64>(), proptest::collection::vec(any::<u8>(), 0..9), proptest::collection::vec(any::<u8>(), 0..30));
        (1..u64::MAX, any::<u64>(), proptest::collection::vec(row, 1..20), any::<bool>()).prop_map(
            |(epoch, index, rows, with_headers)| {
                let times = Arc::new(rows.iter().map(|row| row.0).collect());
                let keys: Vec<_> = rows.iter().map(|row| row.1.clone()).collect();
                let values: Vec<_> = rows.iter().map(|row| row.2.clone()).collect();
                let batch = Batch::new(times, column(&keys), column(&values), 0);
                let rows = batch.with_headers(with_headers.then(|| column(&keys)));
                Parcel { epoch: Epoch(epoch), index, rows }
            },
        )
    }

    proptest! {
        #[test]
        fn handle_gives_back_what_it_was_made_of(
            life in any::<u64>(), parcels in proptest::collection::vec(parcel(), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let handle = encode(life, parcels.iter());
            let decoded = decode(&handle).expect("decodes");
            prop_assert_eq!(decoded, (life, parcels));
            // Whatever it is given, it says something.
            let mut bytes = handle.0;
            bytes.truncate(cut.index(bytes.len()));
            drop(decode(&SinkHandle(bytes)));
        }
    }

    #[test]
    fn bytes_of_version_1_are_what_is_written() {
        let rows = Batch::new(Arc::new(vec![-1]), column(&[b"k".to_vec()]), column(&[b"v1".to_vec()]), 0);
        let parcel = Parcel { epoch: Epoch(7), index: 3, rows };
        let bytes = encode(0x0102, [&parcel].into_iter()).0;
        let expected: &[u8] = b"\x01\x02\x01\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\0\
            \xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0\0k\x02\0\0\0v1";
        assert_eq!(bytes, expected);
    }
}
