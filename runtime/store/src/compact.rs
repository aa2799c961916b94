use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

/// Longest run of bytes that takes no allocation.
const INLINE_MAX: usize = 22;

/// Owned bytes in 24 bytes: short ones in place, long ones in a box that may have room to spare.
pub(crate) enum Compact {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Boxed { len: u32, room: Box<[u8]> },
}

impl Compact {
    pub(crate) const EMPTY: Self = Self::Inline { len: 0, bytes: [0; INLINE_MAX] };

    #[inline]
    pub(crate) fn new(from: &[u8]) -> Self {
        let mut new = Self::EMPTY;
        new.set(from);
        new
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Boxed { len, room } => &room[..*len as usize],
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Inline { len, .. } => usize::from(*len),
            Self::Boxed { len, .. } => *len as usize,
        }
    }

    /// Replaces the bytes, in place where they fit and leave less than half of the room unused.
    #[inline]
    pub(crate) fn set(&mut self, from: &[u8]) {
        match self {
            Self::Inline { len, bytes } if from.len() <= INLINE_MAX => {
                *len = from.len() as u8;
                bytes[..from.len()].copy_from_slice(from);
            }
            Self::Boxed { len, room } if from.len() <= room.len() && from.len() > room.len() / 2 => {
                *len = from.len() as u32;
                room[..from.len()].copy_from_slice(from);
            }
            _ => self.replace(from),
        }
    }

    #[cold]
    fn replace(&mut self, from: &[u8]) {
        *self = if from.len() <= INLINE_MAX {
            let mut bytes = [0; INLINE_MAX];
            bytes[..from.len()].copy_from_slice(from);
            Self::Inline { len: from.len() as u8, bytes }
        } else {
            // What has grown once, such as a list, grows again: a quarter to spare saves most of
            // the moves. What is new is exact.
            let spare = if self.len() > INLINE_MAX { from.len() / 4 } else { 0 };
            let mut room = Vec::with_capacity(from.len() + spare);
            room.extend_from_slice(from);
            room.resize(from.len() + spare, 0);
            let len = u32::try_from(from.len()).expect("a row of a column is shorter than 4 GiB");
            Self::Boxed { len, room: room.into_boxed_slice() }
        };
    }
}

impl fmt::Debug for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl Borrow<[u8]> for Compact {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Compact {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Compact {}

impl PartialOrd for Compact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Compact {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_follows_any_length() {
        assert_eq!(size_of::<Compact>(), 24);
        let lengths = [0, 1, 21, 22, 23, 24, 30, 45, 46, 100, 1_000];
        for first in lengths {
            for second in lengths {
                let mut bytes = Compact::new(&vec![1; first]);
                bytes.set(&vec![2; second]);
                assert_eq!(bytes.as_slice(), vec![2; second]);
                bytes.set(&vec![3; first]);
                assert_eq!((bytes.as_slice(), bytes.len()), (&vec![3; first][..], first));
            }
        }
    }
}
