use std::fmt;

use serde::Serialize;
use wasmill_model::Visibility;
use wasmill_spec::Delivery;

use crate::{Recovery, SinkFacts};

/// What a path gives over a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// Rows may be lost and effects may be there twice.
    None,
    /// Rows may be lost; no effect is there twice.
    AtMostOnce,
    /// No row is lost; effects may be there twice.
    AtLeastOnce,
    /// No row is lost and no effect is there twice.
    ExactlyOnce,
}

/// What decides about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathFacts {
    /// The run ends: every source of the job does.
    pub bounded: bool,
    /// The source can read the same events again.
    pub replayable: bool,
    /// A stage on the way holds results back: state, timers or windows.
    pub remembers: bool,
    /// How the sink shows rows.
    pub visibility: Visibility,
    /// The sink can show rows at once instead.
    pub direct: bool,
    /// What is left after a crash.
    pub recovery: Recovery,
    /// What the job asks for.
    pub asked: Delivery,
}

/// When a sink shows rows, in a job that asks for a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// As they come.
    AtOnce,
    /// Once positions are committed, and not again.
    BehindEpoch,
    /// With the commit of their epoch.
    WithEpoch,
    /// After it, with ids.
    Deduplicated,
}

impl SinkFacts {
    pub(crate) fn shown(self, asked: Delivery, recovery: Recovery) -> Shown {
        shown(self.visibility, self.direct, asked, recovery)
    }
}

/// When rows are shown. Rows whose sink writes them with the epoch, or with ids, gain nothing from
/// leaving earlier or later, unless it can show them at once. Where no positions are left after a
/// crash, no row waits for them.
fn shown(visibility: Visibility, direct: bool, asked: Delivery, recovery: Recovery) -> Shown {
    match (asked, visibility, recovery) {
        (Delivery::AtMostOnce, Visibility::AtOnce, Recovery::LastEpoch) => Shown::BehindEpoch,
        (Delivery::AtMostOnce, _, Recovery::LastEpoch) if direct => Shown::BehindEpoch,
        (Delivery::AtLeastOnce, ..) if direct => Shown::AtOnce,
        (_, Visibility::AtOnce, _) => Shown::AtOnce,
        (_, Visibility::WithEpoch, _) => Shown::WithEpoch,
        (_, Visibility::Deduplicated, _) => Shown::Deduplicated,
    }
}

/// What a path gives and why not more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What it gives.
    pub gives: Guarantee,
    /// What keeps it from giving more, or under which condition it gives this.
    pub weakest: Option<WeakestLink>,
    /// The same in words.
    pub reason: &'static str,
}

/// What keeps a path from giving more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeakestLink {
    /// The source.
    Source,
    /// The sink.
    Sink,
    /// What is left after a crash.
    Recovery,
    /// Nothing: the job asks for no more, and gets its rows earlier or cheaper for it.
    Asked,
}

/// What the way from one source to one sink gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathDelivery {
    /// Place of the source in [`crate::Plan::nodes`].
    pub source: usize,
    /// Place of the sink.
    pub sink: usize,
    /// What it gives.
    pub verdict: Verdict,
}

impl PathFacts {
    /// What a path with these facts gives. Operators are deterministic and their effects count only
    /// with their epoch, so what happens between source and sink matters only where it outlives
    /// its input.
    #[must_use]
    pub fn derive(self) -> Verdict {
        let verdict = |gives, weakest, reason| Verdict { gives, weakest, reason };
        use Guarantee::{AtLeastOnce, AtMostOnce, ExactlyOnce, None as Nothing};
        use Shown::{AtOnce, BehindEpoch, Deduplicated, WithEpoch};
        use WeakestLink::{Asked, Recovery as Crash, Sink, Source};
        let shown = shown(self.visibility, self.direct, self.asked, self.recovery);
        // What the sink would give in a job that asks for more.
        let better = self.visibility != Visibility::AtOnce;
        match (self.recovery, self.replayable, shown) {
            (Recovery::Nothing, true, AtOnce) if self.asked == Delivery::AtLeastOnce && better => verdict(
                AtLeastOnce,
                Some(Asked),
                "rows leave at once: after a crash, the next run starts from the beginning and writes them again",
            ),
            (Recovery::Nothing, true, WithEpoch) if self.bounded => verdict(
                ExactlyOnce,
                Some(Crash),
                "for a run that ends: after a crash, the next run starts from the beginning and replaces the output",
            ),
            (Recovery::Nothing, true, AtOnce) if self.bounded => verdict(
                AtLeastOnce,
                Some(if self.asked == Delivery::AtMostOnce { Crash } else { Sink }),
                "after a crash, the next run starts from the beginning and rows already written are written again",
            ),
            (Recovery::Nothing, true, _) => verdict(
                AtLeastOnce,
                Some(Crash),
                "positions and state are in memory only: after a crash, the next run starts from the beginning and readers see rows again",
            ),
            (Recovery::LastEpoch, true, WithEpoch) => {
                verdict(ExactlyOnce, None, "every row counts in exactly one epoch")
            }
            (Recovery::LastEpoch, true, Deduplicated) => verdict(
                ExactlyOnce,
                None,
                "every row counts in exactly one epoch, and the target drops rows that are delivered again",
            ),
            (Recovery::LastEpoch, true, AtOnce) if better => verdict(
                AtLeastOnce,
                Some(Asked),
                "rows leave at once: after a crash, rows written since the last epoch are written again",
            ),
            (Recovery::LastEpoch, true, BehindEpoch) => verdict(
                AtMostOnce,
                Some(if better { Asked } else { Sink }),
                "rows leave once their epoch is committed: after a crash, committed rows that had not left are gone",
            ),
            (Recovery::LastEpoch, true, AtOnce) => {
                verdict(AtLeastOnce, Some(Sink), "after a crash, rows written since the last epoch are written again")
            }
            (Recovery::LastEpoch, false, AtOnce) if self.remembers => verdict(
                Nothing,
                Some(Source),
                "after a crash, rows read since the last epoch are gone, and results fired since then fire again",
            ),
            (Recovery::Nothing, false, _) => verdict(
                AtMostOnce,
                Some(Source),
                "it cannot be read again: after a crash, rows that were under way are gone",
            ),
            (Recovery::LastEpoch, false, _) => verdict(
                AtMostOnce,
                Some(Source),
                "it cannot be read again: after a crash, rows since the last epoch are gone",
            ),
        }
    }
}

