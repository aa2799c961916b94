//! Which fields of an event an expression can see.
//!
//! To parse a whole event for one field costs many times what the field costs. Where the event itself
//! is never a value of the expression, only fields of it, the rest of it is never parsed.

use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::path::Part;

use crate::compile::constant;

/// Of more fields than that the whole event is parsed: there is a bit for each.
const FIELDS_MAX: usize = 64;

/// What an expression needs to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Names of the event's fields; `None` for all of it.
    pub(crate) fields: Option<Vec<String>>,
    /// Whether it speaks of `$key` or `$time`.
    pub(crate) variables: bool,
}

impl Needs {
    pub(crate) fn of(text: &str, term: &Term<&str>) -> Self {
        let variables = text.contains("$key") || text.contains("$time");
        let mut names = Vec::new();
        let fields = (see(term, &mut names) && names.len() <= FIELDS_MAX).then_some(names);
        Self { fields, variables }
    }
}

/// Notes the fields of the event that a term sees. `false` where it may see more than fields.
fn see(term: &Term<&str>, names: &mut Vec<String>) -> bool {
    match term {
        Term::Num(_) | Term::Var(_) | Term::Arr(None) | Term::Call("true" | "false" | "null", _) => true,
        Term::Str(..) => constant(term).is_some(),
        Term::Arr(Some(inner)) | Term::Neg(inner) => see(inner, names),
        Term::Path(from, path) => match (&**from, path.0.as_slice()) {
            (Term::Id, [(Part::Index(name), _), rest @ ..]) => {
                let Some(name) = constant(name) else { return false };
                if !names.contains(&name) {
                    names.push(name);
                }
                rest.iter().all(|(part, _)| see_part(part, names))
            }
            (Term::Id, _) => false,
            (from, parts) => see(from, names) && parts.iter().all(|(part, _)| see_part(part, names)),
        },
        Term::Obj(members) => members.iter().all(|(key, value)| match (key, value) {
            (key, Some(value)) => see(key, names) && see(value, names),
            (Term::Var(_), None) => true,
            // A name alone is a field of the same name.
            (key, None) => match constant(key) {
                Some(name) => {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                    true
                }
                None => false,
            },
        }),
        // What follows the bar sees what comes through it, not the event.
        Term::BinOp(left, BinaryOp::Pipe(None), _) => see(left, names),
        Term::BinOp(left, BinaryOp::Pipe(Some(_)), right) => see(left, names) && see(right, names),
        Term::BinOp(left, op, right) => {
            let reads = matches!(
                op,
                BinaryOp::Comma | BinaryOp::Alt | BinaryOp::Or | BinaryOp::And | BinaryOp::Math(_) | BinaryOp::Cmp(_)
            );
            reads && see(left, names) && see(right, names)
        }
        // Without an `else` the event goes through.
        Term::IfThenElse(cases, Some(otherwise)) => {
            cases.iter().all(|(case, then)| see(case, names) && see(then, names)) && see(otherwise, names)
        }
        Term::TryCatch(inner, _) => see(inner, names),
        _ => false,
    }
}

fn see_part(part: &Part<Term<&str>>, names: &mut Vec<String>) -> bool {
    match part {
        Part::Index(index) => see(index, names),
        Part::Range(from, to) => [from, to].into_iter().flatten().all(|end| see(end, names)),
    }
}
