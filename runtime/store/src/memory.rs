/// State in hash tables.
#[derive(Debug, Default)]
pub struct MemoryState;
