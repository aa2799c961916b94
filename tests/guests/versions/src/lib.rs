//! Counts events by key and says which version of it did: for tests of swaps.
//!
//! The name of the version stands in the data of the module, behind [`MARK`]. A test writes another
//! one there, and has another plugin without building it. Some versions fail, each at its own step.

use wasmill_sdk::prelude::*;
use wasmill_sdk::{Codec, CodecError};

/// What stands before the name: `v1`, `v2`, or the step at which it fails.
const MARK: &[u8] = b"wasmill-version=";
static VERSION: [u8; 24] = *b"wasmill-version=v1      ";

fn version() -> &'static str {
    // Not a constant: a test may have changed it.
    let bytes = std::hint::black_box(&VERSION);
    std::str::from_utf8(&bytes[MARK.len()..]).unwrap_or_default().trim_end()
}

/// A count whose bytes one version cannot write.
#[derive(Clone, Default)]
struct Count(u64);

impl Codec for Count {
    fn encode(&self, out: &mut Vec<u8>) {
        assert!(version() != "flush", "this version cannot write its state");
        self.0.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        u64::decode(bytes).map(Self)
    }
}

struct Versions {
    seen: Value<Count>,
    calls: u32,
}

impl Operator for Versions {
    type Config = ();

    fn open(_: (), setup: &mut Setup) -> Result<Self, ConfigError> {
        assert!(version() != "open", "this version cannot be opened");
        let seen = setup.space("seen");
        let seen = match version() {
            "schema" => seen.version(2),
            // Counts that the version before has made are worth a hundred more.
            "migrate" => seen.version(2).migrate(1, |old: Count| Some(Count(old.0 + 100))),
            "mig-trap" => seen.version(2).migrate(1, |old: Count| {
                assert!(old.0 < 2, "this version migrates small counts only");
                Some(old)
            }),
            "mig-loop" => seen.version(2).migrate(1, |_: Count| -> Option<Count> {
                loop {
                    std::hint::black_box(());
                }
            }),
            "mig-fail" => seen.version(2).migrate(1, |_: bool| Some(Count(0))),
            _ => seen,
        };
        Ok(Self { seen: seen.value(), calls: 0 })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let count = self.seen.update(|count| {
            count.0 += 1;
            count.0
        });
        let value = String::from_utf8_lossy(event.value());
        // Not every row shows it.
        assert!(version() != "boom" || !value.contains("boom"), "this version cannot take such a row");
        let count = if version() == "bug" && count % 3 == 0 { count + 1 } else { count };
        // One that says that it is the first: nothing but its digest differs.
        let version = if version() == "same" || version() == "bug" { "v1" } else { version() };
        ctx.emit(format!("{value}|{count}|{version}"));
        Ok(())
    }

    fn batch(&mut self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        self.calls += 1;
        match version() {
            "process" => panic!("this version cannot process anything"),
            // Past what it is tried with.
            "later" => assert!(self.calls < 2, "this version processes one batch only"),
            "loop" => loop {
                std::hint::black_box(());
            },
            _ => {}
        }
        ctx.each(|event, ctx| self.event(event, ctx));
        Ok(())
    }
}

wasmill_sdk::operator!(Versions, stateful);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Versions;

    #[test]
    fn every_key_has_its_own_count() {
        let mut test = Tester::<Versions>::new("");
        test.send_all([("a", "x"), ("b", "y"), ("a", "z")]);
        assert_eq!(test.values(), ["x|1|v1", "y|1|v1", "z|2|v1"]);
    }
}
