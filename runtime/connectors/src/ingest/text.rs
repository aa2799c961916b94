use std::sync::Arc;

use wasmill_contract::BatchLimit;
use wasmill_model::{Batch, Column};

use super::{Intake, Piece, Refusal};
use crate::text::{Patience, RecordReader, RowBuffer, Stop, TextFormat};

/// Records of one stream on their way into an intake.
pub(crate) struct TextIntake {
    records: RecordReader,
    intake: Intake,
}

impl TextIntake {
    pub(crate) fn new(text: &TextFormat, intake: Intake) -> Self {
        Self { records: RecordReader::new(text, 0), intake }
    }

    /// Takes bytes, and waits until their records have found room. `last` says that none follow: what
    /// is left is a record.
    ///
    /// # Errors
    /// Where the job has ended, or nothing can be made of the stream.
    pub(crate) async fn take(&mut self, bytes: &[u8], last: bool, limit: BatchLimit) -> Result<(), Refusal> {
        let mut input = bytes;
        let mut rows = RowBuffer::default();
        loop {
            let stop = self.records.fill(&mut input, &mut rows, limit, Patience { last, eager: false });
            let stop = stop.map_err(|error| Refusal::Failed(error.to_string()))?;
            if !rows.is_empty() {
                let (values, _) = rows.take();
                self.intake.put(self.rows(values)).await?;
            }
            match stop {
                Stop::Full => {}
                Stop::Bad(bad) => self.intake.put(Piece::Bad { bytes: bad.bytes, reason: bad.reason }).await?,
                Stop::Dry => return Ok(()),
            }
        }
    }

    fn rows(&self, values: Column) -> Piece {
        let times = Arc::new(vec![self.intake.now().0; values.len()]);
        let keys = Arc::new(Column::empty_rows(values.len()));
        let arrived = self.intake.clock().monotonic_nanos();
        Piece::Rows(Batch::new(times, keys, Arc::new(values), arrived), None)
    }
}
