//! Counts events by key and emits every count: the least that keyed state can do.

use wasmill_sdk::prelude::*;

struct Count {
    seen: Value<u64>,
}

impl Operator for Count {
    type Config = ();
    const COLUMNS: Columns = Columns::KEYS;

    fn open(_: (), setup: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self { seen: setup.value("seen") })
    }

    fn event(&mut self, _: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let count = self.seen.update(|count| {
            *count += 1;
            *count
        });
        ctx.emit(itoa::Buffer::new().format(count));
        Ok(())
    }
}

wasmill_sdk::operator!(Count, stateful);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Count;

    #[test]
    fn every_key_has_its_own_count() {
        let mut test = Tester::<Count>::new("");
        test.send_all([("a", ""), ("b", ""), ("a", "")]);
        assert_eq!(test.values(), ["1", "1", "2"]);
    }
}
