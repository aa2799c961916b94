//! A sink that prints each value as a line. What it printed cannot be taken back, so it is not
//! transactional.

use std::io::Write;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use wasmill_contract::{BoxFuture, ConnectorError, Share, Sink, SinkCapabilities, SinkFactory, SinkHandle};
use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch, ErrorKind, Visibility};

use crate::error::off_worker;
use crate::options::{ConfigError, parse};
use crate::text::{Envelope, enveloped, write_envelopes, write_lines};
use crate::{Connector, SinkEntry, Site};

pub(crate) const CONNECTOR: Connector = Connector {
    name: "stdout",
    source: None,
    sink: Some(SinkEntry { build, schema: || schemars::schema_for!(StdoutConfig) }),
};

/// Options of the sink `stdout`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StdoutConfig {
    /// Print `{"key":…,"time":…,"value":…}` rather than the value alone, as the sink `file` does.
    #[serde(default)]
    envelope: bool,
}

fn build(options: toml::Table, _: &Site) -> Result<Arc<dyn SinkFactory>, ConfigError> {
    let StdoutConfig { envelope } = parse(options)?;
    Ok(Arc::new(LinesFactory { name: "standard output", envelope, open: || Box::new(std::io::stdout()) }))
}

/// Writes lines to what `open` gives.
struct LinesFactory {
    name: &'static str,
    envelope: bool,
    open: fn() -> Box<dyn Write + Send>,
}

impl SinkFactory for LinesFactory {
    fn capabilities(&self) -> SinkCapabilities {
        enveloped(self.envelope, Visibility::AtOnce)
    }

    fn open(
        &self,
        _: Share,
        _: Option<SinkHandle>,
        _: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        let sink = Lines { name: self.name, envelope: self.envelope, out: Some((self.open)()), text: Vec::new() };
        Box::pin(async move { Ok(Box::new(sink) as Box<dyn Sink>) })
    }
}

/// One write call a batch: rows are seen at once, and lines of several writers do not mix.
struct Lines {
    name: &'static str,
    envelope: bool,
    out: Option<Box<dyn Write + Send>>,
    text: Vec<u8>,
}

impl Sink for Lines {
    fn write<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(async move {
            let mut out = self.out.take().ok_or_else(|| {
                ConnectorError::new(ErrorKind::Internal, format!("{} was used again after an error", self.name))
            })?;
            let mut text = std::mem::take(&mut self.text);
            match self.envelope {
                true => write_envelopes(&mut text, batch, Envelope { plugin: false }),
                false => write_lines(&mut text, batch),
            }
            let name = self.name;
            let (out, mut text) = off_worker(move || {
                out.write_all(&text).and_then(|()| out.flush()).map_err(|error| {
                    // Some of it may have been printed, so it cannot be tried again.
                    ConnectorError::new(ErrorKind::Config, format!("cannot write to {name}: {error}")).caused_by(error)
                })?;
                Ok((out, text))
            })
            .await?;
            text.clear();
            (self.out, self.text) = (Some(out), text);
            Ok(())
        })
    }

    fn prepare(&mut self, _: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>> {
        Box::pin(async { Ok(SinkHandle::default()) })
    }

    fn commit(&mut self, _: Epoch, _: bool) -> BoxFuture<'_, Result<(), ConnectorError>> {
        Box::pin(async { Ok(()) })
    }

    fn location(&self) -> Option<String> {
        Some(self.name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use wasmill_env::SimulatedClock;
    use wasmill_model::{BatchBuilder, Timestamp};

    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_closed_pipe_can_be_told_from_other_errors() {
        let factory = LinesFactory { name: "standard output", envelope: false, open: || Box::new(Closed) };
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let mut sink = factory.open(Share::WHOLE, None, clock).await.expect("opens");
        let mut rows = BatchBuilder::default();
        rows.push(Timestamp(0), b"", b"row");
        let error = sink.write(&rows.finish(0)).await.expect_err("a closed pipe");
        assert!(crate::is_broken_pipe(&error));
        assert_eq!(error.to_string(), "cannot write to standard output: broken pipe");
    }
}
