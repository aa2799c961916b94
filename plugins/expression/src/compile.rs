//! From text to a program, and what is said where it is none.

use std::fmt;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::Term;
use jaq_core::load::{Arena, Error as LoadError, File, Loader};
use jaq_core::{Compiler, Filter, data::JustLut};
use jaq_json::Val;

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    message: String,
}

impl ExpressionError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExpressionError {}

/// Definitions of jq's library that rest on functions which are not there.
const LEFT_OUT: &[&str] = &[
    // Input and output.
    "debug",
    "halt_error",
    "halt",
    "stderr",
    // Advanced mathematics.
    "drem",
    "gamma",
    "logb",
    "nexttoward",
    "pow10",
    "scalb",
    "significand",
    // Regular expressions.
    "capture",
    "capture_of_match",
    "gsub",
    "match",
    "scan",
    "scan_",
    "splits",
    "sub",
    "test",
    // Dates.
    "fromdate",
    "todate",
    // Formats.
    "@base64",
    "@base64d",
    "@html",
    "@htmld",
    "@uri",
    "@urid",
];

pub(crate) fn compile(text: &str) -> Result<Filter<JustLut<Val>>, ExpressionError> {
    let std =
        jaq_std::defs().filter(|def| !(LEFT_OUT.contains(&def.name) || def.name == "split" && def.args.len() == 2));
    let defs = jaq_core::defs().chain(std).chain(jaq_json::defs());
    let natives = jaq_std::base_funs().filter(|(name, ..)| *name != "halt");
    let funs = jaq_core::funs().chain(natives).chain(jaq_json::funs());
    let arena = Arena::default();
    let modules = Loader::new(defs).load(&arena, File { code: text, path: () }).map_err(|errors| {
        let first = errors.into_iter().map(|(_, error)| load_error(text, error)).next();
        first.unwrap_or_else(|| ExpressionError::new("not an expression"))
    })?;
    let compiler = Compiler::default().with_funs(funs).with_global_vars(["$key", "$time"]);
    compiler.compile(modules).map_err(|errors| {
        let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
        match first {
            Some((name, undefined)) => ExpressionError::new(format!("there is no {} `{name}`", undefined.as_str())),
            None => ExpressionError::new("not an expression"),
        }
    })
}

/// The text of a term that is a string without parts that are computed.
pub(crate) fn constant(term: &Term<&str>) -> Option<String> {
    let Term::Str(None, parts) = term else { return None };
    parts.iter().try_fold(String::new(), |mut text, part| {
        match part {
            StrPart::Str(part) => text.push_str(part),
            StrPart::Char(char) => text.push(*char),
            StrPart::Term(_) => return None,
        }
        Some(text)
    })
}

fn load_error(text: &str, error: LoadError<&str>) -> ExpressionError {
    let found = match error {
        LoadError::Io(_) => return ExpressionError::new("an expression cannot load modules"),
        LoadError::Lex(errors) => errors.into_iter().next().map(|(expected, rest)| (expected.as_str(), rest)),
        LoadError::Parse(errors) => errors.into_iter().next().map(|(expected, rest)| (expected.as_str(), rest)),
    };
    match found {
        Some((expected, rest)) => {
            // `rest` is a part of the text, or empty where it ends.
            let at = (rest.as_ptr() as usize).checked_sub(text.as_ptr() as usize).filter(|at| *at < text.len());
            match at {
                Some(at) if !rest.is_empty() => {
                    let rest: String = rest.chars().take(20).collect();
                    ExpressionError::new(format!(
                        "at character {}: expected {expected} before `{rest}`",
                        text[..at].chars().count() + 1
                    ))
                }
                _ => ExpressionError::new(format!("at the end: expected {expected}")),
            }
        }
        None => ExpressionError::new("not an expression"),
    }
}
