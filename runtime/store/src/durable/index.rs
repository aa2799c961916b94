//! Where the blocks of state of a sorted file begin. A block of state holds one space of one node.

use super::codec::{Change, Entry, Name, Reader, put_bytes, put_varint};

/// What the index says about the blocks of one space.
#[derive(Debug)]
pub(super) struct SpaceIndex {
    node: Box<str>,
    number: u64,
    /// Entries that have a value, and the bytes of their names and values.
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// The front of each block's first key, for a quick search.
    prefixes: Vec<u64>,
    /// First key and sub-key of each block, one behind the other, with the end of each.
    names: Vec<u8>,
    ends: Vec<(u32, u32)>,
    offsets: Vec<u64>,
}

/// The first eight bytes, in the order of bytes.
#[inline]
pub(super) fn prefix(bytes: &[u8]) -> u64 {
    let mut front = [0; 8];
    let len = bytes.len().min(8);
    front[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(front)
}

impl SpaceIndex {
    fn new(node: &str, number: u64) -> Self {
        let (prefixes, names, ends, offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { node: node.into(), number, entries: 0, bytes: 0, prefixes, names, ends, offsets }
    }

    /// `None` where there are more names than an index takes.
    fn push(&mut self, first: &[u8], second: &[u8], offset: u64) -> Option<()> {
        self.names.extend_from_slice(first);
        let middle = u32::try_from(self.names.len()).ok()?;
        self.names.extend_from_slice(second);
        let end = u32::try_from(self.names.len()).ok()?;
        self.prefixes.push(prefix(first));
        self.ends.push((middle, end));
        self.offsets.push(offset);
        Some(())
    }

    fn name(&self, block: usize) -> (&[u8], &[u8]) {
        let start = block.checked_sub(1).map_or(0, |before| self.ends[before].1 as usize);
        let (middle, end) = self.ends[block];
        (&self.names[start..middle as usize], &self.names[middle as usize..end as usize])
    }

    /// The block that holds a name if any does: the last that begins at or before it. The first
    /// where none does.
    #[inline]
    pub(super) fn block_of(&self, first: &[u8], second: &[u8]) -> usize {
        let prefix = prefix(first);
        let mut low = self.prefixes.partition_point(|other| *other < prefix);
        let mut high = low + self.prefixes[low..].partition_point(|other| *other == prefix);
        // Among equal fronts the whole names decide.
        while low < high {
            let middle = low + (high - low) / 2;
            if self.name(middle) <= (first, second) { low = middle + 1 } else { high = middle }
        }
        low.saturating_sub(1)
    }

    /// Where a block begins.
    pub(super) fn offset(&self, block: usize) -> Option<u64> {
        self.offsets.get(block).copied()
    }

    fn heap_bytes(&self) -> usize {
        self.names.len() + self.offsets.len() * 24
    }
}

/// The index of a sorted file.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Sorted by node and number.
    spaces: Vec<SpaceIndex>,
}

impl Index {
    pub(super) fn space(&self, node: &str, number: u64) -> Option<&SpaceIndex> {
        let place = self.spaces.binary_search_by(|space| (&*space.node, space.number).cmp(&(node, number)));
        place.ok().map(|place| &self.spaces[place])
    }

    /// Bytes of memory it takes, about.
    pub(super) fn heap_bytes(&self) -> usize {
        self.spaces.iter().map(SpaceIndex::heap_bytes).sum()
    }

    /// `None` where it makes no sense.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let mut index = Self::default();
        for _ in 0..reader.varint()? {
            let node = std::str::from_utf8(reader.bytes()?).ok()?;
            let mut space = SpaceIndex::new(node, reader.varint()?);
            (space.entries, space.bytes) = (reader.varint()?, reader.varint()?);
            for _ in 0..reader.varint()? {
                let offset = reader.varint()?;
                let (first, second) = (reader.bytes()?, reader.bytes()?);
                space.push(first, second, offset)?;
            }
            index.spaces.push(space);
        }
        let rising = |pair: &[SpaceIndex]| (&pair[0].node, pair[0].number) < (&pair[1].node, pair[1].number);
        (reader.0.is_empty() && index.spaces.windows(2).all(rising)).then_some(index)
    }
}

/// Collects an index while a file is written.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    done: Vec<u8>,
    spaces: u64,
    open: Option<OpenSpace>,
}

#[derive(Debug)]
struct OpenSpace {
    node: Box<str>,
    number: u64,
    entries: u64,
    bytes: u64,
    blocks: u64,
    last: Option<u64>,
    names: Vec<u8>,
}

impl IndexBuilder {
    /// Whether the last entry was of this space, or none was.
    pub(super) fn is_in(&self, node: &str, number: u64) -> bool {
        self.open.as_ref().is_none_or(|open| *open.node == *node && open.number == number)
    }

    /// An entry of state in the block at `offset`.
    pub(super) fn push(&mut self, node: &str, entry: &Entry<'_>, offset: u64) {
        let Name { number, first, second } = entry.name;
        if self.open.is_none() || !self.is_in(node, number) {
            self.close();
            let (node, names) = (node.into(), Vec::new());
            self.open = Some(OpenSpace { node, number, entries: 0, bytes: 0, blocks: 0, last: None, names });
        }
        let Some(open) = &mut self.open else { return };
        if let Change::Put(value) = entry.change {
            open.entries += 1;
            open.bytes += (first.len() + second.len() + value.len()) as u64;
        }
        if open.last != Some(offset) {
            open.last = Some(offset);
            open.blocks += 1;
            put_varint(&mut open.names, offset);
            put_bytes(&mut open.names, first);
            put_bytes(&mut open.names, second);
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.spaces += 1;
            put_bytes(&mut self.done, open.node.as_bytes());
            for number in [open.number, open.entries, open.bytes, open.blocks] {
                put_varint(&mut self.done, number);
            }
            self.done.extend_from_slice(&open.names);
        }
    }

    pub(super) fn encode(&mut self, into: &mut Vec<u8>) {
        self.close();
        put_varint(into, self.spaces);
        into.append(&mut self.done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_where_it_would_stand() {
        let mut builder = IndexBuilder::default();
        let names: [(&[u8], &[u8]); 4] = [(b"b", b""), (b"bridge-7", b""), (b"bridge-70", b"x"), (b"c", b"")];
        for (place, (first, second)) in (1..).zip(names) {
            let entry = Entry { name: Name { number: 3, first, second }, change: Change::Put(b"v") };
            builder.push("count", &entry, place * 100);
            builder.push("count", &entry, place * 100);
        }
        let mut payload = Vec::new();
        builder.encode(&mut payload);
        let index = Index::decode(&payload).expect("an index");
        assert!(index.space("count", 2).is_none());
        let space = index.space("count", 3).expect("a space");
        assert_eq!(space.entries, 8);
        let at = |first: &[u8], second: &[u8]| space.offset(space.block_of(first, second));
        assert_eq!(at(b"a", b""), Some(100), "before the first");
        assert_eq!(at(b"b", b""), Some(100));
        assert_eq!(at(b"bridge-7", b"a"), Some(200));
        assert_eq!(at(b"bridge-70", b""), Some(200));
        assert_eq!(at(b"bridge-70", b"x"), Some(300));
        assert_eq!(at(b"z", b""), Some(400));
        assert!((0..payload.len()).all(|len| Index::decode(&payload[..len]).is_none()));
    }
}
