use std::marker::PhantomData;
use std::rc::Rc;

use super::{Map, Shared, SpaceInfo};
use crate::{Codec, CodecError, MapKey};

/// A list per event key, from which items leave at the front and to which they come at the back.
/// Made in [`Operator::open`](crate::Operator::open). Each item is an entry of its own: appending
/// to a long list writes one item.
pub struct List<T> {
    map: Map<Place, Vec<u8>>,
    items: PhantomData<fn(&T)>,
}

/// Where something stands in the space: the bounds of the list, or an item. Bounds come first.
enum Place {
    Bounds,
    Item(u64),
}

impl MapKey for Place {
    fn encode_key(&self, out: &mut Vec<u8>) {
        if let Self::Item(index) = self {
            index.encode_key(out);
        }
    }

    fn decode_key(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.is_empty() { Ok(Self::Bounds) } else { u64::decode_key(bytes).map(Self::Item) }
    }
}

impl<T: Codec> List<T> {
    pub(crate) fn new(shared: &Rc<Shared>, info: SpaceInfo) -> Self {
        Self { map: Map::new(shared, info), items: PhantomData }
    }

    /// The places of the items: from the first, up to the one behind the last.
    fn bounds(&self) -> (u64, u64) {
        let bytes = self.map.get(&Place::Bounds).unwrap_or_default();
        match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            (Some(start), Some(end)) => (u64::from_le_bytes(*start), u64::from_le_bytes(*end)),
            _ => (0, 0),
        }
    }

    fn set_bounds(&self, start: u64, end: u64) {
        if start == end {
            self.map.remove(&Place::Bounds);
        } else {
            self.map.insert(&Place::Bounds, [start.to_le_bytes(), end.to_le_bytes()].concat());
        }
    }

    fn decode(&self, bytes: &[u8]) -> Option<T> {
        T::decode(bytes).map_err(|error| self.map.fail(&error)).ok()
    }

    /// How many items the list of the current key has.
    #[must_use]
    pub fn len(&self) -> usize {
        let (start, end) = self.bounds();
        (end - start) as usize
    }

    /// Whether the list of the current key has no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends an item at the back.
    pub fn push(&self, item: &T) {
        let (start, end) = self.bounds();
        let mut bytes = Vec::new();
        item.encode(&mut bytes);
        self.map.insert(&Place::Item(end), bytes);
        self.set_bounds(start, end + 1);
    }

    /// Takes the item at the front.
    pub fn pop_front(&self) -> Option<T> {
        let (start, end) = self.bounds();
        if start == end {
            return None;
        }
        let bytes = self.map.remove(&Place::Item(start));
        self.set_bounds(start + 1, end);
        self.decode(&bytes?)
    }

    /// The item at a place, counted from the front.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        let (start, end) = self.bounds();
        let place = start.checked_add(index as u64).filter(|place| *place < end)?;
        self.decode(&self.map.get(&Place::Item(place))?)
    }

    /// All items from the front to the back. They have to fit in memory.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        let (start, end) = self.bounds();
        let places: Vec<Place> = (start..end).map(Place::Item).collect();
        self.map.get_all(&places).into_iter().flatten().filter_map(|bytes| self.decode(&bytes)).collect()
    }

    /// Removes all items.
    pub fn clear(&self) {
        let (start, end) = self.bounds();
        (start..end).for_each(|place| {
            self.map.remove(&Place::Item(place));
        });
        self.set_bounds(0, 0);
    }
}
