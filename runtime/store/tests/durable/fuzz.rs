//! Files of a job's state that somebody changed: what is whole is read, the rest refused; never a panic.

#[path = "../../../../tests/support/fuzz.rs"]
mod driver;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use driver::{Random, fuzz, mutated};
use wasmill_env::SimulatedDisk;
use wasmill_model::Epoch;
use wasmill_store::{EpochRecord, JobStore, LetterId, StoreError, StoreOptions};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::formats::{DIR, stored};

const FILE_HEADER: usize = 32;
const FRAME_HEADER: usize = 48;
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;

/// Gives every frame the checksums that its bytes have, as far as frames can be told.
fn reseal(bytes: &mut [u8]) {
    if let Some(header) = bytes.get_mut(..FILE_HEADER) {
        let checksum = xxh3_64(&header[..24]);
        header[24..].copy_from_slice(&checksum.to_le_bytes());
    }
    let mut at = FILE_HEADER;
    while at + FRAME_HEADER <= bytes.len() {
        let length = bytes[at + 24..at + 28].try_into().map(u32::from_le_bytes).expect("four bytes");
        let end = (at + FRAME_HEADER).saturating_add(length as usize);
        if let Some(payload) = bytes.get(at + FRAME_HEADER..end) {
            let checksum = xxh3_64(payload).to_le_bytes();
            bytes[at + 32..at + 40].copy_from_slice(&checksum);
        }
        let checksum = xxh3_64_with_seed(&bytes[at..at + 40], at as u64).to_le_bytes();
        bytes[at + 40..at + 48].copy_from_slice(&checksum);
        at = end;
    }
}

/// A file of a store of some version.
type Stored = (u32, PathBuf, Vec<u8>);

/// The number of a file, and what it holds.
fn changed(random: &mut Random, files: &[Stored]) -> Vec<u8> {
    let file = random.below(files.len());
    let mut bytes = mutated(random, std::slice::from_ref(&files[file].2), &["\0", "\u{7f}", "WmFr", "WASMILL\n"]);
    if random.below(2) == 0 {
        reseal(&mut bytes);
    }
    [&[file as u8][..], &bytes].concat()
}

fn use_all(disk: &SimulatedDisk, options: StoreOptions) -> Result<(), StoreError> {
    let (mut store, recovered) = JobStore::open(Arc::new(disk.clone()), Path::new(DIR), options)?;
    store.letters(LetterId(0), 100)?;
    store.commit(Epoch(recovered.epoch.0.saturating_add(1)), &EpochRecord::default())?;
    let compaction = store.begin_compaction()?;
    store.finish_compaction(compaction.run()?)?;
    Ok(())
}

#[test]
fn stores() {
    let files: Vec<Stored> = VERSIONS
        .flat_map(|version| stored(version).files().into_iter().map(move |(path, bytes)| (version, path, bytes)))
        .collect();
    fuzz(
        "stores",
        2_000,
        |random| changed(random, &files),
        |input| {
            let Some((file, bytes)) = input.split_first() else { return false };
            let (version, path, _) = &files[usize::from(*file) % files.len()];
            let mut good = false;
            for options in [StoreOptions::default(), StoreOptions::on_disk(1 << 20)] {
                let disk = stored(*version);
                disk.put(path, bytes.to_vec());
                match use_all(&disk, options) {
                    Ok(()) => good = true,
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
            good
        },
    );
}
