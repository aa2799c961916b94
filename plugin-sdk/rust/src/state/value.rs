use std::cell::RefCell;
use std::rc::Rc;

use super::{Shared, Space, SpaceInfo, no_subkeys, retain, unreadable};
use crate::Codec;
use crate::bindings::wasmill::operator::types::Column;
use crate::column::{Rows, bits};

/// One value per event key. Made in [`Operator::open`](crate::Operator::open).
///
/// A handle may not be used from within a closure given to the same handle.
pub struct Value<T> {
    shared: Rc<Shared>,
    space: Rc<ValueSpace<T>>,
}

struct ValueSpace<T> {
    info: SpaceInfo,
    cells: RefCell<Cells<T>>,
}

struct Cells<T> {
    /// By slot.
    cells: Vec<Cell<T>>,
    dirty: Vec<u32>,
    /// Cells before the changes of a row, the newest last.
    undo: Vec<(u32, Cell<T>)>,
    undo_row: u64,
}

#[derive(Clone)]
struct Cell<T> {
    value: Option<T>,
    dirty: bool,
}

impl<T: Codec> Value<T> {
    pub(crate) fn new(shared: &Rc<Shared>, info: SpaceInfo) -> Self {
        let cells = Cells { cells: Vec::new(), dirty: Vec::new(), undo: Vec::new(), undo_row: 0 };
        let space = Rc::new(ValueSpace { info, cells: RefCell::new(cells) });
        shared.add_space(space.clone());
        Self { shared: shared.clone(), space }
    }

    /// The value of the current key.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<T> {
        self.with(|value| value.cloned())
    }

    /// The value of the current key, or the default.
    #[inline]
    #[must_use]
    pub fn get_or_default(&self) -> T
    where
        T: Default,
    {
        self.get().unwrap_or_default()
    }

    /// Looks at the value of the current key without a copy.
    #[inline]
    pub fn with<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
        let slot = self.shared.slot();
        look(self.space.cells.borrow().cells[slot].value.as_ref())
    }

    /// Whether the current key has a value.
    #[inline]
    #[must_use]
    pub fn exists(&self) -> bool {
        self.with(|value| value.is_some())
    }

    /// Sets the value of the current key and returns the old one.
    #[inline]
    pub fn set(&self, value: T) -> Option<T> {
        self.change(|cell| cell.replace(value))
    }

    /// Changes the value of the current key in place, from the default where it has none.
    #[inline]
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R
    where
        T: Default,
    {
        self.change(|cell| change(cell.get_or_insert_with(T::default)))
    }

    /// Deletes the value of the current key and returns it.
    #[inline]
    pub fn take(&self) -> Option<T> {
        self.change(Option::take)
    }

    #[inline(always)]
    fn change<R>(&self, change: impl FnOnce(&mut Option<T>) -> R) -> R {
        let slot = self.shared.slot();
        let cells = &mut *self.space.cells.borrow_mut();
        let cell = &mut cells.cells[slot];
        let row = self.shared.row.get();
        if cells.undo_row != row {
            cells.undo_row = row;
            cells.undo.clear();
        }
        cells.undo.push((slot as u32, cell.clone()));
        if !cell.dirty {
            cell.dirty = true;
            cells.dirty.push(slot as u32);
        }
        self.shared.touch();
        change(&mut cell.value)
    }
}

impl<T: Codec> Space for ValueSpace<T> {
    fn info(&self) -> &SpaceInfo {
        &self.info
    }

    fn load(&self, shared: &Shared, fresh: &[u32], distinct: &[u32]) -> Result<(), String> {
        let cells = &mut *self.cells.borrow_mut();
        let keys = shared.keys.borrow();
        cells.cells.resize(keys.len(), Cell { value: None, dirty: false });
        let slots = if self.info.ttl.is_some() { distinct } else { fresh };
        if slots.is_empty() {
            return Ok(());
        }
        let mut wanted = Column::with_capacity(slots.len(), slots.len() * 16);
        slots.iter().for_each(|slot| wanted.push(keys.get(*slot)));
        let (found, values) = shared.host.get_many(self.info.number, &wanted, &no_subkeys(slots.len()));
        let values = Rows::of(&values);
        for ((slot, found), value) in slots.iter().zip(bits(&found, slots.len())).zip(values.iter()) {
            if found {
                let value = T::decode(value).map_err(|error| unreadable(&self.info, &error))?;
                cells.cells[*slot as usize].value = Some(value);
            }
        }
        Ok(())
    }

    fn undo(&self, row: u64) {
        let cells = &mut *self.cells.borrow_mut();
        if cells.undo_row != row {
            return;
        }
        while let Some((slot, cell)) = cells.undo.pop() {
            cells.cells[slot as usize] = cell;
        }
    }

    fn write(&self, shared: &Shared) {
        let cells = &mut *self.cells.borrow_mut();
        if cells.dirty.is_empty() {
            return;
        }
        let keys = shared.keys.borrow();
        let (mut put, mut values, mut delete) = (Column::EMPTY, Column::EMPTY, Column::EMPTY);
        for slot in cells.dirty.drain(..) {
            let cell = &mut cells.cells[slot as usize];
            // A slot is listed twice where its first change was undone.
            if !std::mem::take(&mut cell.dirty) {
                continue;
            }
            match &cell.value {
                Some(value) => {
                    put.push(keys.get(slot));
                    value.encode(&mut values.data);
                    values.end();
                }
                None => delete.push(keys.get(slot)),
            }
        }
        if !put.ends.is_empty() {
            shared.host.put_many(self.info.number, &put, &no_subkeys(put.ends.len()), &values);
        }
        if !delete.ends.is_empty() {
            shared.host.delete_many(self.info.number, &delete, &no_subkeys(delete.ends.len()));
        }
    }

    fn forget(&self, slots: &[u32]) {
        let cells = &mut *self.cells.borrow_mut();
        slots.iter().for_each(|slot| cells.cells[*slot as usize].value = None);
    }

    fn retain(&self, keep: &[bool]) {
        retain(&mut self.cells.borrow_mut().cells, keep);
    }

    fn weight(&self) -> usize {
        let cells = self.cells.borrow();
        cells.cells.iter().map(|cell| size_of::<Cell<T>>() + cell.value.as_ref().map_or(0, Codec::weight)).sum()
    }
}
