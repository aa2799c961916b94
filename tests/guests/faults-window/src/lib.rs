//! Counts events by window, and traps on those that hold `trap`, and on panes of the key `cursed`.

use wasmill_sdk::prelude::*;

struct Faults;

impl Aggregate for Faults {
    type Config = ();
    type Accumulator = u64;

    fn open(_: ()) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn fold(&self, count: &mut u64, event: Event<'_>) -> Result<(), Reject> {
        assert!(!event.text()?.contains("trap"), "told to trap");
        *count += 1;
        Ok(())
    }

    fn merge(&self, into: &mut u64, from: u64) {
        *into += from;
    }

    fn finish(&self, pane: Pane<'_>, count: u64, out: &mut Results) {
        assert!(pane.key() != b"cursed", "told to trap in a pane");
        out.emit(itoa::Buffer::new().format(count));
    }
}

wasmill_sdk::aggregate!(Faults);
