//! A plugin beside the one of a stage of the job that runs: a shadow, or a canary.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use wasmill_control::beside::{BesideAsked, Mode, Next, Progress, decide_next, objection};
use wasmill_control::compatibility::Verdict;
use wasmill_control::local::{Answer, Refusal};
use wasmill_engine::{Beside, Difference, KeyShare, ShadowReport, ShownRow, Way};
use wasmill_model::NodeName;

use super::swap::{self, Candidate};
use super::{Clock, Control, Current, locked};

/// From one look at a span to the next.
const LOOK: Duration = Duration::from_millis(50);
/// Differences that a refusal names.
const NAMED_MAX: usize = 5;

/// Plugins beside those of stages, by stage: each the last one, running or not.
#[derive(Default)]
pub(super) struct Trials {
    known: BTreeMap<NodeName, Trial>,
    /// Told where one begins.
    pub(super) begun: Arc<Notify>,
}

/// A plugin beside that of a stage.
#[derive(Clone)]
struct Trial {
    asked: BesideAsked,
    candidate: Arc<Candidate>,
    report: Option<Arc<ShadowReport>>,
    /// Epochs, rows and nanoseconds when it began.
    from: (u64, u64, u64),
    state: State,
}

/// Where it stands.
#[derive(Clone, PartialEq, Eq)]
enum State {
    Runs,
    /// It does not run any more, and how far it had come.
    Over {
        state: &'static str,
        reason: String,
        progress: Progress,
    },
}

impl Trials {
    /// Whether one runs.
    pub(super) fn any(&self) -> bool {
        self.running().next().is_some()
    }

    fn running(&self) -> impl Iterator<Item = (&NodeName, &Trial)> {
        self.known.iter().filter(|(_, trial)| trial.state == State::Runs)
    }
}

impl Trial {
    fn progress(&self, control: &Control, stage: &NodeName) -> Progress {
        if let State::Over { progress, .. } = &self.state {
            return *progress;
        }
        let Ok(current) = control.current() else { return Progress::default() };
        let metrics = current.remote.metrics();
        let (epochs, rows, nanos) = self.from;
        let counts = self.report.as_ref().map(|report| report.counts()).unwrap_or_default();
        Progress {
            epochs: metrics.epochs().saturating_sub(epochs),
            rows: rows_in(&current, stage).saturating_sub(rows),
            elapsed: Duration::from_nanos(control.clock.monotonic_nanos().saturating_sub(nanos)),
            compared: counts.calls,
            differences: counts.differences(),
            gave_up: counts.given_up,
        }
    }

    fn json(&self, control: &Control, stage: &NodeName) -> Value {
        let progress = self.progress(control, stage);
        let (state, reason) = match &self.state {
            State::Runs => ("running", None),
            State::Over { state, reason, .. } => (*state, Some(reason)),
        };
        let (mode, percent) = match self.asked.mode {
            Mode::Shadow => ("shadow", None),
            Mode::Canary(percent) => ("canary", Some(percent)),
        };
        let mut value = json!({
            "stage": stage,
            "plugin": self.candidate.factory.digest().to_string(),
            "mode": mode,
            "state": state,
            "epochs": progress.epochs,
            "rows_in": progress.rows,
            "seconds": progress.elapsed.as_secs_f64(),
            "promote": self.asked.promote,
        });
        for (key, more) in [
            ("reason", json!(reason)),
            ("percent", json!(percent)),
            ("key_groups", json!(percent.map(|percent| KeyShare::percent(percent).groups()))),
            ("span", json!(self.asked.span)),
        ] {
            if !more.is_null() {
                value[key] = more;
            }
        }
        if let Some(report) = &self.report {
            let counts = report.counts();
            value["compared"] = json!({"calls": counts.calls, "rows": counts.rows});
            value["differences"] = json!({
                "total": counts.differences(),
                "changed": counts.changed,
                "missing": counts.missing,
                "extra": counts.extra,
                "failed": counts.failed,
            });
            value["restarts"] = json!(counts.restarts);
        }
        value
    }
}

fn rows_in(current: &Current, stage: &NodeName) -> u64 {
    let nodes = current.remote.metrics().nodes();
    nodes.iter().find(|node| node.name == *stage).map_or(0, |node| node.rows_in)
}

