use crate::cursor::{Key, first_member, next_member, read_key, skip_space, value_end};
use crate::{Raw, ScanError, text};

/// Names of fields, made ready once: keep it in a `const`.
///
/// ```
/// # use wasmill_scan::Fields;
/// const BID: Fields<2> = Fields::new(["auction", "price"]);
/// let [auction, price] = BID.find(br#"{"auction": 7, "bidder": 3, "price": 250}"#)?;
/// assert_eq!(auction.and_then(|raw| raw.as_u64()), Some(7));
/// assert_eq!(price.and_then(|raw| raw.as_u64()), Some(250));
/// # Ok::<(), wasmill_scan::ScanError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Fields<'n, const N: usize> {
    names: [Name<'n>; N],
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'n> {
    text: &'n str,
    head: u64,
}

impl<'n> Name<'n> {
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "a const fn has no `get`; the loop holds the bound")]
    pub(crate) const fn new(text: &'n str) -> Self {
        let bytes = text.as_bytes();
        let mut head = 0;
        let mut at = 0;
        while at < bytes.len() && at < 8 {
            head |= (bytes[at] as u64) << (at * 8);
            at += 1;
        }
        Self { text, head }
    }

    #[inline(always)]
    pub(crate) fn is(&self, key: &Key<'_>) -> bool {
        if key.escaped {
            return text::decode(key.bytes).is_some_and(|key| key == self.text);
        }
        let name = self.text.as_bytes();
        key.head == self.head && key.bytes.len() == name.len() && (name.len() <= 8 || key.bytes == name)
    }
}

impl<'n, const N: usize> Fields<'n, N> {
    /// Makes names ready.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "a const fn has no iterators; the loop holds the bound")]
    pub const fn new(names: [&'n str; N]) -> Self {
        let mut ready = [Name::new(""); N];
        let mut at = 0;
        while at < N {
            ready[at] = Name::new(names[at]);
            at += 1;
        }
        Self { names: ready }
    }

    /// The values of these fields in an object, in one pass that stops where all were found.
    ///
    /// # Errors
    /// Where the text up to there is not a JSON object.
    #[inline]
    pub fn find<'a>(&self, json: &'a [u8]) -> Result<[Option<Raw<'a>>; N], ScanError> {
        let mut found = [None; N];
        let mut missing = N;
        let open = skip_space(json, 0);
        if json.get(open) != Some(&b'{') {
            return Err(ScanError::expected(json, open, "an object"));
        }
        // Fields are mostly asked for in the order in which they stand.
        let mut turn = 0;
        let mut next = first_member(json, open, b'}');
        while let Some(at) = next {
            let (key, start) = read_key(json, at)?;
            let (end, kind) = value_end(json, start)?;
            let place = match self.names.get(turn) {
                Some(name) if name.is(&key) => Some(turn),
                _ => self.names.iter().position(|name| name.is(&key)),
            };
            if let Some(place) = place
                && let Some(slot) = found.get_mut(place)
            {
                if slot.is_none() {
                    *slot = Some(Raw::cut(json, start, end, kind));
                    missing -= 1;
                    if missing == 0 {
                        break;
                    }
                }
                turn = place + 1;
            }
            next = next_member(json, end, b'}')?;
        }
        if missing > 0 {
            self.find_twins(&mut found);
        }
        Ok(found)
    }

    /// Gives a name that was asked for before what was found then.
    #[cold]
    fn find_twins(&self, found: &mut [Option<Raw<'_>>; N]) {
        for (at, name) in self.names.iter().enumerate() {
            let (before, rest) = found.split_at_mut(at);
            let twin = self.names.iter().zip(before).find(|(other, _)| other.text == name.text);
            if let (Some(slot @ None), Some((_, first))) = (rest.first_mut(), twin) {
                *slot = *first;
            }
        }
    }
}

/// The values of some fields of an object: [`Fields`] without keeping the names.
///
/// # Errors
/// As [`Fields::find`].
#[inline]
pub fn fields<'a, const N: usize>(json: &'a [u8], names: [&str; N]) -> Result<[Option<Raw<'a>>; N], ScanError> {
    Fields::new(names).find(json)
}
