use std::fmt;

use wasmill_model::{
    Batch, Clock, Column, Descriptor, Entries, ErrorKind, Firings, Folded, LetterKind, Migrated, Outcome, PaneBatch,
    PluginDigest, Results, Timestamp,
};

use crate::{BoxFuture, OperatorContext};

const FRAMES_SHOWN: usize = 8;

/// A loaded plugin with the configuration of one stage: makes instances of it.
pub trait OperatorFactory: Send + Sync {
    /// What the plugin says about itself under this configuration.
    fn descriptor(&self) -> &Descriptor;

    /// The plugin's identity.
    fn digest(&self) -> PluginDigest;

    /// A fresh, opened instance of an operator. The context's spaces are declared by the caller.
    ///
    /// # Errors
    /// Where instantiation or `open` fails, or the plugin is an aggregate.
    fn open(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Operator>, Box<OpenError>>>;

    /// A fresh, opened instance of an aggregate.
    ///
    /// # Errors
    /// Where instantiation or `open` fails, or the plugin is not an aggregate.
    fn open_aggregate(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Aggregate>, Box<OpenError>>>;
}

/// Why an instance could not be opened, and what the host keeps for it: another may be.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct OpenError {
    /// What went wrong.
    pub cause: OperatorError,
    /// What the host keeps.
    pub context: OperatorContext,
}

/// One instance of an operator.
///
/// After an error of kind [`OperatorError::Trap`], [`OperatorError::Deadline`],
/// [`OperatorError::Limit`], [`OperatorError::Contract`] or [`OperatorError::Host`] the instance is dead: only
/// [`Operator::context`] and [`Operator::close`] may follow. After any error what it remembers may
/// be half of a call, so the engine lets it go.
pub trait Operator: Send {
    /// Handles rows that came in by `port`.
    ///
    /// # Errors
    /// Where the call fails: nothing of it counts.
    fn process<'a>(&'a mut self, port: u16, input: &'a Batch) -> BoxFuture<'a, Result<Outcome, OperatorError>>;

    /// Handles timers that are due.
    ///
    /// # Errors
    /// As [`Operator::process`].
    fn on_timers<'a>(&'a mut self, clock: Clock, fired: &'a Firings) -> BoxFuture<'a, Result<Outcome, OperatorError>>;

    /// Hears that the watermark has risen. Called only if the descriptor asks for it.
    ///
    /// # Errors
    /// As [`Operator::process`].
    fn on_watermark(&mut self, watermark: Timestamp) -> BoxFuture<'_, Result<Outcome, OperatorError>>;

    /// Writes cached state, before a cut.
    ///
    /// # Errors
    /// As [`Operator::process`].
    fn flush(&mut self) -> BoxFuture<'_, Result<(), OperatorError>>;

    /// Turns entries of one space, written under another schema version, into its own: as many
    /// values as entries. Pure. Without entries it says whether it knows that version. Called only if
    /// the descriptor says that it `migrates`.
    ///
    /// # Errors
    /// As [`Operator::process`].
    fn migrate<'a>(
        &'a mut self,
        space: u16,
        from_version: u32,
        entries: &'a Entries,
    ) -> BoxFuture<'a, Result<Migrated, OperatorError>> {
        let _ = (space, from_version, entries);
        let reason = "the plugin does not export `migration`".to_owned();
        Box::pin(async { Err(OperatorError::Contract { call: "migrate", reason }) })
    }

    /// Whether its memory has grown so much that a fresh instance should take its place at the next
    /// cut: guests of some languages leak.
    fn is_overgrown(&self) -> bool {
        false
    }

    /// How much memory it has.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// What the host keeps for it.
    fn context(&mut self) -> &mut OperatorContext;

    /// Ends the instance.
    fn close(self: Box<Self>) -> OperatorContext;
}

