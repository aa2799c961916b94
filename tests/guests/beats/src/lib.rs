//! Counts events by key and beat. A timer at the end of each beat emits the count: what windows do,
//! with state and timers of the operator's own, for the crash tests. Rows with `"v":14` are rejected.

use wasmill_sdk::prelude::*;

const BEAT_MICROS: i64 = 2_000_000;
const REJECTED: u64 = 14;

struct Beats {
    seen: Map<u64, u64>,
}

impl Operator for Beats {
    type Config = ();

    fn open(_: (), setup: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self { seen: setup.map("seen") })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let beat = event.time().div_euclid(BEAT_MICROS);
        self.seen.update(&beat.unsigned_abs(), |count| *count += 1);
        ctx.set_timer(Clock::Event, (beat + 1) * BEAT_MICROS - 1, beat.unsigned_abs().to_be_bytes());
        // Behind the changes, so that they have to be undone.
        if event.json().u64("v")? == REJECTED {
            return Err(Reject::new("fourteen"));
        }
        Ok(())
    }

    fn timer(&mut self, timer: Timer<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let beat = timer.time().div_euclid(BEAT_MICROS);
        let count = self.seen.remove(&beat.unsigned_abs()).unwrap_or(0);
        let key = String::from_utf8_lossy(timer.key());
        ctx.emit(format!("{{\"k\":\"{key}\",\"beat\":{beat},\"count\":{count}}}"));
        Ok(())
    }
}

wasmill_sdk::operator!(Beats, stateful);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Beats;

    #[test]
    fn a_beat_is_counted_once_its_timer_fires() {
        let mut test = Tester::<Beats>::new("");
        test.send_at(0, [(1, "a", r#"{"v":1}"#), (2, "b", r#"{"v":14}"#), (3, "a", r#"{"v":2}"#)]);
        test.watermark(1_999_998);
        assert!(test.values().is_empty());
        test.watermark(1_999_999);
        assert_eq!(test.values(), [r#"{"k":"a","beat":0,"count":2}"#]);
        assert_eq!(test.rejected().len(), 1);
    }
}
