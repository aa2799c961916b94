//! Dead letters of jobs. Those of a job that runs are read and changed while it rests for a moment:
//! they are part of its epochs.

use std::sync::Arc;

use wasmill_model::JobName;

use super::problem::Problem;
use super::tenant::Tenant;
use crate::letters::{LetterAct, LetterError, LetterPick, Letters, LettersPicked, LettersView};

/// Letters of a page.
pub(super) const PAGE_MAX: usize = 1_000;
/// Ids and ranges of a request.
const IDS_MAX: usize = 10_000;

impl From<LetterError> for Problem {
    fn from(error: LetterError) -> Self {
        match error {
            LetterError::Unclear => Self::bad(error.to_string()),
            LetterError::Missing(_) => Self::missing(error.to_string()),
            LetterError::Store(error) => error.into(),
        }
    }
}

impl Tenant {
    /// A page of the dead letters of a job.
    pub(super) async fn letters(
        self: &Arc<Self>,
        job: JobName,
        node: Option<String>,
        from: u64,
        limit: usize,
    ) -> Result<LettersView, Problem> {
        self.admit_change()?;
        self.at_rest(job, false, move |dir| {
            let Some(letters) = Letters::open(&dir.join("state"))? else {
                return Ok(LettersView::default());
            };
            let view = letters.list(node.as_deref(), from, limit)?;
            letters.close()?;
            Ok(view)
        })
        .await
    }

    /// Has letters processed again, or forgets them.
    pub(super) async fn pick_letters(
        self: &Arc<Self>,
        job: JobName,
        pick: LetterPick,
        act: LetterAct,
    ) -> Result<LettersPicked, Problem> {
        self.admit_change()?;
        if pick.ids.len() > IDS_MAX {
            return Err(Problem::bad(format!("at most {IDS_MAX} ids and ranges at once")));
        }
        self.at_rest(job, false, move |dir| {
            let Some(mut letters) = Letters::open(&dir.join("state"))? else {
                return match pick.ids.first() {
                    Some(ids) => Err(LetterError::Missing(*ids).into()),
                    None => Ok(LettersPicked::default()),
                };
            };
            let picked = letters.act(&pick, act)?;
            letters.close()?;
            Ok(picked)
        })
        .await
    }
}
