//! Dead letters of a job that rests, as the command line and the API show, replay and drop them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use utoipa::ToSchema;
use wasmill_env::RealDisk;
use wasmill_model::LetterSubject;
use wasmill_store::{JobStore, LetterId, LetterRecord, StoreError, StoreOptions};

use crate::records::letter_json;

/// Letters that are in memory at once.
const PAGE: usize = 10_000;
/// Groups that are told apart; what is in no group is counted with the last one.
const GROUPS_MAX: usize = 1_000;
/// Characters of a reason that tell groups apart.
const REASON_CHARS: usize = 100;

/// The letters of a job that does not run.
pub struct Letters {
    store: JobStore,
    /// Those that are to be processed again.
    marked: BTreeSet<LetterId>,
}

/// Some dead letters of a job.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct LettersView {
    /// How many there are, of the node that was asked for.
    pub total: u64,
    /// They, by node and reason.
    pub groups: Vec<LetterGroup>,
    /// Some of them in the order of ids, with the node, the reason, the row and its offset.
    #[schema(value_type = Vec<Object>)]
    pub letters: Vec<Value>,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
}

/// Letters of one node, for one reason.
#[derive(Debug, Serialize, ToSchema)]
pub struct LetterGroup {
    /// The node; empty where there are too many groups to tell them apart.
    pub node: String,
    /// What kind of fault it was.
    pub kind: String,
    /// How the reason begins.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// The id of the first.
    pub first: u64,
    /// The id of the last.
    pub last: u64,
}

/// Which dead letters are meant: some by their ids, those of a node, or all.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LetterPick {
    /// These.
    #[serde(default)]
    pub ids: Vec<LetterIds>,
    /// Those of this node.
    #[serde(default)]
    pub node: Option<String>,
    /// All of them.
    #[serde(default)]
    pub all: bool,
}

/// An id, or the first and the last of a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LetterIds {
    /// This one.
    One(u64),
    /// From the first to the last.
    Range(u64, u64),
}

/// What is to be done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterAct {
    /// They are processed again, through the same node, when the job runs next. Only rows can be.
    Replay,
    /// They are forgotten.
    Drop,
}

/// What was done with dead letters.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct LettersPicked {
    /// How many it was done with.
    pub letters: u64,
    /// How many were left as they are: timers and panes are not processed again.
    pub left: u64,
}

/// Why nothing was done with dead letters.
#[derive(Debug, Error)]
pub enum LetterError {
    /// None is meant, or some in two ways.
    #[error("name dead letters in one way: ids, a node, or all")]
    Unclear,
    /// There is none with such an id.
    #[error("there is no dead letter {}", .0.text())]
    Missing(LetterIds),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LetterIds {
    fn bounds(self) -> (u64, u64) {
        match self {
            Self::One(id) => (id, id),
            Self::Range(first, last) => (first, last),
        }
    }

    fn text(self) -> String {
        match self.bounds() {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("from {first} to {last}"),
        }
    }
}

impl LetterPick {
    fn is_clear(&self) -> bool {
        [self.all, self.node.is_some(), !self.ids.is_empty()].into_iter().filter(|way| *way).count() == 1
    }
}

/// Tells for each letter, in the order of ids, whether it is meant.
struct Picker<'a> {
    pick: &'a LetterPick,
    /// Ids and ranges that begin behind the letters seen, the next one last.
    ahead: Vec<LetterIds>,
    /// The last id of those that hold a letter.
    reach: Option<u64>,
}

impl<'a> Picker<'a> {
    fn new(pick: &'a LetterPick) -> Self {
        let mut ahead = pick.ids.clone();
        ahead.sort_unstable_by_key(|ids| std::cmp::Reverse(ids.bounds()));
        Self { pick, ahead, reach: None }
    }

    /// # Errors
    /// An id or a range that holds no letter.
    fn takes(&mut self, id: LetterId, node: &str) -> Result<bool, LetterError> {
        // What begins in front of this letter, and behind the one before, holds this one or none.
        while let Some(ids) = self.ahead.pop_if(|ids| ids.bounds().0 <= id.0) {
            let (_, last) = ids.bounds();
            if last < id.0 {
                return Err(LetterError::Missing(ids));
            }
            self.reach = self.reach.max(Some(last));
        }
        let held = self.reach.is_some_and(|reach| id.0 <= reach);
        Ok(held || self.pick.all || self.pick.node.as_deref() == Some(node))
    }

    /// # Errors
    /// An id or a range behind the last letter.
    fn end(mut self) -> Result<(), LetterError> {
        self.ahead.pop().map_or(Ok(()), |ids| Err(LetterError::Missing(ids)))
    }
}

impl Letters {
    /// Those of a state directory; `None` where it is none.
    ///
    /// # Errors
    /// Where the store cannot be read, or is in use.
    pub fn open(state: &Path) -> Result<Option<Self>, StoreError> {
        // Opening a store makes one where there is none.
        if !state.join("lock").exists() {
            return Ok(None);
        }
        let (store, recovered) = JobStore::open(Arc::new(RealDisk), state, StoreOptions::default())?;
        Ok(Some(Self { store, marked: recovered.replays.into_iter().map(|(id, _)| id).collect() }))
    }

