//! Of all taxis that accepted a ride, the one that did so first.
//!
//! An event is an acceptance: `{"ride","taxi","at"}`. The result of a window is the assignment:
//! `{"ride","taxi","at"}`. When an earlier acceptance comes in late the result changes; the windows of
//! the job say what becomes of the one before.

use serde::{Deserialize, Serialize};
use wasmill_sdk::prelude::*;
use wasmill_sdk::serde;
use wasmill_sdk::serde_json::json;

/// The acceptance that counts: the earliest; of several at once, that of the lowest taxi.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(crate = "serde")]
pub struct First {
    /// Milliseconds since the Unix epoch.
    at: i64,
    taxi: u64,
}

/// The aggregate.
#[derive(Debug)]
pub struct Assign;

fn earlier(first: &mut Option<First>, other: First) {
    if first.as_ref().is_none_or(|first| other < *first) {
        *first = Some(other);
    }
}

impl Aggregate for Assign {
    type Config = ();
    type Accumulator = Json<Option<First>>;

    const COLUMNS: Columns = Columns::VALUES;

    fn open((): ()) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn fold(&self, first: &mut Json<Option<First>>, event: Event<'_>) -> Result<(), Reject> {
        let json = event.json();
        earlier(&mut first.0, First { at: json.i64("at")?, taxi: json.u64("taxi")? });
        Ok(())
    }

    fn merge(&self, into: &mut Json<Option<First>>, from: Json<Option<First>>) {
        from.0.into_iter().for_each(|first| earlier(&mut into.0, first));
    }

    fn finish(&self, pane: Pane<'_>, first: Json<Option<First>>, out: &mut Results) {
        if let Some(First { at, taxi }) = first.0 {
            let ride = String::from_utf8_lossy(pane.key());
            out.emit(json!({"ride": ride, "taxi": taxi, "at": at}).to_string());
        }
    }
}

wasmill_sdk::aggregate!(Assign);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::WindowTester;

    use super::Assign;

    #[test]
    fn the_first_to_accept_gets_the_ride() {
        let mut test = WindowTester::<Assign>::tumbling("", 1_000);
        let accepts = [r#"{"taxi":7,"at":5}"#, r#"{"taxi":9,"at":3}"#, r#"{"taxi":8,"at":3}"#, r#"{"taxi":1}"#];
        test.send_all(accepts.map(|accept| (1, "r-1", accept)));
        test.watermark(999);
        assert_eq!(test.values(), [r#"{"ride":"r-1","taxi":8,"at":3}"#]);
        assert_eq!(test.rejected().len(), 1, "an acceptance without a time is none");
    }
}
