use wasmill_model::Timestamp;

use super::KeyedWindows;
use crate::window::OpenWindow;

impl KeyedWindows {
    /// Panes that are open.
    #[must_use]
    pub fn panes(&self) -> usize {
        self.due.len()
    }

    /// See [`crate::Windows::open`].
    pub(in crate::window) fn open(&self, most: usize) -> Vec<OpenWindow> {
        let due = self.due.iter().filter_map(|(due, key, id)| {
            let state = &self.keys[self.find(key)? as usize].state;
            let pane = &state.panes[state.pane(*id)?];
            Some(OpenWindow {
                key: (**key).into(),
                start: pane.start,
                end: pane.end,
                due: Timestamp(*due),
                wall_due: pane.wall_due.map(Timestamp),
                passed: pane.passed,
            })
        });
        due.take(most).collect()
    }
}