impl Guarantee {
    /// Whether this is at least what is asked for.
    #[must_use]
    pub fn satisfies(self, asked: Delivery) -> bool {
        match asked {
            Delivery::AtMostOnce => matches!(self, Self::AtMostOnce | Self::ExactlyOnce),
            Delivery::AtLeastOnce => matches!(self, Self::AtLeastOnce | Self::ExactlyOnce),
            Delivery::ExactlyOnce => self == Self::ExactlyOnce,
        }
    }

    /// What holds where both hold: for a job of several paths.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::ExactlyOnce, other) | (other, Self::ExactlyOnce) => other,
            (a, b) if a == b => a,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no guarantee",
            Self::AtMostOnce => "at-most-once",
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        })
    }
}

impl fmt::Display for WeakestLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Sink => "sink",
            Self::Recovery => "recovery",
            Self::Asked => "asked",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole truth table.
    #[test]
    fn every_combination_gives_what_it_can_hold() {
        let flag = [false, true];
        let shown = [Visibility::AtOnce, Visibility::WithEpoch, Visibility::Deduplicated];
        let mut every = Vec::new();
        for recovery in [Recovery::Nothing, Recovery::LastEpoch] {
            for asked in [Delivery::AtMostOnce, Delivery::AtLeastOnce, Delivery::ExactlyOnce] {
                for (bounded, replayable) in flag.iter().flat_map(|b| flag.iter().map(move |r| (*b, *r))) {
                    for (remembers, direct) in flag.iter().flat_map(|s| flag.iter().map(move |d| (*s, *d))) {
                        every.extend(shown.map(|visibility| PathFacts {
                            bounded,
                            replayable,
                            remembers,
                            visibility,
                            direct,
                            recovery,
                            asked,
                        }));
                    }
                }
            }
        }
        for facts in every {
            let PathFacts { bounded, replayable, remembers, visibility, direct, recovery, asked } = facts;
            let verdict = facts.derive();
            let at_once = match asked {
                Delivery::ExactlyOnce => visibility == Visibility::AtOnce,
                // A sink that can show rows earlier does.
                Delivery::AtLeastOnce => direct || visibility == Visibility::AtOnce,
                // Without positions to wait for, rows are shown as in any other job.
                Delivery::AtMostOnce => recovery == Recovery::Nothing && visibility == Visibility::AtOnce,
            };
            let waits = asked == Delivery::AtMostOnce
                && recovery == Recovery::LastEpoch
                && (direct || visibility == Visibility::AtOnce);
            // Without the first, rows are lost; without the second, rows come twice.
            let nothing_lost = replayable && !waits;
            let nothing_doubled = match recovery {
                // Nothing that was under way comes again, or all of it replaces the old.
                Recovery::Nothing => !replayable || (bounded && visibility == Visibility::WithEpoch && !at_once),
                Recovery::LastEpoch => !at_once || (!replayable && !remembers),
            };
            let expected = match (nothing_lost, nothing_doubled) {
                (true, true) => Guarantee::ExactlyOnce,
                (true, false) => Guarantee::AtLeastOnce,
                (false, true) => Guarantee::AtMostOnce,
                (false, false) => Guarantee::None,
            };
            assert_eq!(verdict.gives, expected, "{facts:?}");
            let weakest = verdict.weakest;
            assert_eq!(weakest.is_none(), expected == Guarantee::ExactlyOnce && recovery == Recovery::LastEpoch);
            assert_eq!(weakest == Some(WeakestLink::Source), !replayable, "{facts:?}");
            let with = |changed: PathFacts| changed.derive().gives;
            match weakest {
                Some(WeakestLink::Sink) => {
                    let better = PathFacts { visibility: Visibility::WithEpoch, asked: Delivery::ExactlyOnce, ..facts };
                    assert_eq!(with(better), Guarantee::ExactlyOnce, "{facts:?}");
                }
                Some(WeakestLink::Asked) => {
                    let better = with(PathFacts { asked: Delivery::ExactlyOnce, ..facts });
                    assert!(
                        expected.satisfies(asked)
                            && (better == Guarantee::ExactlyOnce || !bounded || recovery == Recovery::Nothing),
                        "{facts:?}"
                    );
                }
                Some(WeakestLink::Recovery) if asked == Delivery::AtMostOnce => {
                    assert!(with(PathFacts { recovery: Recovery::LastEpoch, ..facts }).satisfies(asked), "{facts:?}");
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_satisfies_what() {
        assert!(Guarantee::ExactlyOnce.satisfies(Delivery::AtMostOnce));
        assert!(!Guarantee::AtLeastOnce.satisfies(Delivery::AtMostOnce));
        assert!(!Guarantee::AtMostOnce.satisfies(Delivery::AtLeastOnce));
        assert_eq!(Guarantee::AtMostOnce.and(Guarantee::AtLeastOnce), Guarantee::None);
        assert_eq!(Guarantee::ExactlyOnce.and(Guarantee::AtLeastOnce), Guarantee::AtLeastOnce);
    }
}
