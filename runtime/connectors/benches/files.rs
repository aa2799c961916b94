//! CPU time of the file connectors for each line: `cargo bench -p wasmill-connectors --bench files FILE`.

use std::path::Path;
use std::sync::Arc;

use wasmill_connectors::Site;
use wasmill_contract::{BatchLimit, Share, SourceEvent};
use wasmill_env::{Clock, RealClock};
use wasmill_model::Epoch;

fn cpu_nanos() -> u128 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u128::from(time.tv_sec.unsigned_abs()) * 1_000_000_000 + u128::from(time.tv_nsec.unsigned_abs())
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let Some(path) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        eprintln!("usage: cargo bench -p wasmill-connectors FILE");
        return;
    };
    let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
    let out = std::env::temp_dir();
    for (name, sink) in [("file -> nothing", "blackhole"), ("file -> file", "file")] {
        for rows in [256, 1_024, 4_096] {
            let options = toml::Table::from_iter([("path".to_owned(), toml::Value::from(path.as_str()))]);
            let source =
                wasmill_connectors::source("file", options, &Site::alone(Path::new("/"))).expect("valid options");
            let target = toml::Table::from_iter(
                [("path", "wasmill-bench.jsonl"), ("sync", "none")].map(|(key, text)| (key.to_owned(), text.into())),
            );
            let options = if sink == "file" { target } else { toml::Table::new() };
            let sink = wasmill_connectors::sink(sink, options, &Site::alone(&out)).expect("valid options");
            let partitions = source.partitions().await.expect("the file can be listed");
            let assigned = partitions.into_iter().map(|partition| (partition.id, None)).collect();
            let mut source = source.open(assigned, clock.clone()).await.expect("the file can be opened");
            let mut sink = sink.open(Share::WHOLE, None, clock.clone()).await.expect("the target can be opened");
            let (cpu, wall) = (cpu_nanos(), clock.monotonic_nanos());
            let mut lines = 0;
            loop {
                match source.next(BatchLimit { rows, bytes: 1 << 20 }).await.expect("the file can be read") {
                    SourceEvent::Rows(batch) => {
                        lines += batch.len() as u128;
                        sink.write(&batch).await.expect("the target can be written");
                    }
                    SourceEvent::End => break,
                    _ => {}
                }
            }
            sink.prepare(Epoch(1)).await.expect("the target can be written");
            sink.commit(Epoch(1), true).await.expect("the target can be written");
            let (cpu, wall) = (cpu_nanos() - cpu, u128::from(clock.monotonic_nanos() - wall));
            let lines = lines.max(1);
            println!(
                "{name}, batches of {rows}: {lines} lines, {} ns of CPU and {} ns a line",
                cpu / lines,
                wall / lines
            );
        }
    }
    drop(std::fs::remove_file(out.join("wasmill-bench.jsonl")));
}
