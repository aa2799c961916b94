use std::fmt;

use crate::abi::interface;

/// An interface that the host implements for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Log lines.
    Log,
    /// Counters, gauges, distributions.
    Metrics,
    /// Keyed state.
    State,
    /// Timers by key.
    Timers,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 4] = [Self::Log, Self::Metrics, Self::State, Self::Timers];

    /// The interface, as a component imports it.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Log => interface!("log"),
            Self::Metrics => interface!("metrics"),
            Self::State => interface!("state"),
            Self::Timers => interface!("timers"),
        }
    }
}

/// The capabilities that a plugin may import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grants(u8);

impl Grants {
    /// None at all.
    pub const NONE: Self = Self(0);
    /// Every capability.
    pub const ALL: Self = Self(0b1111);

    /// These and `capability`.
    #[must_use]
    pub const fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability as u8)
    }

    /// Whether `capability` is among them.
    #[must_use]
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 >> capability as u8 & 1 == 1
    }
}

impl Default for Grants {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let granted = Capability::ALL.into_iter().filter(|&capability| self.contains(capability));
        let mut any = false;
        for capability in granted {
            write!(f, "{}`{}`", if any { ", " } else { "" }, capability.interface())?;
            any = true;
        }
        if any { Ok(()) } else { f.write_str("nothing") }
    }
}
