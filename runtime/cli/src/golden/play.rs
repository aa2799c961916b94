//! Plays the lines of a case to a stage.

use std::sync::Arc;

use wasmill_contract::OperatorFactory;
use wasmill_engine::{JobError, StageTrial, TrialOutput};
use wasmill_model::{Batch, BatchBuilder, ColumnBuilder, Entries, NodeName, SpaceMigration, Timestamp, WindowSpec};

use super::line::{InputLine, Leaves, OutputLine, Row};

/// Most rows of one call, as in a job.
const BATCH_ROWS_MAX: usize = 4_096;

/// How the lines are cut into calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Rows that follow each other by one port make one call.
    AsWritten,
    /// Every row is a call of its own.
    RowByRow,
    /// As written, with a fresh instance in front of this line.
    RestartAt(usize),
}

/// What comes out of `lines`, in the order in which it comes.
pub(super) async fn play(
    factory: Arc<dyn OperatorFactory>,
    window: Option<WindowSpec>,
    lines: &[InputLine],
    schedule: Schedule,
) -> Result<Vec<OutputLine>, JobError> {
    let name = NodeName::new("plugin").unwrap_or_else(|error| unreachable!("a fixed name: {error}"));
    let mut stage = StageTrial::open(name, factory, window).await?;
    let mut out = Vec::new();
    let mut batch = BatchBuilder::default();
    let mut port = 0;
    let mut left = Left::default();
    for (place, line) in lines.iter().enumerate() {
        if left.of.is_some_and(|of| !matches!(line, InputLine::Entry { of: next, .. } if *next == of)) {
            std::mem::take(&mut left).migrate(&mut stage).await?;
        }
        let restart = schedule == Schedule::RestartAt(place) && left.of.is_none();
        let ends = match line {
            InputLine::Row { port: next, .. } => *next != port || batch.len() == BATCH_ROWS_MAX,
            _ => true,
        };
        if restart || ends {
            send(&mut stage, port, &mut batch, &mut out).await?;
        }
        if restart {
            stage.restart().await?;
        }
        match line {
            InputLine::Row { port: next, row } => {
                port = *next;
                batch.push(row.time, &row.key, &row.value);
                if schedule == Schedule::RowByRow {
                    send(&mut stage, port, &mut batch, &mut out).await?;
                }
            }
            InputLine::Entry { of, subkey, row } => left.push(*of, subkey, row),
            InputLine::Watermark(time) => stage.watermark(*time).await?,
            InputLine::Wall(time) => stage.wall(*time).await?,
            InputLine::Flush => stage.flush().await?,
            InputLine::Restart => stage.restart().await?,
        }
        collect(stage.take(), &mut out);
    }
    left.migrate(&mut stage).await?;
    send(&mut stage, port, &mut batch, &mut out).await?;
    Ok(out)
}

/// Entries of one space as another schema version has left them: lines that follow each other.
#[derive(Default)]
struct Left {
    of: Option<SpaceMigration>,
    keys: ColumnBuilder,
    subkeys: ColumnBuilder,
    values: ColumnBuilder,
}

impl Left {
    fn push(&mut self, of: SpaceMigration, subkey: &[u8], row: &Row) {
        self.of = Some(of);
        self.keys.push(&row.key);
        self.subkeys.push(subkey);
        self.values.push(&row.value);
    }

    async fn migrate(self, stage: &mut StageTrial) -> Result<(), JobError> {
        let Self { of: Some(of), keys, subkeys, values } = self else { return Ok(()) };
        let entries = Entries { keys: keys.finish(), subkeys: subkeys.finish(), values: values.finish() };
        stage.migrate(of, &entries).await
    }
}

async fn send(
    stage: &mut StageTrial,
    port: u16,
    batch: &mut BatchBuilder,
    out: &mut Vec<OutputLine>,
) -> Result<(), JobError> {
    if !batch.is_empty() {
        stage.rows(port, std::mem::take(batch).finish(0)).await?;
        collect(stage.take(), out);
    }
    Ok(())
}

fn collect(output: TrialOutput, out: &mut Vec<OutputLine>) {
    for (port, batch) in output.rows {
        out.extend(rows(&batch).map(|row| OutputLine::new(Leaves::Port(port), row)));
    }
    for letter in output.rejected {
        let reasons = letter.reasons.into_iter().map(Leaves::Rejected);
        out.extend(reasons.zip(rows(&letter.rows)).map(|(leaves, row)| OutputLine::new(leaves, row)));
    }
}

fn rows(batch: &Batch) -> impl Iterator<Item = Row> {
    (0..batch.len()).map(|row| Row {
        time: Timestamp(batch.times()[row]),
        key: batch.keys().row(row).to_vec(),
        value: batch.values().row(row).to_vec(),
    })
}
