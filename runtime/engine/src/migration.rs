//! Entries that another schema version has written, turned into those of the plugin that runs.
//!
//! All entries of a space at once, in steps of bounded size, into one epoch: either it holds all of
//! them as the new version has them, or none is changed. What is rewritten stays in memory until that
//! epoch is durable, so there is a bound on it. See `docs/decisions/0006-migrate-at-the-cut.md`.

use wasmill_contract::{Operator, OperatorError};
use wasmill_env::kill_point;
use wasmill_model::SpaceMigration;
use wasmill_store::Walk;

use crate::faults::log_lines;

/// Bytes of entries that one task rewrites at most: before and after, both are in memory for a while.
pub(crate) const MIGRATED_BYTES_MAX: usize = 1 << 30;

/// Rewrites the entries of these spaces, `bytes_max` at most. Where it fails some are rewritten, and
/// the caller reverts the state.
pub(crate) async fn migrate(
    operator: &mut dyn Operator,
    spaces: &[SpaceMigration],
    bytes_max: usize,
) -> Result<u64, OperatorError> {
    let host = |error: wasmill_store::StateError| OperatorError::Host { call: "migrate", reason: error.to_string() };
    let (mut migrated_entries, mut bytes) = (0, 0);
    for &SpaceMigration { space, from_version } in spaces {
        let mut walk = Walk::default();
        while !walk.is_over() {
            let entries = operator.context().state.walk(space, &mut walk).map_err(host)?;
            if entries.keys.is_empty() {
                continue;
            }
            let migrated = operator.migrate(space, from_version, &entries).await?;
            bytes += [&entries.keys, &entries.subkeys, &migrated.values]
                .map(|column| column.byte_len())
                .iter()
                .sum::<usize>();
            if bytes > bytes_max {
                let limit = format!(
                    "{bytes_max} bytes of state that one task takes over at once: stop the job, and give the stage a \
                     higher parallelism"
                );
                return Err(OperatorError::Limit { call: "migrate", limit });
            }
            migrated_entries += entries.keys.len() as u64;
            let context = operator.context();
            context.state.rewrite(space, &entries, &migrated).map_err(host)?;
            let log = std::mem::take(&mut context.log);
            log_lines(context, log);
            context.forget_call();
            kill_point("state-migrated");
            // Other tasks of this thread wait for a step at most.
            tokio::task::yield_now().await;
        }
    }
    Ok(migrated_entries)
}