/// What is known of the plugin beside that of a stage, without each difference.
pub(super) fn summary(control: &Control, stage: &NodeName) -> Option<Value> {
    let trial = locked(&control.trials).known.get(stage).cloned()?;
    Some(trial.json(control, stage))
}

/// Has a plugin run beside that of a stage.
pub(super) async fn begin(
    control: &Control,
    current: &Current,
    stage: NodeName,
    plugin: String,
    asked: BesideAsked,
) -> Answer {
    asked.check().map_err(Refusal::new)?;
    let candidate = Arc::new(swap::candidate(control, &stage, plugin).await?);
    let named = &candidate.named;
    if let Mode::Canary(_) = asked.mode {
        if candidate.verdict == Verdict::Migrate {
            let refusal = Refusal::new(format!(
                "{named} has another schema than the state of stage `{stage}`: both cannot work on the same state"
            ));
            return Err(refusal.hint("run it as a --shadow, or swap to it at once"));
        }
        if !control.assembled().can_be_read_again() {
            let refusal = Refusal::new(
                "a source of the job cannot be read again, so nothing that a canary does can be taken back",
            );
            return Err(refusal.hint("run it as a --shadow"));
        }
    }
    let report = matches!(asked.mode, Mode::Shadow).then(Arc::<ShadowReport>::default);
    let beside = match (&report, asked.mode) {
        (Some(report), _) => Beside::Shadow(Arc::clone(report)),
        (None, Mode::Canary(percent)) => Beside::Canary(KeyShare::percent(percent)),
        (None, Mode::Shadow) => return Err(Refusal::new("a shadow has a report")),
    };
    let from = (current.remote.metrics().epochs(), rows_in(current, &stage), control.clock.monotonic_nanos());
    let begun = current.remote.beside(&stage, Arc::clone(&candidate.factory), beside).await;
    let begun = begun.map_err(|error| swap::refused(named, error))?;
    let trial = Trial { asked, candidate, report, from, state: State::Runs };
    let mut value = trial.json(control, &stage);
    value["epoch"] = json!(begun.epoch);
    value["pause_micros"] = json!(u64::try_from(begun.pause.as_micros()).unwrap_or(u64::MAX));
    let mut trials = locked(&control.trials);
    trials.known.insert(stage, trial);
    trials.begun.notify_one();
    Ok(value)
}

/// The plugin beside takes over.
pub(super) async fn promote(control: &Control, current: &Current, stage: NodeName) -> Answer {
    let Some(trial) = locked(&control.trials).known.get(&stage).cloned() else { return Err(nothing(&stage)) };
    if let State::Over { state, reason, .. } = &trial.state
        && *state != "over"
    {
        return Err(Refusal::new(format!("the plugin beside that of stage `{stage}` is {state}: {reason}")));
    }
    let progress = trial.progress(control, &stage);
    if let Some(why) = objection(trial.asked.mode, &progress) {
        let refusal = Refusal::new(format!("{} may not take over stage `{stage}`: {why}", trial.candidate.named));
        let differences = trial.report.as_ref().map(|report| report.differences()).unwrap_or_default();
        let refusal = differences.iter().take(NAMED_MAX).fold(refusal, |refusal, found| refusal.hint(text(found)));
        let more = progress.differences.saturating_sub(NAMED_MAX as u64);
        return Err(match more {
            0 => refusal,
            more => refusal.hint(format!("and {more} more; `wasmill swap JOB {stage} --report` shows them")),
        });
    }
    let mut swapped = swap::take_over(control, current, &stage, &trial.candidate).await?;
    swapped["beside"] = over(control, &stage, "promoted", "it has taken over").unwrap_or_default();
    Ok(swapped)
}

/// Ends what runs beside; else goes back to the plugin before.
pub(super) async fn rollback(control: &Control, current: &Current, stage: NodeName) -> Answer {
    let runs = locked(&control.trials).running().any(|(of, _)| *of == stage);
    if !runs {
        return swap::back(control, current, &stage).await;
    }
    end(control, current, &stage, "rolled-back", "somebody asked for it").await
}

async fn end(control: &Control, current: &Current, stage: &NodeName, state: &'static str, reason: &str) -> Answer {
    let alone = current.remote.alone(stage).await.map_err(|error| Refusal::new(error.to_string()))?;
    let mut value = over(control, stage, state, reason).ok_or_else(|| nothing(stage))?;
    value["epoch"] = json!(alone.epoch);
    Ok(value)
}

