#![doc = include_str!("../README.md")]

mod machine;
mod parse;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use expression::Expression;
use serde::Deserialize;
use wasmill_sdk::metrics::Counter;
use wasmill_sdk::prelude::*;
use wasmill_sdk::serde_json;

use machine::{Machine, Match, Stage};
use parse::{Name, Pattern, PatternError};
use store::{Progress, Waiting};

/// Kinds of events that one pattern can tell apart.
const KINDS_MAX: usize = 32;
/// Output port of rows that come too late.
const LATE: usize = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    pattern: String,
    events: BTreeMap<String, String>,
    #[serde(default)]
    overlap: bool,
    #[serde(default = "runs_max")]
    runs: usize,
}

fn runs_max() -> usize {
    100
}

struct Find {
    machine: Machine,
    kinds: Vec<Expression>,
    /// By step: its name as JSON, and whether it may take several events.
    names: Vec<(String, bool)>,
    /// Rows that wait for the watermark, by time.
    waiting: Map<i64, Waiting>,
    progress: Value<Json<Progress>>,
    given_up: Counter,
}

impl Operator for Find {
    type Config = Config;
    const OUTPUTS: &'static [&'static str] = &["matches", "late"];

    fn open(config: Config, setup: &mut Setup) -> Result<Self, ConfigError> {
        let wrong = |error: PatternError| ConfigError::at("pattern", error.to_string());
        let pattern = parse::parse(&config.pattern).map_err(wrong)?;
        if config.events.len() > KINDS_MAX {
            return Err(ConfigError::at("events", format!("at most {KINDS_MAX} kinds of events")));
        }
        if !(1..=10_000).contains(&config.runs) {
            return Err(ConfigError::at("runs", "expected 1 to 10000"));
        }
        let machine = machine(&pattern, &config).map_err(wrong)?;
        let unused = config.events.keys().find(|name| !pattern.names().any(|used| used.text == **name));
        if let Some(name) = unused {
            return Err(ConfigError::at(format!("events.{name}"), "the pattern does not name it"));
        }
        let kind = |(name, text): (&String, &String)| {
            Expression::new(text).map_err(|error| ConfigError::at(format!("events.{name}"), error.to_string()))
        };
        let name = |step: &parse::Step| (serde_json::Value::from(step.name.as_str()).to_string(), step.max != Some(1));
        Ok(Self {
            machine,
            kinds: config.events.iter().map(kind).collect::<Result<_, _>>()?,
            names: pattern.steps.iter().map(name).collect(),
            waiting: setup.map("waiting"),
            progress: setup.value("progress"),
            given_up: setup.counter("runs_given_up"),
        })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let mut kinds = 0;
        for (place, kind) in self.kinds.iter().enumerate() {
            kinds |= u32::from(kind.holds(&event)?) << place;
        }
        let time = event.time();
        if time <= ctx.now(Clock::Event) {
            ctx.port(LATE).forward();
            return Ok(());
        }
        if kinds == 0 && !self.machine.heeds_all() {
            return Ok(());
        }
        if self.waiting.first_key().is_none_or(|first| time < first) {
            ctx.set_timer(Clock::Event, time, b"rows");
        }
        let value = if kinds == 0 { String::new() } else { event.text()?.trim().to_owned() };
        self.waiting.update(&time, |rows| rows.push(kinds, value));
        Ok(())
    }

    fn timer(&mut self, _: Timer<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let now = ctx.now(Clock::Event);
        let mut progress = self.progress.take().unwrap_or_default().0;
        for (time, rows) in self.waiting.range(&i64::MIN, &now) {
            self.waiting.remove(&time);
            let over = self.machine.expire(&mut progress.runs, time.saturating_sub(1));
            self.emit(&progress, over, ctx);
            for (kinds, value) in rows.0 {
                let number = progress.add(value);
                let mut matches = Vec::new();
                if self.machine.event(&mut progress.runs, (number, time, kinds), &mut matches) {
                    self.given_up.add(1);
                }
                self.emit(&progress, matches, ctx);
            }
            progress.forget();
        }
        let over = self.machine.expire(&mut progress.runs, now);
        self.emit(&progress, over, ctx);
        progress.forget();
        if let Some(first) = self.waiting.first_key() {
            ctx.set_timer(Clock::Event, first, b"rows");
        }
        if let Some(deadline) = progress.runs.iter().map(|run| self.machine.deadline(run)).min() {
            ctx.set_timer(Clock::Event, deadline, b"runs");
            self.progress.set(Json(progress));
        }
        Ok(())
    }
}

wasmill_sdk::operator!(Find, stateful);

impl Find {
    fn emit(&self, progress: &Progress, matches: Vec<Match>, ctx: &mut Context<'_>) {
        for (time, taken) in matches {
            ctx.row().time(time).emit_with(|out| {
                for (place, ((name, several), numbers)) in self.names.iter().zip(&taken).enumerate() {
                    out.push(if place == 0 { b'{' } else { b',' });
                    out.extend_from_slice(name.as_bytes());
                    out.extend_from_slice(if *several { b":[" } else { b":" });
                    for (place, number) in numbers.iter().enumerate() {
                        if place > 0 {
                            out.push(b',');
                        }
                        out.extend_from_slice(progress.value(*number).as_bytes());
                    }
                    if *several {
                        out.push(b']');
                    }
                }
                out.push(b'}');
            });
        }
    }
}

/// The pattern with its kinds as bits.
fn machine(pattern: &Pattern, config: &Config) -> Result<Machine, PatternError> {
    let bit = |name: &Name| match config.events.keys().position(|known| *known == name.text) {
        Some(place) => Ok(1 << place),
        None => {
            let known: Vec<&str> = config.events.keys().map(String::as_str).collect();
            let message = format!("`events` does not say what `{}` is; it has {}", name.text, known.join(", "));
            Err(PatternError::new(name.at, message))
        }
    };
    let bits = |names: &[Name]| names.iter().try_fold(0, |bits, name| Ok(bits | bit(name)?));
    let mut steps = Vec::with_capacity(pattern.steps.len());
    for step in &pattern.steps {
        steps.push(Stage {
            kind: bit(&step.kind)?,
            min: step.min as usize,
            max: step.max.map_or(usize::MAX, |max| max as usize),
            next: step.next,
            within: step.within,
            absent: bits(&step.absent)?,
        });
    }
    let absent = match &pattern.absent {
        Some((names, within)) => Some((bits(names)?, *within)),
        None => None,
    };
    Ok(Machine { steps, absent, length: pattern.length, overlap: config.overlap, runs_max: config.runs })
}
