//! Entries: what a payload holds, in the log and in a base alike.
//!
//! A payload is a row of sections, a section is the entries of one table of one node:
//!
//! ```text
//! section   table u8 · node: varint length, bytes · entries u32 · bytes of entries u32 · entry…
//! entry     number varint · first: varint length, bytes · second: varint length, bytes · change
//! change    0                                  the entry is gone
//!           1, share varint, shares varint     gone: every entry of this number, of this table and
//!                                              node, whose first part belongs to that share
//!           2 + length varint, bytes           its value
//! ```
//!
//! Varints are LEB128 of at most ten bytes, other integers little-endian.

use wasmill_model::{key_group, share_of};

/// What an entry is about. Part of the stored format; the order is that of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Table {
    /// That everything of the node is gone: one entry, which stands before those of other tables.
    Removed = 0,
    Counters = 1,
    Meta = 2,
    Positions = 3,
    Sinks = 4,
    Progress = 5,
    Panes = 6,
    Timers = 7,
    State = 8,
    Letters = 9,
    /// Rejected rows that are to be processed again.
    Replays = 10,
    /// Rows in ordering buffers, and what those know.
    Held = 11,
}

impl Table {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Removed,
            1 => Self::Counters,
            2 => Self::Meta,
            3 => Self::Positions,
            4 => Self::Sinks,
            5 => Self::Progress,
            6 => Self::Panes,
            7 => Self::Timers,
            8 => Self::State,
            9 => Self::Letters,
            10 => Self::Replays,
            11 => Self::Held,
            _ => return None,
        })
    }
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) name: Name<'a>,
    pub(super) change: Change<'a>,
}

/// What tells an entry from others of its table and node. Ordered part by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name<'a> {
    pub(super) number: u64,
    pub(super) first: &'a [u8],
    pub(super) second: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change<'a> {
    Gone,
    /// Stands at the number with empty parts, which no other entry of the table does.
    AllGone(Owner),
    Put(&'a [u8]),
}

/// One share of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) share: u16,
    pub(super) shares: u16,
}

impl Owner {
    pub(super) fn owns(self, key: &[u8]) -> bool {
        share_of(key_group(key), self.shares) == self.share
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front; `None` where the bytes end or make no sense.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.varint()?;
        self.take(len)
    }

    pub(crate) fn number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.varint()?).ok()
    }

    pub(super) fn entry(&mut self) -> Option<Entry<'a>> {
        let name = Name { number: self.varint()?, first: self.bytes()?, second: self.bytes()? };
        let change = match self.varint()? {
            0 => Change::Gone,
            1 => {
                let owner = Owner { share: self.number()?, shares: self.number()? };
                if owner.shares == 0 || !name.first.is_empty() || !name.second.is_empty() {
                    return None;
                }
                Change::AllGone(owner)
            }
            more => Change::Put(self.take(more - 2)?),
        };
        Some(Entry { name, change })
    }

    /// The head of a section, and a reader of its entries.
    pub(super) fn section(&mut self) -> Option<Section<'a>> {
        let table = Table::from_byte(self.byte()?)?;
        let node = std::str::from_utf8(self.bytes()?).ok()?;
        let count = u32::from_le_bytes(self.array()?);
        let len = u32::from_le_bytes(self.array()?);
        Some(Section { table, node, count, entries: Reader(self.take(len.into())?) })
    }
}

/// The entries of one table of one node.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) table: Table,
    pub(super) node: &'a str,
    pub(super) count: u32,
    pub(super) entries: Reader<'a>,
}

/// Makes a payload at the end of a buffer.
#[derive(Debug)]
pub(super) struct PayloadWriter<'a> {
    bytes: &'a mut Vec<u8>,
    open: Option<OpenSection>,
}

/// Where the counts of a section stand that is not complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenSection {
    at: usize,
    count: u32,
}

