use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use wasmill_sdk::serde_json::{Map, Value as Json, json};

use crate::config::Field;
use crate::distinct::Distinct;
use crate::number::Number;
use crate::quantile::Quantiles;
use crate::top::Top;

/// What a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    Distinct,
    Top,
    Quantile,
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Scalar {
    Number(Number),
    Text(String),
}

impl Scalar {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.compare(*b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        }
    }

    fn json(self) -> Json {
        match self {
            Self::Number(number) => number.json(),
            Self::Text(text) => text.into(),
        }
    }

    /// What tells values apart: 1 and 1.0 are the same number, "1" is another value.
    fn identity(self) -> String {
        self.json().to_string()
    }

    fn number(&self) -> Number {
        match self {
            Self::Number(number) => *number,
            Self::Text(_) => Number::Integer(0),
        }
    }
}

/// What is known for one result. Part of the stored format: new kinds go to the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Part {
    /// No value so far.
    None,
    Sum(Number),
    Mean(Number, u64),
    Min(Scalar),
    Max(Scalar),
    Distinct(Distinct),
    Top(Top),
    Quantile(Quantiles),
}

impl Part {
    pub(crate) fn add(&mut self, kind: Kind, value: Scalar) {
        let one = match kind {
            Kind::Count => return,
            Kind::Sum => Self::Sum(value.number()),
            Kind::Mean => Self::Mean(value.number(), 1),
            Kind::Min => Self::Min(value),
            Kind::Max => Self::Max(value),
            Kind::Distinct => {
                if let Self::None = self {
                    *self = Self::Distinct(Distinct::default());
                }
                if let Self::Distinct(distinct) = self {
                    distinct.add(value.identity().as_bytes());
                }
                return;
            }
            Kind::Top => {
                if let Self::None = self {
                    *self = Self::Top(Top::default());
                }
                if let Self::Top(top) = self {
                    top.add(value.identity());
                }
                return;
            }
            Kind::Quantile => {
                if let Self::None = self {
                    *self = Self::Quantile(Quantiles::default());
                }
                if let Self::Quantile(quantiles) = self {
                    quantiles.add(value.number().float());
                }
                return;
            }
        };
        self.merge(one);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (_, Self::None) => {}
            (Self::None, other) => *self = other,
            (Self::Sum(a), Self::Sum(b)) => *a = a.plus(b),
            (Self::Mean(a, n), Self::Mean(b, m)) => {
                *a = a.plus(b);
                *n += m;
            }
            (Self::Min(a), Self::Min(b)) => {
                if b.compare(a) == Ordering::Less {
                    *a = b;
                }
            }
            (Self::Max(a), Self::Max(b)) => {
                if b.compare(a) == Ordering::Greater {
                    *a = b;
                }
            }
            (Self::Distinct(a), Self::Distinct(b)) => a.merge(b),
            (Self::Top(a), Self::Top(b)) => a.merge(b),
            (Self::Quantile(a), Self::Quantile(b)) => a.merge(b),
            // Accumulators of another configuration: the newer one counts.
            (_, other) => *self = other,
        }
    }

    pub(crate) fn result(self, field: &Field, count: u64) -> Json {
        match (field.kind, self) {
            (Kind::Count, _) => count.into(),
            (Kind::Sum, Self::Sum(sum)) => sum.json(),
            (Kind::Sum | Kind::Distinct, Self::None) => 0.into(),
            (Kind::Mean, Self::Mean(sum, count)) => (sum.float() / count as f64).into(),
            (Kind::Min, Self::Min(value)) | (Kind::Max, Self::Max(value)) => value.json(),
            (Kind::Distinct, Self::Distinct(distinct)) => distinct.estimate().into(),
            (Kind::Top, Self::Top(top)) => top
                .first(field.limit)
                .into_iter()
                .map(|(value, count)| {
                    let value: Json = wasmill_sdk::serde_json::from_str(&value).unwrap_or(Json::Null);
                    json!({ "value": value, "count": count })
                })
                .collect(),
            (Kind::Top, _) => Json::Array(Vec::new()),
            (Kind::Quantile, part) => {
                let quantiles = if let Self::Quantile(quantiles) = part { quantiles } else { Quantiles::default() };
                let values = quantiles.at(&field.at);
                let entry = |(q, value): (&f64, Option<f64>)| (q.to_string(), value.into());
                Json::Object(field.at.iter().zip(values).map(entry).collect::<Map<_, _>>())
            }
            _ => Json::Null,
        }
    }
}
