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
mod plain;
mod write;

use jaq_core::{Ctx, Filter, Vars, data::JustLut, unwrap_valr};
use jaq_json::{Map, Val, read};
use wasmill_sdk::json::{Kind, Pointer, Raw};
use wasmill_sdk::{Event, Reject};

pub use compile::ExpressionError;
use needs::Needs;
use plain::{Plain, Scope};
pub use write::write;

/// Results of one event: more are an error of the expression, not a result.
const RESULTS_MAX: usize = 100_000;

/// An expression, ready to run.
pub struct Expression {
    filter: Filter<JustLut<Val>>,
    needs: Needs,
    /// The same, where it has one value for every event that is an object.
    plain: Option<Plain>,
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
        let term = jaq_core::load::parse(text, |parser| parser.term()).unwrap_or_default();
        let needs = Needs::of(text, &term);
        let plain = needs.fields.as_ref().and_then(|names| Plain::of(&term, names));
        Ok(Self { filter, needs, plain, whole })
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
        self.run_on(event.value(), event.key(), event.time(), each)
    }

    fn run_on(
        &self,
        json: &[u8],
        key: &[u8],
        time: i64,
        each: &mut dyn FnMut(Val) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        let document = Raw::document(json)?;
        let names = self.needs.fields.as_deref().filter(|_| document.kind() == Kind::Object);
        let variables = if self.needs.variables {
            [Val::utf8_str(key.to_vec()), integer(time.div_euclid(1000))]
        } else {
            [Val::Null, Val::Null]
        };
        let input = match (names, &self.plain) {
            (Some(names), Some(plain)) => {
                let mut fields = vec![Val::Null; names.len()];
                see(document, names, |at, value| fields[at] = value)?;
                return each(plain.eval(&Scope { fields, variables }).map_err(fails)?);
            }
            (Some(names), None) => {
                let mut fields = Map::default();
                see(document, names, |at, value| {
                    drop(fields.insert(Val::utf8_str(names[at].clone().into_bytes()), value))
                })?;
                Val::obj(fields)
            }
            (None, _) => {
                self.whole.find(json)?;
                parse(json)?
            }
        };
        let ctx = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new(variables));
        for (count, result) in self.filter.id.run((ctx, input)).map(unwrap_valr).enumerate() {
            if count == RESULTS_MAX {
                wasmill_sdk::reject!("the expression yields more than {RESULTS_MAX} results");
            }
            each(result.map_err(fails)?)?;
        }
        Ok(())
    }
}

fn fails(error: jaq_json::Error) -> Reject {
    Reject::new(format!("the expression fails: {error}"))
}

/// Hands on the first member of each name that the object has.
fn see(object: Raw<'_>, names: &[String], mut each: impl FnMut(usize, Val)) -> Result<(), Reject> {
    // A bit for each name that was not seen yet.
    let mut missing = names.iter().fold(0u64, |bits, _| bits << 1 | 1);
    for entry in object.entries() {
        if missing == 0 {
            break;
        }
        let (key, value) = entry?;
        let at = match key.as_plain() {
            Some(key) => names.iter().position(|name| name.as_bytes() == key),
            None => key.as_str().and_then(|key| names.iter().position(|name| *name == key)),
        };
        if let Some(at) = at.filter(|at| missing & 1 << at != 0) {
            missing &= !(1 << at);
            each(at, value_of(value)?);
        }
    }
    Ok(())
}

/// A value as the parser makes it; the frequent ones without it.
fn value_of(raw: Raw<'_>) -> Result<Val, Reject> {
    if let Some(integer) = raw.as_i64().and_then(|integer| isize::try_from(integer).ok()) {
        return Ok(Val::from(integer));
    }
    match raw.as_plain() {
        Some(plain) => Ok(Val::utf8_str(plain.to_vec())),
        None => parse(raw.bytes()),
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

#[cfg(test)]
mod tests;
