/// Who has to act on an error. The supervisor reads this and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The author of the pipeline: a job file, an option, a missing input.
    Config,
    /// The author of the plugin: a trap, a timeout, an output out of contract.
    Plugin,
    /// Nobody: retry with backoff.
    Unavailable,
    /// Whoever looks after the machine: a disk has no room. Wait until it has, then go on from what is
    /// durable.
    Full,
    /// Stored bytes are wrong: stop, never retry.
    Corrupt,
    /// A newer owner exists: step down.
    Fenced,
    /// Us: a bug.
    Internal,
}
