//! Every case of the conformance suite that is an operator: `config.op` says which.

use serde::Deserialize;
use wasmill_sdk::metrics::Counter;
use wasmill_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    op: String,
    #[serde(default = "one")]
    limit: i64,
}

fn one() -> i64 {
    1
}

struct Conformance {
    op: String,
    seen: Value<u64>,
    last: Value<Vec<u8>>,
    items: Map<String, Vec<u8>>,
    places: Map<i64, String>,
    events: Counter,
}

impl Operator for Conformance {
    type Config = Config;

    const INPUTS: &'static [&'static str] = &["left", "right"];
    const OUTPUTS: &'static [&'static str] = &["out", "side"];

    fn open(config: Config, setup: &mut Setup) -> Result<Self, ConfigError> {
        if config.limit < 1 {
            return Err(ConfigError::at("limit", "expected at least 1"));
        }
        // What version 1 has left: counts in text, "0" for none, and items without a mark.
        let version = if config.op == "migrate" { 2 } else { 1 };
        let count = |old: String| old.parse::<u64>().ok().filter(|count| *count > 0);
        let item = |mut old: Vec<u8>| {
            old.push(b'!');
            Some(old)
        };
        Ok(Self {
            op: config.op,
            seen: setup.space("seen").version(version).migrate(1, count).value(),
            last: setup.value("last"),
            items: setup.space("items").version(version).migrate(1, item).map(),
            places: setup.map("places"),
            events: setup.counter("events"),
        })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        self.events.add(1);
        let value = event.value();
        match self.op.as_str() {
            "filter" if value.contains(&b'x') => ctx.forward(),
            "map" => ctx.emit(value.to_ascii_uppercase()),
            "flat-map" => {
                value.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).for_each(|word| ctx.emit(word))
            }
            "count" => ctx.emit(self.count()),
            "migrate" => {
                ctx.emit(self.count());
                ctx.emit(self.listed());
            }
            "timers" if value == b"cancel" => ctx.delete_timer(Clock::Event, "a"),
            "timers" => ctx.set_timer(Clock::Event, event.time() + 10, value),
            "two-inputs" if event.port() == 0 => drop(self.last.set(value.to_vec())),
            "two-inputs" => {
                let last = self.last.get().unwrap_or_else(|| b"nothing".to_vec());
                ctx.emit([&last[..], b"|", value].concat());
            }
            "side" if value.len() % 2 == 0 => ctx.forward(),
            "side" => ctx.port("side").row().key("odd").time(event.time() + 1).emit(value),
            "reject" => {
                ctx.emit(self.count());
                ctx.set_timer(Clock::Event, event.time() + 10, "t");
                if value == b"bad" {
                    return Err(Reject::new("the value is bad"));
                }
            }
            "map-state" => self.map_state(event.text()?, ctx),
            "numbers" => self.numbers(event.text()?, ctx)?,
            "text" => {
                let text = event.text().map_err(|_| Reject::new("not UTF-8"))?;
                ctx.emit(text.chars().count().to_string());
            }
            "bytes" => {
                let reversed = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
                ctx.row().key(&reversed(event.key())).emit(reversed(value));
            }
            _ => {}
        }
        Ok(())
    }

    fn timer(&mut self, timer: Timer<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let tag = String::from_utf8_lossy(timer.tag()).into_owned();
        ctx.emit(format!("{tag} at {}, number {}", timer.time(), self.count()));
        Ok(())
    }
}

impl Conformance {
    fn count(&self) -> String {
        self.seen.update(|seen| {
            *seen += 1;
            seen.to_string()
        })
    }

    fn listed(&self) -> Vec<u8> {
        let all: Vec<Vec<u8>> =
            self.items.entries().into_iter().map(|(key, value)| [key.as_bytes(), b"=", &value].concat()).collect();
        all.join(&b',')
    }

    fn map_state(&self, text: &str, ctx: &mut Context<'_>) {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name == "*" {
            ctx.emit(self.listed());
        } else if let Some(name) = name.strip_suffix('?') {
            ctx.emit(self.items.get(&name.to_owned()).unwrap_or_else(|| b"none".to_vec()));
        } else if let Some(name) = name.strip_suffix('!') {
            self.items.remove(&name.to_owned());
        } else {
            self.items.insert(&name.to_owned(), value.as_bytes().to_vec());
        }
    }

    fn numbers(&self, text: &str, ctx: &mut Context<'_>) -> Result<(), Reject> {
        if text != "*" {
            let place: i64 = text.parse().map_err(|_| Reject::new("no number"))?;
            self.places.insert(&place, text.to_owned());
            return Ok(());
        }
        let all: Vec<String> =
            self.places.entries().into_iter().map(|(place, text)| format!("{place}:{text}")).collect();
        self.places.clear();
        ctx.emit(all.join(","));
        Ok(())
    }
}

wasmill_sdk::operator!(Conformance, stateful);
