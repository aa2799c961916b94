//! Plugins that run beside the one of a stage: what is asked for, and when that is over. Pure.
//!
//! `wasmill_engine::Beside` is how they run.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmill_spec::Period;

/// How long a plugin runs beside another: `30s`, `100epochs`, `5000rows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Span {
    /// So many epochs of the job.
    Epochs(u64),
    /// So many rows that come to the stage.
    Rows(u64),
    /// So long.
    Time(Period),
}

/// Why a text is no span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no span: write a time as 30s, or a count as 100epochs or 5000rows")]
pub struct NoSpan(String);

impl FromStr for Span {
    type Err = NoSpan;

    fn from_str(text: &str) -> Result<Self, NoSpan> {
        let wrong = || NoSpan(text.to_owned());
        let count = |number: &str| number.trim().parse::<u64>().ok().filter(|number| *number > 0);
        for (unit, span) in [
            ("epochs", Self::Epochs as fn(u64) -> Self),
            ("epoch", Self::Epochs),
            ("rows", Self::Rows),
            ("row", Self::Rows),
        ] {
            if let Some(number) = text.strip_suffix(unit) {
                return count(number).map(span).ok_or_else(wrong);
            }
        }
        let period: Period = text.parse().map_err(|_| wrong())?;
        if period.as_duration().is_zero() { Err(wrong()) } else { Ok(Self::Time(period)) }
    }
}

impl TryFrom<String> for Span {
    type Error = NoSpan;

    fn try_from(text: String) -> Result<Self, NoSpan> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epochs(epochs) => write!(f, "{epochs}epochs"),
            Self::Rows(rows) => write!(f, "{rows}rows"),
            Self::Time(time) => time.fmt(f),
        }
    }
}

/// How a plugin is to run beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is given the same, and compared.
    Shadow,
    /// It has so many percent of the key groups, 1 to 99.
    Canary(u8),
}

/// A plugin is to run beside that of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BesideAsked {
    /// How.
    pub mode: Mode,
    /// How long; without one until somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Whether it takes over at the end of that, where nothing speaks against it.
    #[serde(default)]
    pub promote: bool,
}

impl BesideAsked {
    /// What is wrong with it.
    ///
    /// # Errors
    /// Where it asks for something that cannot be.
    pub fn check(&self) -> Result<(), &'static str> {
        match self.mode {
            Mode::Canary(percent) if !(1..=99).contains(&percent) => Err("a canary has 1 to 99 percent of the keys"),
            _ if self.promote && self.span.is_none() => {
                Err("to be promoted by itself it needs a span, such as 30s or 100epochs")
            }
            _ => Ok(()),
        }
    }
}

/// How far a plugin beside another has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Epochs since it began.
    pub epochs: u64,
    /// Rows that have come to the stage since.
    pub rows: u64,
    /// Time since.
    pub elapsed: Duration,
    /// Calls that were compared; none for a canary.
    pub compared: u64,
    /// Differences found; none for a canary.
    pub differences: u64,
    /// Whether it has ended by itself.
    pub gave_up: bool,
}

/// What becomes of it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    GoOn,
    /// It takes over.
    Promote,
    /// It ends, for this reason.
    End(&'static str),
}

/// Why a shadow may not take over.
#[must_use]
pub fn objection(mode: Mode, progress: &Progress) -> Option<&'static str> {
    match mode {
        Mode::Canary(_) => None,
        Mode::Shadow if progress.gave_up => Some("it fails again and again"),
        Mode::Shadow if progress.differences > 0 => Some("it does not do what the old one does"),
        Mode::Shadow if progress.compared == 0 => Some("nothing was compared: no row has come, or no window has fired"),
        Mode::Shadow => None,
    }
}

/// Decides what becomes of a plugin that runs beside another.
#[must_use]
pub fn decide_next(asked: &BesideAsked, progress: &Progress) -> Next {
    if progress.gave_up {
        return Next::End("it fails again and again");
    }
    let over = match asked.span {
        None => false,
        Some(Span::Epochs(epochs)) => progress.epochs >= epochs,
        Some(Span::Rows(rows)) => progress.rows >= rows,
        Some(Span::Time(time)) => progress.elapsed >= time.as_duration(),
    };
    match (over, asked.promote) {
        (false, _) => Next::GoOn,
        (true, false) => Next::End("its span is over"),
        (true, true) => objection(asked.mode, progress).map_or(Next::Promote, Next::End),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_it_is_written() {
        for text in ["30s", "100epochs", "5000rows", "1m30s"] {
            assert_eq!(text.parse::<Span>().map(|span| span.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("1epoch".parse(), Ok(Span::Epochs(1)));
        for wrong in ["", "0rows", "0s", "rows", "5", "-1epochs", "5 parsecs", "99999999999999999999rows"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong:?}");
        }
    }

    /// Every case of a small world, held to rules that are written down another way.
    #[test]
    fn a_plugin_beside_takes_over_only_where_it_was_asked_to_and_nothing_speaks_against_it() {
        let spans = [None, Some(Span::Epochs(2)), Some(Span::Rows(2)), Some(Span::Time(Period::from_micros(2)))];
        let mut taken = 0;
        for (mode, span, promote) in [Mode::Shadow, Mode::Canary(10)]
            .into_iter()
            .flat_map(|mode| spans.map(|span| (mode, span)))
            .flat_map(|(mode, span)| [(mode, span, false), (mode, span, true)])
        {
            let asked = BesideAsked { mode, span, promote };
            for bits in 0..64_u64 {
                let bit = |n: u32| bits >> n & 1;
                let progress = Progress {
                    epochs: 1 + bit(0),
                    rows: 1 + bit(1),
                    elapsed: Duration::from_micros(1 + bit(2)),
                    compared: bit(3),
                    differences: bit(4) & bit(3),
                    gave_up: bit(5) == 1 && mode == Mode::Shadow,
                };
                let next = decide_next(&asked, &progress);
                let reached = match span {
                    None => 1,
                    Some(Span::Epochs(_)) => progress.epochs,
                    Some(Span::Rows(_)) => progress.rows,
                    Some(Span::Time(_)) => progress.elapsed.as_micros() as u64,
                };
                assert_eq!(next == Next::GoOn, reached < 2 && !progress.gave_up, "{asked:?} {progress:?}");
                let clean = mode != Mode::Shadow || (progress.compared == 1 && progress.differences == 0);
                let may = promote && reached == 2 && clean && !progress.gave_up;
                assert_eq!(next == Next::Promote, may, "{asked:?} {progress:?}");
                taken += u64::from(may);
            }
        }
        assert!(taken > 0);
        let wrong = |mode, span, promote| BesideAsked { mode, span, promote }.check().is_err();
        assert!(wrong(Mode::Canary(0), None, false) && wrong(Mode::Canary(100), None, false));
        assert!(wrong(Mode::Shadow, None, true) && !wrong(Mode::Shadow, Some(Span::Rows(1)), true));
    }
}