/// What runs beside that of a stage does not any more.
fn over(control: &Control, stage: &NodeName, state: &'static str, reason: &str) -> Option<Value> {
    let mut trial = locked(&control.trials).known.get(stage).cloned()?;
    if trial.state == State::Runs || state == "promoted" {
        let progress = trial.progress(control, stage);
        trial.state = State::Over { state, reason: reason.to_owned(), progress };
        locked(&control.trials).known.insert(stage.clone(), trial.clone());
    }
    Some(trial.json(control, stage))
}

/// The stage goes on with another plugin: whatever ran beside is gone.
pub(super) fn swapped(control: &Control, stage: &NodeName) {
    over(control, stage, "rolled-back", "the stage was swapped");
}

/// This run of the job is over, and with it whatever ran beside.
pub(super) fn gone(control: &Control, reason: &str) {
    let running: Vec<NodeName> = locked(&control.trials).running().map(|(stage, _)| stage.clone()).collect();
    for stage in running {
        over(control, &stage, "rolled-back", reason);
    }
}

/// What it has found, with every difference that is kept.
pub(super) fn report(control: &Control, stage: &NodeName) -> Answer {
    let trial = locked(&control.trials).known.get(stage).cloned().ok_or_else(|| nothing(stage))?;
    let mut value = trial.json(control, stage);
    if let Some(report) = &trial.report {
        value["rows"] = report.differences().iter().map(json_of).collect();
    }
    Ok(value)
}

fn nothing(stage: &NodeName) -> Refusal {
    Refusal::new(format!("nothing runs beside the plugin of stage `{stage}`"))
        .hint(format!("wasmill swap JOB {stage} PLUGIN --shadow"))
}

/// Ends and promotes what has a span, at its end. Never returns.
pub(super) async fn attend(control: &Control) -> std::convert::Infallible {
    let begun = Arc::clone(&locked(&control.trials).begun);
    loop {
        let due: Vec<(NodeName, Trial)> = {
            let trials = locked(&control.trials);
            trials.running().map(|(stage, trial)| (stage.clone(), trial.clone())).collect()
        };
        if due.is_empty() {
            begun.notified().await;
            continue;
        }
        for (stage, trial) in due {
            let Ok(current) = control.current() else { continue };
            let said = match decide_next(&trial.asked, &trial.progress(control, &stage)) {
                Next::GoOn => continue,
                Next::Promote => promote(control, &current, stage.clone()).await,
                Next::End(reason) => {
                    let canary = matches!(trial.asked.mode, Mode::Canary(_));
                    let state = if canary { "rolled-back" } else { "over" };
                    end(control, &current, &stage, state, reason).await
                }
            };
            if let Err(refusal) = said {
                tracing::warn!(stage = stage.as_str(), "a plugin beside cannot be ended: {}", refusal.message);
                // Once: a job that ends or goes back to an epoch has none beside.
                over(control, &stage, "rolled-back", &refusal.message);
            }
        }
        control.clock.sleep(LOOK).await;
    }
}

fn way(difference: &Difference) -> Option<Value> {
    difference.way.map(|way| match way {
        Way::Port(port) => json!(port),
        Way::Rejected => json!("rejected"),
    })
}

fn json_of(difference: &Difference) -> Value {
    let row = |row: &ShownRow| json!({"time": row.time.0, "value": row.value});
    let mut value = json!({"kind": difference.kind.name(), "key": difference.key});
    for (key, more) in [
        ("port", json!(way(difference))),
        ("old", json!(difference.old.as_ref().map(row))),
        ("new", json!(difference.new.as_ref().map(row))),
        ("reason", json!(difference.reason)),
    ] {
        if !more.is_null() {
            value[key] = more;
        }
    }
    value
}

/// A difference in one line.
fn text(difference: &Difference) -> String {
    let value = |row: &Option<ShownRow>| row.as_ref().map_or_else(|| "no row".to_owned(), |row| row.value.clone());
    match &difference.reason {
        Some(reason) => format!("key {:?}: {reason}", difference.key),
        None => format!("key {:?}: old {}, new {}", difference.key, value(&difference.old), value(&difference.new)),
    }
}
