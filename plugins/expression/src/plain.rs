//! Expressions with exactly one value, evaluated straight away.
//!
//! In jq every term yields any number of values, so `jaq` runs each as a boxed iterator: dozens of
//! allocations an event. Most expressions of jobs are made of fields, constants and operators, which
//! have one value each. Those are evaluated here, with `jaq`'s own values and operators; the tests hold
//! each of them against `jaq` itself.

use jaq_core::data::JustLut;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::ops::{Cmp, Math};
use jaq_core::path::{Opt, Part};
use jaq_core::{Ctx, Filter, ValT as _, Vars, unwrap_valr};
use jaq_json::{Error, Map, Val};

use crate::compile::{compile, constant};

/// What an expression is evaluated on.
pub(crate) struct Scope {
    /// The fields that it needs, in the order of its names; `null` where there is none.
    pub(crate) fields: Vec<Val>,
    /// `$key` and `$time`.
    pub(crate) variables: [Val; 2],
}

/// Functions that have one value for one.
pub(crate) const FUNCTIONS: &[&str] = &[
    "abs",
    "ascii_downcase",
    "ascii_upcase",
    "ceil",
    "floor",
    "fromjson",
    "length",
    "ltrim",
    "round",
    "rtrim",
    "tojson",
    "tonumber",
    "tostring",
    "trim",
    "type",
];

/// An expression with one value.
pub(crate) enum Plain {
    Constant(Val),
    Field(usize),
    Variable(usize),
    Index(Box<Plain>, Val),
    Negative(Box<Plain>),
    Not(Box<Plain>),
    Call(Box<Plain>, Box<Filter<JustLut<Val>>>),
    Math(Math, Box<[Plain; 2]>),
    Compare(Cmp, Box<[Plain; 2]>),
    And(Box<[Plain; 2]>),
    Or(Box<[Plain; 2]>),
    Alternative(Box<[Plain; 2]>),
    /// Conditions with what follows from them, and what follows from none.
    If(Vec<(Plain, Plain)>, Box<Plain>),
    Object(Vec<(Val, Plain)>),
}

impl Plain {
    /// A term as such an expression, of an event's fields of these names. `None` where it is not one.
    pub(crate) fn of(term: &Term<&str>, names: &[String]) -> Option<Self> {
        let of = |term: &Term<&str>| Self::of(term, names);
        let boxed = |term: &Term<&str>| of(term).map(Box::new);
        let field = |name: &str| names.iter().position(|one| one == name).map(Self::Field);
        let both = |left: &Term<&str>, right: &Term<&str>| Some(Box::new([of(left)?, of(right)?]));
        match term {
            Term::Num(number) => Val::from_num(number).ok().map(Self::Constant),
            Term::Str(..) => constant(term).map(|text| Self::Constant(string(&text))),
            Term::Call("true", _) => Some(Self::Constant(Val::Bool(true))),
            Term::Call("false", _) => Some(Self::Constant(Val::Bool(false))),
            Term::Call("null", _) => Some(Self::Constant(Val::Null)),
            Term::Var("$key") => Some(Self::Variable(0)),
            Term::Var("$time") => Some(Self::Variable(1)),
            Term::Neg(inner) => boxed(inner).map(Self::Negative),
            Term::Path(from, path) => {
                let mut parts = path.0.iter().map(|part| match part {
                    (Part::Index(index @ Term::Str(..)), Opt::Essential) => constant(index),
                    _ => None,
                });
                let start = match &**from {
                    Term::Id => field(&parts.next()??)?,
                    from => of(from)?,
                };
                parts.try_fold(start, |from, name| Some(Self::Index(Box::new(from), string(&name?))))
            }
            Term::Obj(members) => {
                let member = |(key, value): &(Term<&str>, Option<Term<&str>>)| {
                    let key = constant(key)?;
                    let value = value.as_ref().map_or_else(|| field(&key), of)?;
                    Some((string(&key), value))
                };
                members.iter().map(member).collect::<Option<_>>().map(Self::Object)
            }
            Term::BinOp(left, BinaryOp::Pipe(None), right) => of(left)?.through(right),
            Term::BinOp(left, BinaryOp::Alt, right) => both(left, right).map(Self::Alternative),
            Term::BinOp(left, BinaryOp::Or, right) => both(left, right).map(Self::Or),
            Term::BinOp(left, BinaryOp::And, right) => both(left, right).map(Self::And),
            Term::BinOp(left, BinaryOp::Math(math), right) => both(left, right).map(|both| Self::Math(*math, both)),
            Term::BinOp(left, BinaryOp::Cmp(cmp), right) => both(left, right).map(|both| Self::Compare(*cmp, both)),
            Term::IfThenElse(cases, Some(otherwise)) => {
                let case = |(case, then): &(Term<&str>, Term<&str>)| Some((of(case)?, of(then)?));
                Some(Self::If(cases.iter().map(case).collect::<Option<_>>()?, boxed(otherwise)?))
            }
            _ => None,
        }
    }

