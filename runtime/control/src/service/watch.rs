//! What takes disk while jobs run, held against budgets.
//!
//! State, dead letters, savepoints and topics grow with every epoch. From time to time their bytes are
//! counted; sources of a tenant that is over its budget read nothing until there is room again. What is
//! under way meanwhile is bounded by the time from one look to the next.

use std::sync::Arc;
use std::time::Duration;

use super::blocking::blocking;
use super::slot::Phase;
use super::state::Service;
use super::tenant::Tenant;

/// From one look to the next at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that takes long makes the next one wait this many times as long: it costs little of a disk.
const REST: u32 = 50;

impl Service {
    /// Holds tenants to what they may have on disk, for as long as it is polled.
    pub async fn watch(&self) {
        let mut rest = LOOK_EVERY;
        loop {
            self.clock().sleep(rest).await;
            let began = self.clock().monotonic_nanos();
            for tenant in self.tenants() {
                tenant.watch_disk().await;
            }
            let took = Duration::from_nanos(self.clock().monotonic_nanos().saturating_sub(began));
            rest = LOOK_EVERY.max(took.saturating_mul(REST));
        }
    }
}

impl Tenant {
    async fn watch_disk(self: &Arc<Self>) {
        let running = |phase| matches!(phase, Phase::Starting | Phase::Running);
        if !self.slots().iter().any(|(_, slot)| running(slot.board.phase())) {
            return;
        }
        let tenant = Arc::clone(self);
        let counted = blocking(move || Ok((tenant.state_bytes(), tenant.topic_bytes()))).await;
        // Its problem is in the log.
        let Ok((state, topics)) = counted else { return };
        let budget = self.record().budget;
        let full = [("state", state, budget.state_bytes), ("topics", topics, budget.topic_bytes)]
            .into_iter()
            .find(|(_, has, most)| has > most)
            .map(|(what, has, most)| {
                format!("over-budget: {what} of the tenant's jobs: {has} bytes on disk, it may have {most}")
            });
        if !self.account.hold(full.clone()) {
            return;
        }
        for (_, slot) in self.slots().iter().filter(|(_, slot)| running(slot.board.phase())) {
            match &full {
                Some(why) => slot.board.say("warn", &format!("{why}; sources read nothing until there is room")),
                None => slot.board.say("info", "there is room again: sources read on"),
            }
        }
    }
}