impl OpenSection {
    pub(super) fn begin(bytes: &mut Vec<u8>, table: Table, node: &str) -> Self {
        bytes.push(table as u8);
        put_bytes(bytes, node.as_bytes());
        let at = bytes.len();
        bytes.extend_from_slice(&[0; 8]);
        Self { at, count: 0 }
    }

    pub(super) fn push(&mut self, bytes: &mut Vec<u8>, entry: &Entry<'_>) {
        self.count = self.count.saturating_add(1);
        let Name { number, first, second } = entry.name;
        bytes.reserve(first.len() + second.len() + 40);
        put_varint(bytes, number);
        put_bytes(bytes, first);
        put_bytes(bytes, second);
        match entry.change {
            Change::Gone => bytes.push(0),
            Change::AllGone(owner) => {
                bytes.push(1);
                put_varint(bytes, owner.share.into());
                put_varint(bytes, owner.shares.into());
            }
            Change::Put(value) => {
                put_varint(bytes, value.len() as u64 + 2);
                bytes.extend_from_slice(value);
            }
        }
    }

    /// A payload longer than a frame holds is refused by whoever writes the frame, so a section
    /// cannot pass 4 GiB unseen.
    pub(super) fn end(self, bytes: &mut [u8]) {
        let len = (bytes.len() - self.at - 8) as u32;
        bytes[self.at..self.at + 4].copy_from_slice(&self.count.to_le_bytes());
        bytes[self.at + 4..self.at + 8].copy_from_slice(&len.to_le_bytes());
    }
}

impl<'a> PayloadWriter<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, open: None }
    }

    /// Ends the section before, and begins one.
    pub(super) fn section(&mut self, table: Table, node: &str) {
        self.end_section();
        self.open = Some(OpenSection::begin(self.bytes, table, node));
    }

    /// Adds to the section begun last.
    #[inline]
    pub(super) fn entry(&mut self, number: u64, first: &[u8], second: &[u8], change: Change<'_>) {
        if let Some(open) = &mut self.open {
            open.push(self.bytes, &Entry { name: Name { number, first, second }, change });
        }
    }

    pub(super) fn end_section(&mut self) {
        if let Some(open) = self.open.take() {
            open.end(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_come_back_and_longer_ones_are_refused() {
        for value in (0..64).map(|bits| u64::MAX >> bits).chain([0, 127, 128]) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(Reader(&bytes).varint(), Some(value));
        }
        assert_eq!(Reader(&[0xff; 11]).varint(), None);
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varint(), None);
        assert_eq!(Reader(&[0x80]).varint(), None);
    }

    #[test]
    fn sections_come_back() {
        let mut bytes = Vec::new();
        let mut writer = PayloadWriter::new(&mut bytes);
        writer.section(Table::State, "count");
        writer.entry(3, b"key", b"", Change::Put(b"value"));
        writer.entry(3, b"other", b"sub", Change::Gone);
        writer.section(Table::Panes, "per-minute");
        writer.entry(7, b"", b"", Change::AllGone(Owner { share: 1, shares: 2 }));
        writer.end_section();
        let mut reader = Reader(&bytes);
        let mut section = reader.section().expect("a section");
        assert_eq!((section.table, section.node, section.count), (Table::State, "count", 2));
        let name = Name { number: 3, first: b"key", second: b"" };
        assert_eq!(section.entries.entry(), Some(Entry { name, change: Change::Put(b"value") }));
        let name = Name { number: 3, first: b"other", second: b"sub" };
        assert_eq!(section.entries.entry(), Some(Entry { name, change: Change::Gone }));
        let mut section = reader.section().expect("a section");
        let name = Name { number: 7, first: b"", second: b"" };
        let change = Change::AllGone(Owner { share: 1, shares: 2 });
        assert_eq!(section.entries.entry(), Some(Entry { name, change }));
        assert!(reader.0.is_empty() && section.entries.0.is_empty());
    }
}
