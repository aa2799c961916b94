//! Files of topics that somebody changed: read as far as they are whole, or refused; never a panic.

#[path = "../../../../tests/support/fuzz.rs"]
mod driver;

use std::path::PathBuf;

use driver::{Random, fuzz, mutated};
use wasmill_store::{TopicError, Topics};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::common::{ALL, append, clock, group, name, topics};
use crate::formats::stored;

const FILE_HEADER: usize = 32;
const FRAME_HEADER: usize = 56;

/// Gives every frame the checksums that its bytes have, as far as frames can be told.
fn reseal(bytes: &mut [u8]) {
    if let Some(header) = bytes.get_mut(..FILE_HEADER) {
        let checksum = xxh3_64(&header[..24]);
        header[24..].copy_from_slice(&checksum.to_le_bytes());
    }
    let mut at = FILE_HEADER;
    while at + FRAME_HEADER <= bytes.len() {
        let length = bytes[at + 32..at + 36].try_into().map(u32::from_le_bytes).expect("four bytes");
        let end = (at + FRAME_HEADER).saturating_add(length as usize);
        if let Some(payload) = bytes.get(at + FRAME_HEADER..end) {
            let checksum = xxh3_64(payload).to_le_bytes();
            bytes[at + 40..at + 48].copy_from_slice(&checksum);
        }
        let checksum = xxh3_64_with_seed(&bytes[at..at + 48], at as u64).to_le_bytes();
        bytes[at + 48..at + 56].copy_from_slice(&checksum);
        at = end;
    }
}

/// The number of a file, whether it is sealed again, and what it holds.
fn changed(random: &mut Random, files: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let file = random.below(files.len());
    let mut bytes = mutated(random, std::slice::from_ref(&files[file].1), &["\0", "\u{7f}", "WmTf", "WASMILL\n"]);
    let sealed = random.below(2) == 0;
    if sealed {
        reseal(&mut bytes);
    }
    [&[file as u8][..], &bytes].concat()
}

fn use_all(topics: &Topics) -> Result<(), TopicError> {
    topics.list()?;
    let topic = topics.open(&name("orders"))?;
    for partition in 0..topic.config().partitions.min(4) {
        let (start, _) = topic.bounds_blocking(partition)?;
        topic.read_blocking(partition, start, ALL)?;
    }
    for group in topic.groups()? {
        topic.committed(&group)?;
    }
    topic.append_blocking(&[append(0, &[("a", "1")])])?;
    topic.commit(&group("billing"), &[(0, 1)])?;
    topic.maintain()?;
    Ok(())
}

#[test]
fn topic_files() {
    let files: Vec<_> = stored().files().into_iter().collect();
    fuzz(
        "topics",
        2_000,
        |random| changed(random, &files),
        |input| {
            let Some((file, bytes)) = input.split_first() else { return false };
            let disk = stored();
            disk.put(&files[usize::from(*file) % files.len()].0, bytes.to_vec());
            match use_all(&topics(&disk, &clock())) {
                Ok(()) => true,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    false
                }
            }
        },
    );
}
