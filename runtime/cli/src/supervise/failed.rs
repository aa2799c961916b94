//! What the author of a job that failed can do.

use wasmill_contract::OperatorError;
use wasmill_engine::JobError;
use wasmill_model::{ErrorKind, NodeName};

use crate::assemble::Assembled;
use crate::failure::{self, Failure};

/// A job that did not start. What is wrong in the job file is shown there.
pub(super) fn cannot_start_job(assembled: &Assembled, error: &JobError) -> Failure {
    let at = |section, node: &NodeName| {
        Failure::Job(vec![assembled.spec.error(&[section, node.as_str(), "path"], error.to_string())])
    };
    match error {
        JobError::Source { node, cause } if cause.kind() == ErrorKind::Config => at("source", node),
        JobError::Sink { node, cause } if cause.kind() == ErrorKind::Config => at("sink", node),
        error => failed(assembled, error),
    }
}

/// A job that failed, with what its author can do.
pub(super) fn failed(assembled: &Assembled, error: &JobError) -> Failure {
    let spec = &assembled.spec;
    let failure = match error {
        JobError::Stage { node, cause } | JobError::AlwaysFails { node, cause, .. } => {
            let failure = Failure::failed(error.to_string());
            let failure = match assembled.digest(node) {
                Some(digest) => failure.hint(format!("the plugin is {} ({digest})", spec.stages[node].plugin)),
                None => failure,
            };
            match stage_hint(node, cause) {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        JobError::Commit(commit) if commit.kind == ErrorKind::Config => Failure::wrong(error.to_string()),
        error if error.kind() == ErrorKind::Full => Failure::of(ErrorKind::Full, error),
        // What was right when the job started can only have gone wrong since.
        JobError::Source { .. } | JobError::Sink { .. } => Failure::failed(failure::chain(error)),
        error => Failure::of(error.kind(), error),
    };
    if error.kind() == ErrorKind::Unavailable { failure.passing() } else { failure }
}

fn stage_hint(stage: &NodeName, error: &OperatorError) -> Option<String> {
    match error {
        OperatorError::Trap { .. } => Some(
            "the plugin has a bug; -vv shows what it logged, and a case for `wasmill test` holds it for good".into(),
        ),
        OperatorError::Deadline { .. } => {
            Some(format!("if the call is only slow, give it more time: [stage.{stage}] limits = {{ call = \"5s\" }}"))
        }
        OperatorError::Limit { limit, .. } if limit.starts_with(wasmill_tenancy::OVER_BUDGET) => {
            Some("remove something, or ask the operator of the service for more".into())
        }
        OperatorError::Limit { .. } => Some(format!(
            "if it is memory and the plugin needs it, give it more: [stage.{stage}] limits = {{ memory = \"512MiB\" }}"
        )),
        OperatorError::Contract { .. } => {
            Some("the plugin has a bug: was it built with an SDK of this version?".into())
        }
        OperatorError::Host { .. } => Some("the job goes on from its last epoch when it is started again".into()),
        OperatorError::Retry { .. } | OperatorError::Fatal { .. } | OperatorError::Instance(_) => None,
    }
}
