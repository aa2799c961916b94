//! `wasmill explain`: how a job will run, and what each path guarantees.

use clap::Args;

use crate::commands::{JobArgs, check};
use crate::failure::Failure;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    job: JobArgs,
}

pub(super) fn explain(args: &ExplainArgs, terminal: &Terminal) -> Result<(), Failure> {
    let explanation = check::assembled(&args.job, terminal)?.explanation();
    if terminal.json {
        let value = serde_json::to_value(&explanation)
            .map_err(|error| Failure::failed(format!("cannot write the explanation: {error}")))?;
        return terminal.print_json(&value);
    }
    terminal.print(&explanation.to_string())
}