    /// Those of a node or of all, and at most `limit` of them from an id on.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn list(&self, node: Option<&str>, from: u64, limit: usize) -> Result<LettersView, StoreError> {
        let mut groups: BTreeMap<(String, &'static str, String), LetterGroup> = BTreeMap::new();
        let mut view = LettersView::default();
        self.each(|id, letter| -> Result<(), StoreError> {
            if node.is_some_and(|node| node != letter.node.as_str()) {
                return Ok(());
            }
            view.total += 1;
            let reason = letter.reason.chars().take(REASON_CHARS).collect();
            let name = (letter.node.to_string(), letter.kind.name(), reason);
            let known = groups.len() < GROUPS_MAX || groups.contains_key(&name);
            let name = if known { name } else { (String::new(), "", "other reasons".to_owned()) };
            let group = groups.entry(name).or_insert_with_key(|(node, kind, reason)| LetterGroup {
                node: node.clone(),
                kind: (*kind).to_owned(),
                reason: reason.clone(),
                count: 0,
                first: id.0,
                last: id.0,
            });
            group.count += 1;
            group.last = id.0;
            if id.0 >= from && view.letters.len() < limit {
                view.letters.push(letter_json(id, letter, self.marked.contains(&id)));
            } else if id.0 >= from {
                view.next.get_or_insert(id.0);
            }
            Ok(())
        })?;
        view.groups = groups.into_values().collect();
        Ok(view)
    }

    /// Has those that are meant processed again, or forgets them.
    ///
    /// # Errors
    /// Where no letter is meant, an id or range holds none, or the store cannot be read or written.
    pub fn act(&mut self, pick: &LetterPick, act: LetterAct) -> Result<LettersPicked, LetterError> {
        if !pick.is_clear() {
            return Err(LetterError::Unclear);
        }
        let (mut picked, mut left) = (Vec::new(), 0);
        let mut picker = Picker::new(pick);
        self.each(|id, letter| -> Result<(), LetterError> {
            if !picker.takes(id, letter.node.as_str())? {
                return Ok(());
            }
            if act == LetterAct::Drop || matches!(letter.subject, LetterSubject::Row { .. }) {
                picked.push(id);
            } else {
                left += 1;
            }
            Ok(())
        })?;
        picker.end()?;
        match act {
            LetterAct::Replay => self.store.mark_for_replay(&picked)?,
            LetterAct::Drop => self.store.drop_letters(&picked)?,
        }
        Ok(LettersPicked { letters: picked.len() as u64, left })
    }

    /// Lets go of the store.
    ///
    /// # Errors
    /// Where what was done cannot be made durable.
    pub fn close(self) -> Result<(), StoreError> {
        self.store.close()
    }

    /// Every letter, in the order of ids, up to one that is not wanted.
    fn each<E: From<StoreError>>(
        &self,
        mut see: impl FnMut(LetterId, &LetterRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut from = LetterId(0);
        loop {
            let page = self.store.letters(from, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = LetterId(last.0.saturating_add(1));
            for (id, letter) in &page {
                see(*id, letter)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_are_named_in_one_way() {
        let read = |text: &str| serde_json::from_str::<LetterPick>(text).map(|pick| pick.is_clear());
        for clear in [r#"{"ids": [3, [7, 12]]}"#, r#"{"all": true}"#, r#"{"node": "work"}"#] {
            assert_eq!(read(clear).ok(), Some(true), "{clear}");
        }
        for unclear in ["{}", r#"{"ids": [1], "all": true}"#, r#"{"node": "work", "all": true}"#, r#"{"ids": []}"#] {
            assert_eq!(read(unclear).ok(), Some(false), "{unclear}");
        }
        for wrong in [r#"{"ids": ["3"]}"#, r#"{"ids": [[1]]}"#, r#"{"ids": [-1]}"#, r#"{"every": true}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let missing = LetterError::Missing(LetterIds::Range(7, 12));
        assert_eq!(missing.to_string(), "there is no dead letter from 7 to 12");
    }

    /// Every id or range looks at every letter.
    fn naive(ids: &[LetterIds], letters: &BTreeSet<u64>) -> Option<Vec<u64>> {
        let holds = |ids: &LetterIds, id: u64| (ids.bounds().0..=ids.bounds().1).contains(&id);
        let every = ids.iter().all(|ids| letters.iter().any(|id| holds(ids, *id)));
        every.then(|| letters.iter().copied().filter(|id| ids.iter().any(|ids| holds(ids, *id))).collect())
    }

    fn walked(ids: Vec<LetterIds>, letters: &BTreeSet<u64>) -> Option<Vec<u64>> {
        let pick = LetterPick { ids, ..LetterPick::default() };
        let mut picker = Picker::new(&pick);
        let mut taken = Vec::new();
        for &id in letters {
            if picker.takes(LetterId(id), "work").ok()? {
                taken.push(id);
            }
        }
        picker.end().ok().map(|()| taken)
    }

    proptest! {
        #[test]
        fn one_walk_finds_what_each_id_and_range_would(
            ids in vec(prop_oneof![
                (0..24_u64).prop_map(LetterIds::One),
                (0..24_u64, 0..9_u64).prop_map(|(first, more)| LetterIds::Range(first, first + more)),
                (0..24_u64, 0..24_u64).prop_map(|(first, last)| LetterIds::Range(first, last)),
            ], 1..5),
            letters in btree_set(0..24_u64, 0..20),
        ) {
            prop_assert_eq!(walked(ids.clone(), &letters), naive(&ids, &letters));
        }
    }
}
