/// How the rows of a sink become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// At once: after a crash, rows since the last epoch are there again.
    AtOnce,
    /// With the commit of their epoch, exactly once.
    WithEpoch,
    /// After the commit of their epoch, under ids by which the target drops what it has.
    Deduplicated,
}
