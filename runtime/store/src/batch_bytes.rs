//! A batch as bytes, for files of ours: rows that wait on disk.
//!
//! ```text
//! u32 rows | u32 flags (1: lineage, 2: headers) | u32 partition | u32 bytes of keys | u32 bytes of values
//! | u32 bytes of headers | i64 time * rows | u64 offset * rows, with lineage
//! | u32 end * rows (keys) | u32 end * rows (values) | u32 end * rows (headers), with headers
//! | keys | values | headers
//! ```
//!
//! All numbers have the lowest byte first.

use std::sync::Arc;

use wasmill_model::{Batch, Column, Lineage, PartitionId};

const HEAD_BYTES: usize = 24;
const LINEAGE: u32 = 1;
const HEADERS: u32 = 2;

/// Appends a batch to bytes: its rows with lineage and headers. Who made them, what panes they are of and
/// when they arrived is left to the caller.
pub fn encode_batch(batch: &Batch, out: &mut Vec<u8>) {
    let flags = batch.lineage().map_or(0, |_| LINEAGE) | batch.headers().map_or(0, |_| HEADERS);
    let length = |column: &Column| column.data().len() as u32;
    out.reserve(HEAD_BYTES + batch.byte_len());
    for number in [
        batch.len() as u32,
        flags,
        batch.lineage().map_or(0, |lineage| lineage.partition.0),
        length(batch.keys()),
        length(batch.values()),
        batch.headers().map_or(0, |headers| length(headers)),
    ] {
        out.extend(number.to_le_bytes());
    }
    out.extend(batch.times().iter().flat_map(|time| time.to_le_bytes()));
    if let Some(lineage) = batch.lineage() {
        out.extend(lineage.offsets.iter().flat_map(|offset| offset.to_le_bytes()));
    }
    let columns = || [Some(batch.keys()), Some(batch.values()), batch.headers()].into_iter().flatten();
    out.extend(columns().flat_map(|column| column.ends().iter().flat_map(|end| end.to_le_bytes())));
    columns().for_each(|column| out.extend_from_slice(column.data()));
}

/// The batch that these bytes are, `None` where they are none.
#[must_use]
pub fn decode_batch(record: &[u8], arrived_nanos: u64) -> Option<Batch> {
    let (head, rest) = record.split_at_checked(HEAD_BYTES)?;
    let mut parts = Parts(rest);
    let mut numbers = head.chunks_exact(4).map(|number| u32::from_le_bytes(number.try_into().unwrap_or_default()));
    let rows = numbers.next()? as usize;
    let (flags, partition) = (numbers.next()?, PartitionId(numbers.next()?));
    let (keys, values, headers) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let times: Vec<i64> = parts.eights(rows)?.map(i64::from_le_bytes).collect();
    let offsets: Option<Vec<u64>> = match flags & LINEAGE {
        0 => None,
        _ => Some(parts.eights(rows)?.map(u64::from_le_bytes).collect()),
    };
    let (key_ends, value_ends) = (parts.ends(rows)?, parts.ends(rows)?);
    let header_ends = if flags & HEADERS == 0 { None } else { Some(parts.ends(rows)?) };
    let (keys, values) = (parts.column(key_ends, keys)?, parts.column(value_ends, values)?);
    let headers = match header_ends {
        Some(ends) => Some(parts.column(ends, headers)?),
        None => None,
    };
    if !parts.0.is_empty() {
        return None;
    }
    let lineage = offsets.map(|offsets| Lineage { partition, offsets: Arc::new(offsets) });
    Some(Batch::new(Arc::new(times), keys, values, arrived_nanos).with_headers(headers).with_lineage(lineage))
}

struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (front, back) = self.0.split_at_checked(bytes)?;
        self.0 = back;
        Some(front)
    }

    fn eights(&mut self, rows: usize) -> Option<impl Iterator<Item = [u8; 8]> + use<'a>> {
        let eights = self.take(rows.checked_mul(8)?)?.chunks_exact(8);
        Some(eights.map(|eight| eight.try_into().unwrap_or_default()))
    }

    fn ends(&mut self, rows: usize) -> Option<Vec<u32>> {
        let fours = self.take(rows.checked_mul(4)?)?.chunks_exact(4);
        Some(fours.map(|four| u32::from_le_bytes(four.try_into().unwrap_or_default())).collect())
    }

    fn column(&mut self, ends: Vec<u32>, bytes: u32) -> Option<Arc<Column>> {
        Column::from_parts(ends, self.take(bytes as usize)?.to_vec()).ok().map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn damaged_records_are_refused(record in prop::collection::vec(any::<u8>(), 0..120), rows in 0_u32..4) {
            let mut record = record;
            if record.len() > 8 {
                record[..4].copy_from_slice(&rows.to_le_bytes());
            }
            let _either_way_without_a_panic = decode_batch(&record, 0);
        }
    }
}
