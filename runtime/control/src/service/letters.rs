//! Dead letters of jobs. Those of a job that runs are read and changed while it rests for a moment:
//! they are part of its epochs.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use wasmill_env::RealDisk;
use wasmill_model::{JobName, LetterSubject};
use wasmill_store::{JobStore, LetterId, StoreOptions};

use super::problem::Problem;
use super::tenant::Tenant;
use crate::records::letter_json;

/// Letters of a page.
pub(super) const PAGE_MAX: usize = 1_000;
/// Ids of a request.
const IDS_MAX: usize = 10_000;

/// Some dead letters of a job, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LettersView {
    /// They, with the node, the reason, the row and its offset.
    #[schema(value_type = Vec<Object>)]
    pub(super) letters: Vec<Value>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<u64>,
}

/// Which dead letters are meant: some, or all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PickLetters {
    /// These; none where all are meant.
    #[serde(default)]
    pub(super) ids: Vec<u64>,
    /// All of them.
    #[serde(default)]
    pub(super) all: bool,
}

/// What was done with dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PickedLetters {
    /// How many it was done with.
    pub(super) letters: u64,
}

/// What is to be done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Replay,
    Drop,
}

fn open(state: &Path) -> Result<Option<(JobStore, BTreeSet<LetterId>)>, Problem> {
    // Opening a store makes one where there is none.
    if !state.join("lock").exists() {
        return Ok(None);
    }
    let (store, recovered) = JobStore::open(Arc::new(RealDisk), state, StoreOptions::default())?;
    Ok(Some((store, recovered.replays.into_iter().map(|(id, _)| id).collect())))
}

impl Tenant {
    /// A page of the dead letters of a job.
    pub(super) async fn letters(
        self: &Arc<Self>,
        job: JobName,
        from: u64,
        limit: usize,
    ) -> Result<LettersView, Problem> {
        self.admit_change()?;
        self.at_rest(job, false, move |dir| {
            let Some((store, marked)) = open(&dir.join("state"))? else {
                return Ok(LettersView { letters: Vec::new(), next: None });
            };
            let mut page = store.letters(LetterId(from), limit + 1)?;
            let next = page.get(limit).map(|(id, _)| id.0);
            page.truncate(limit);
            let letters = page.iter().map(|(id, letter)| letter_json(*id, letter, marked.contains(id))).collect();
            store.close()?;
            Ok(LettersView { letters, next })
        })
        .await
    }

    /// Has letters processed again, or forgets them.
    pub(super) async fn pick_letters(
        self: &Arc<Self>,
        job: JobName,
        pick: PickLetters,
        act: Act,
    ) -> Result<PickedLetters, Problem> {
        self.admit_change()?;
        if pick.all != pick.ids.is_empty() {
            return Err(Problem::bad("write either ids, or all = true"));
        }
        if pick.ids.len() > IDS_MAX {
            return Err(Problem::bad(format!("at most {IDS_MAX} ids at once")));
        }
        self.at_rest(job, false, move |dir| {
            let missing = |id: u64| Problem::missing(format!("there is no dead letter {id}"));
            let Some((mut store, _)) = open(&dir.join("state"))? else {
                return match pick.ids.first() {
                    Some(id) => Err(missing(*id)),
                    None => Ok(PickedLetters { letters: 0 }),
                };
            };
            let mut picked = Vec::new();
            if pick.all {
                let mut from = LetterId(0);
                loop {
                    let page = store.letters(from, PAGE_MAX)?;
                    let Some((last, _)) = page.last() else { break };
                    from = LetterId(last.0.saturating_add(1));
                    picked.extend(page.iter().map(|(id, letter)| (*id, letter.subject)));
                }
            } else {
                let ids: BTreeSet<LetterId> = pick.ids.iter().map(|id| LetterId(*id)).collect();
                let found = store.letters_by_id(&ids)?;
                picked.extend(found.iter().map(|(id, letter)| (*id, letter.subject)));
                if let Some(id) = ids.iter().find(|id| !picked.iter().any(|(found, _)| found == *id)) {
                    return Err(missing(id.0));
                }
            }
            let is_row = |subject: &LetterSubject| matches!(subject, LetterSubject::Row { .. });
            let picked: Vec<LetterId> =
                picked.into_iter().filter(|(_, s)| act == Act::Drop || is_row(s)).map(|(id, _)| id).collect();
            match act {
                Act::Replay => store.mark_for_replay(&picked)?,
                Act::Drop => store.drop_letters(&picked)?,
            }
            store.close()?;
            Ok(PickedLetters { letters: picked.len() as u64 })
        })
        .await
    }
}
