//! Expressions over JSON events, for the standard plugins: the jq language, by the crate `jaq`.
//!
//! An expression sees the event's value as `.`, its key as `$key` (text) and its event time as
//! `$time` (milliseconds since the Unix epoch). What jq has is here, but for what an operator may
//! not do or does not need: input and output, the environment, the current time, dates, regular
//! expressions, and functions of advanced mathematics.
//!
//! Where an object repeats a key, which of them counts is not defined.
//!
//! Numbers are integers of any size as long as they are written and computed as such. Numbers that
//! are not touched go out as they came in.

mod compile;
mod needs;

use std::io::Write as _;

use jaq_core::{Ctx, Filter, Vars, data::JustLut, unwrap_valr};
use jaq_json::{Val, read};
use wasmill_sdk::json::{Pointer, Raw};
use wasmill_sdk::{Event, Reject};

pub use compile::ExpressionError;
use needs::Needs;

/// Results of one event: more are an error of the expression, not a result.
const RESULTS_MAX: usize = 100_000;

/// An expression, ready to run.
pub struct Expression {
    filter: Filter<JustLut<Val>>,
    needs: Needs,
    /// The whole of an event: to look at its depth, as the parser takes stack for each level.
    whole: Pointer,
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// Where it is not one, with what was expected and where.
    pub fn new(text: &str) -> Result<Self, ExpressionError> {
        let filter = compile::compile(text)?;
        let whole = "".parse().map_err(|_| ExpressionError::new("the empty pointer is one"))?;
        Ok(Self { filter, needs: Needs::of(text), whole })
    }

    /// Whether the expression yields anything but `false` and `null` for an event.
    ///
    /// # Errors
    /// Where the event is not JSON, or the expression fails on it.
    pub fn holds(&self, event: &Event<'_>) -> Result<bool, Reject> {
        let mut holds = false;
        self.run(event, &mut |value| {
            holds |= !matches!(value, Val::Null | Val::Bool(false));
            Ok(())
        })?;
        Ok(holds)
    }

    /// Hands each result to a function.
    ///
    /// # Errors
    /// Where the event is not JSON, the expression fails on it, or the function does.
    pub fn run(&self, event: &Event<'_>, each: &mut dyn FnMut(Val) -> Result<(), Reject>) -> Result<(), Reject> {
        let input = self.input(event.value())?;
        let vars = if self.needs.variables {
            let key = Val::utf8_str(event.key().to_vec());
            [key, integer(event.time().div_euclid(1000))]
        } else {
            [Val::Null, Val::Null]
        };
        let ctx = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new(vars));
        for (count, result) in self.filter.id.run((ctx, input)).map(unwrap_valr).enumerate() {
            if count == RESULTS_MAX {
                wasmill_sdk::reject!("the expression yields more than {RESULTS_MAX} results");
            }
            match result {
                Ok(value) => each(value)?,
                Err(error) => wasmill_sdk::reject!("the expression fails: {error}"),
            }
        }
        Ok(())
    }

    /// The event as a value: of an object only the fields that the expression can see.
    fn input(&self, json: &[u8]) -> Result<Val, Reject> {
        let document = Raw::document(json)?;
        let Some(names) = self.needs.fields.as_ref().filter(|_| document.kind() == wasmill_sdk::json::Kind::Object)
        else {
            self.whole.find(json)?;
            return parse(json);
        };
        let mut fields = jaq_json::Map::default();
        for entry in document.entries() {
            let (key, value) = entry?;
            let Some(name) = key.as_str() else { continue };
            if let Some(name) = names.iter().find(|one| **one == name) {
                fields.entry(Val::utf8_str(name.clone().into_bytes())).or_insert(parse(value.bytes())?);
                if fields.len() == names.len() {
                    break;
                }
            }
        }
        Ok(Val::obj(fields))
    }
}

fn parse(json: &[u8]) -> Result<Val, Reject> {
    read::parse_single(json).map_err(|error| Reject::new(format!("not JSON: {error}")))
}

fn integer(number: i64) -> Val {
    match isize::try_from(number) {
        Ok(number) => Val::from(number),
        // Wider than the platform's integers: by way of its text.
        Err(_) => read::parse_single(number.to_string().as_bytes()).unwrap_or_default(),
    }
}

/// Writes a result as JSON.
pub fn write(value: &Val, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    if write!(out, "{value}").is_err() {
        out.clear();
    }
}

#[cfg(test)]
mod tests;
