//! Counts events by window and says which version of it did: `versions` for windows.
//!
//! The name of the version stands in the data of the module, behind [`MARK`], as it does there.

use wasmill_sdk::prelude::*;

/// What stands before the name: `v1`, `v2`, or what is wrong with it.
const MARK: &[u8] = b"wasmill-version=";
static VERSION: [u8; 24] = *b"wasmill-version=v1      ";

fn version() -> &'static str {
    // Not a constant: a test may have changed it.
    let bytes = std::hint::black_box(&VERSION);
    std::str::from_utf8(&bytes[MARK.len()..]).unwrap_or_default().trim_end()
}

struct Versions;

impl Aggregate for Versions {
    type Config = ();
    type Accumulator = u64;

    fn open(_: ()) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn fold(&self, count: &mut u64, event: Event<'_>) -> Result<(), Reject> {
        let text = event.text()?;
        assert!(version() != "boom" || !text.contains("boom"), "this version cannot take such a row");
        *count += if version() == "bug" && text.contains("odd") { 2 } else { 1 };
        Ok(())
    }

    fn merge(&self, into: &mut u64, from: u64) {
        *into += from;
    }

    fn finish(&self, pane: Pane<'_>, count: u64, out: &mut Results) {
        // Those that say that they are the first: nothing but the digest differs.
        let version = if version() == "same" || version() == "bug" { "v1" } else { version() };
        out.emit(format!("{}|{count}|{version}", String::from_utf8_lossy(pane.key())));
    }
}

wasmill_sdk::aggregate!(Versions);