    /// Its value through a bar.
    fn through(self, term: &Term<&str>) -> Option<Self> {
        match term {
            Term::BinOp(left, BinaryOp::Pipe(None), right) => self.through(left)?.through(right),
            Term::Call("not", _) => Some(Self::Not(Box::new(self))),
            Term::Call(name, _) if FUNCTIONS.contains(name) => {
                Some(Self::Call(Box::new(self), Box::new(compile(name).ok()?)))
            }
            _ => None,
        }
    }

    /// Its value.
    ///
    /// # Errors
    /// As `jaq` has it.
    pub(crate) fn eval(&self, scope: &Scope) -> Result<Val, Error> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Field(at) => Ok(scope.fields.get(*at).cloned().unwrap_or_default()),
            Self::Variable(at) => Ok(scope.variables.get(*at).cloned().unwrap_or_default()),
            Self::Index(from, name) => from.eval(scope)?.index(name),
            Self::Negative(inner) => inner.eval(scope).and_then(|value| -value),
            Self::Not(inner) => Ok(Val::Bool(!inner.holds(scope)?)),
            Self::Call(inner, function) => {
                let ctx = Ctx::<JustLut<Val>>::new(&function.lut, Vars::new([Val::Null, Val::Null]));
                function.id.run((ctx, inner.eval(scope)?)).map(unwrap_valr).next().unwrap_or(Ok(Val::Null))
            }
            Self::Math(math, sides) => math.run(sides[0].eval(scope)?, sides[1].eval(scope)?),
            Self::Compare(cmp, sides) => Ok(Val::Bool(cmp.run(&sides[0].eval(scope)?, &sides[1].eval(scope)?))),
            Self::And(sides) => Ok(Val::Bool(sides[0].holds(scope)? && sides[1].holds(scope)?)),
            Self::Or(sides) => Ok(Val::Bool(sides[0].holds(scope)? || sides[1].holds(scope)?)),
            Self::Alternative(sides) => match sides[0].eval(scope)? {
                value if value.as_bool() => Ok(value),
                _ => sides[1].eval(scope),
            },
            Self::If(cases, otherwise) => {
                for (case, then) in cases {
                    if case.holds(scope)? {
                        return then.eval(scope);
                    }
                }
                otherwise.eval(scope)
            }
            Self::Object(members) => {
                let mut object = Map::default();
                for (key, value) in members {
                    object.insert(key.clone(), value.eval(scope)?);
                }
                Ok(Val::obj(object))
            }
        }
    }

    fn holds(&self, scope: &Scope) -> Result<bool, Error> {
        self.eval(scope).map(|value| value.as_bool())
    }
}

fn string(text: &str) -> Val {
    Val::utf8_str(text.as_bytes().to_vec())
}
