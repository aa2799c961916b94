//! How late the generator hands over its events: `cargo bench -p wasmill-connectors --bench pace`.

use std::path::Path;
use std::sync::Arc;

use wasmill_connectors::Site;
use wasmill_contract::{BatchLimit, SourceEvent};
use wasmill_env::{Clock, RealClock};

#[expect(clippy::print_stdout, reason = "a program for people")]
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
    for rate in [1_000_i64, 50_000, 500_000] {
        let options = [("rate", rate), ("count", 2 * rate)].map(|(key, value)| (key.to_owned(), value.into()));
        let options = toml::Table::from_iter(options);
        let factory =
            wasmill_connectors::source("generator", options, &Site::alone(Path::new("/"))).expect("valid options");
        let partitions = factory.partitions().await.expect("listed");
        let assigned = partitions.into_iter().map(|partition| (partition.id, None)).collect();
        let mut source = factory.open(assigned, clock.clone()).await.expect("opened");
        let mut late_micros = Vec::new();
        loop {
            match source.next(BatchLimit { rows: 4_096, bytes: 1 << 20 }).await.expect("made") {
                SourceEvent::Rows(batch) => {
                    late_micros.push((clock.monotonic_nanos().saturating_sub(batch.arrived_nanos())) / 1_000);
                }
                SourceEvent::End => break,
                _ => {}
            }
        }
        late_micros.sort_unstable();
        let at = |percent: usize| late_micros[(late_micros.len() - 1) * percent / 100];
        println!(
            "{rate} events a second: {} batches, oldest row late by p50 {} us, p99 {} us, most {} us",
            late_micros.len(),
            at(50),
            at(99),
            at(100)
        );
    }
}
