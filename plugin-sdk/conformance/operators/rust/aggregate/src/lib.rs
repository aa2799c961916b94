//! Adds up integers by window.

use wasmill_sdk::prelude::*;

struct Sum;

impl Aggregate for Sum {
    type Config = ();
    type Accumulator = u64;

    fn open(_: ()) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn fold(&self, sum: &mut u64, event: Event<'_>) -> Result<(), Reject> {
        let digits = event.value();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Reject::new("no number"));
        }
        *sum += event.text()?.parse::<u64>().map_err(|error| Reject::new(error.to_string()))?;
        Ok(())
    }

    fn merge(&self, into: &mut u64, from: u64) {
        *into += from;
    }

    fn finish(&self, pane: Pane<'_>, sum: u64, out: &mut Results) {
        out.emit(format!("{}..{} {} {sum}", pane.start(), pane.end(), String::from_utf8_lossy(pane.key())));
        if sum > 100 {
            out.emit("much");
        }
    }
}

wasmill_sdk::aggregate!(Sum);