/// One instance of an aggregate: pure functions over accumulators that the host keeps.
/// Dies as [`Operator`] does.
pub trait Aggregate: Send {
    /// Adds row `i` of `input` to accumulator `groups[i]`; an empty accumulator is a new one.
    /// Returns as many accumulators as it was given.
    ///
    /// # Errors
    /// Where the call fails: nothing of it counts.
    fn fold<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        input: &'a Batch,
    ) -> BoxFuture<'a, Result<Folded, OperatorError>>;

    /// Merges accumulator `i` into group `groups[i]`, in order. Returns `count` accumulators.
    ///
    /// # Errors
    /// As [`Aggregate::fold`].
    fn merge<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        count: u32,
    ) -> BoxFuture<'a, Result<Column, OperatorError>>;

    /// The results of panes that fire, one accumulator each.
    ///
    /// # Errors
    /// As [`Aggregate::fold`].
    fn finish<'a>(
        &'a mut self,
        panes: &'a PaneBatch,
        accumulators: &'a Column,
    ) -> BoxFuture<'a, Result<Results, OperatorError>>;

    /// How much memory it has.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// What the host keeps for it.
    fn context(&mut self) -> &mut OperatorContext;

    /// Ends the instance.
    fn close(self: Box<Self>) -> OperatorContext;
}

/// Why a call of an operator failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The operator says that the same call may succeed later.
    #[error("{call} asks to be tried again: {reason}")]
    Retry {
        /// The function that was called.
        call: &'static str,
        /// The operator's words.
        reason: String,
    },
    /// The operator says that the same call fails always.
    #[error("{call} failed: {reason}")]
    Fatal {
        /// The function that was called.
        call: &'static str,
        /// The operator's words.
        reason: String,
    },
    /// The guest trapped.
    #[error("{call} trapped: {reason}{}", Frames(stack))]
    Trap {
        /// The function that was called.
        call: &'static str,
        /// What kind of trap.
        reason: String,
        /// Where the guest was, its innermost function first.
        stack: Vec<String>,
    },
    /// The guest did not return in time.
    #[error("{call} did not return within {limit_ms} ms")]
    Deadline {
        /// The function that was called.
        call: &'static str,
        /// The limit.
        limit_ms: u64,
    },
    /// The guest wanted more than it may have.
    #[error("{call} went over a limit: {limit}")]
    Limit {
        /// The function that was called.
        call: &'static str,
        /// Which limit, and what it is set to.
        limit: String,
    },
    /// What the guest returned breaks the contract of `wasmill:operator`.
    #[error("{call} returned what the contract does not allow: {reason}")]
    Contract {
        /// The function that was called.
        call: &'static str,
        /// Which rule, with the value.
        reason: String,
    },
    /// The host could not do what the guest asked for, such as read its state from disk. The
    /// operator is not to blame.
    #[error("{call} could not go on: {reason}")]
    Host {
        /// The function that was called.
        call: &'static str,
        /// What failed.
        reason: String,
    },
    /// The host could not make the instance.
    #[error("cannot make an instance: {0}")]
    Instance(String),
}

impl OperatorError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Retry { .. } | Self::Host { .. } => ErrorKind::Unavailable,
            Self::Instance(_) => ErrorKind::Internal,
            _ => ErrorKind::Plugin,
        }
    }

    /// Why what the call was given cannot be processed.
    #[must_use]
    pub fn letter_kind(&self) -> LetterKind {
        match self {
            Self::Retry { .. } | Self::Fatal { .. } | Self::Contract { .. } | Self::Instance(_) | Self::Host { .. } => {
                LetterKind::Error
            }
            Self::Trap { .. } => LetterKind::Trap,
            Self::Deadline { .. } => LetterKind::Timeout,
            Self::Limit { .. } => LetterKind::Limit,
        }
    }
}

/// The innermost functions of a stack, for people.
struct Frames<'a>(&'a [String]);

impl fmt::Display for Frames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, frame) in self.0.iter().take(FRAMES_SHOWN).enumerate() {
            f.write_str(if place == 0 { " in " } else { " < " })?;
            f.write_str(frame)?;
        }
        Ok(())
    }
}
