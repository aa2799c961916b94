//! A savepoint of the job that runs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use wasmill_control::local::{Answer, Refusal};

use super::{Clock, Control, Current, Savepoint};

/// A savepoint waits for an epoch, and for a compaction that is under way: so often is asked for one.
const EPOCH_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn savepoint(control: &Control, current: &Current, file: Option<PathBuf>) -> Answer {
    let failed = |what: &str, error: &dyn std::fmt::Display| Refusal::new(format!("cannot {what}: {error}"));
    let folder = control.dir.join("savepoints");
    // The epoch is known once it is made: until then the file has a name of its own.
    let made_at = match &file {
        Some(file) => file.clone(),
        None => {
            let made = std::fs::create_dir_all(&folder);
            made.map_err(|error| failed(&format!("make {}", folder.display()), &error))?;
            folder.join(format!("making-{}.tmp", control.clock.monotonic_nanos()))
        }
    };
    let mut making = std::pin::pin!(current.savepoints.make(&made_at));
    let made = loop {
        current.remote.end_epoch().await;
        tokio::select! {
            made = &mut making => break made,
            () = control.clock.sleep(EPOCH_EVERY) => {}
        }
    };
    let Savepoint { epoch } = made.map_err(|error| Refusal::new(format!("cannot make the savepoint: {error}")))?;
    let file = match file {
        Some(file) => file,
        None => {
            let file = folder.join(format!("epoch-{epoch}.savepoint"));
            let named = std::fs::rename(&made_at, &file);
            named.map_err(|error| failed(&format!("name {}", file.display()), &error))?;
            file
        }
    };
    let length = std::fs::metadata(&file).map_err(|error| failed(&format!("read {}", file.display()), &error))?.len();
    Ok(json!({"file": file, "epoch": epoch, "bytes": length}))
}
