use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use wasmill_contract::{Share, Sink, SinkFactory, SinkHandle};
use wasmill_env::SimulatedClock;
use wasmill_model::{Batch, BatchBuilder, Epoch, ErrorKind, Timestamp};

use crate::conformance::{SinkCase, check_sink};

fn factory(directory: &Path, options: &str) -> Arc<dyn SinkFactory> {
    crate::sink("file", options.parse().expect("valid TOML"), &crate::Site::alone(directory)).expect("valid options")
}

fn clock() -> Arc<SimulatedClock> {
    Arc::new(SimulatedClock::new(Timestamp::from_millis(1_700_000_000_000)))
}

async fn open(directory: &Path, options: &str, recovered: Option<SinkHandle>) -> Box<dyn Sink> {
    factory(directory, options).open(Share::WHOLE, recovered, clock()).await.expect("opens")
}

fn batch(rows: &[&str]) -> Batch {
    let mut batch = BatchBuilder::default();
    for row in rows {
        batch.push(Timestamp(5), b"k", row.as_bytes());
    }
    batch.finish(0)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = directory
        .read_dir()
        .expect("the directory is there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Rows of all files without `.part`, in the order of their numbers.
fn committed(directory: &Path) -> Vec<Vec<u8>> {
    let mut finished: Vec<String> = names(directory).into_iter().filter(|name| !name.ends_with(".part")).collect();
    finished.sort_by_key(|name| (name.len(), name.clone()));
    let read = |name: &String| std::fs::read_to_string(directory.join(name)).expect("readable");
    finished
        .iter()
        .flat_map(|name| read(name).lines().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>())
        .collect()
}

async fn conforms(options: &str, rows: usize) {
    let directory = TempDir::new().expect("a directory");
    check_sink(SinkCase {
        make: &|| factory(directory.path(), options),
        visible: &|| committed(directory.path()),
        reset: &|| {
            for name in names(directory.path()) {
                std::fs::remove_file(directory.path().join(name)).expect("removable");
            }
        },
        clock: clock(),
        rows,
    })
    .await;
}

#[tokio::test]
async fn the_file_sink_conforms() {
    conforms("path = 'out.jsonl'", 20).await;
    conforms("path = 'out.jsonl'\nsync = 'none'", 0).await;
}

#[tokio::test]
async fn the_file_sink_conforms_where_rows_fill_its_buffers() {
    conforms("path = 'out.jsonl'\nsync = 'none'", 70_000).await;
}

#[tokio::test]
async fn the_rolling_file_sink_conforms() {
    conforms("path = 'out.jsonl'\nroll = { bytes = '1B' }", 10).await;
    conforms("path = 'out-{date}.jsonl'\nroll = { bytes = '600B' }", 20).await;
}

#[tokio::test]
async fn an_old_file_stays_until_the_new_one_is_finished() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("deep/out.txt");
    std::fs::create_dir(directory.path().join("deep")).expect("created");
    std::fs::write(&path, "old\n").expect("written");
    let mut sink = open(directory.path(), "path = 'deep/out.txt'", None).await;
    assert_eq!(sink.location(), Some(path.display().to_string()));
    sink.write(&batch(&["new"])).await.expect("taken");
    sink.prepare(Epoch(1)).await.expect("prepares");
    sink.commit(Epoch(1), false).await.expect("commits");
    assert_eq!(std::fs::read_to_string(&path).expect("readable"), "old\n");
    sink.commit(Epoch(1), true).await.expect("commits");
    assert_eq!(std::fs::read_to_string(&path).expect("readable"), "new\n");
    assert_eq!(names(&directory.path().join("deep")), ["out.txt"]);
}

#[tokio::test]
async fn an_existing_file_is_refused_or_left_as_the_job_says() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("out.txt"), "old\n").expect("written");
    let fails = factory(directory.path(), "path = 'out.txt'\nif_exists = 'fail'");
    let error = fails.open(Share::WHOLE, None, clock()).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().ends_with("out.txt: it exists, and `if_exists` is \"fail\""), "{error}");
    for _ in 0..2 {
        let mut sink = open(directory.path(), "path = 'out.txt'\nif_exists = 'new'", None).await;
        sink.prepare(Epoch(1)).await.expect("prepares");
        sink.commit(Epoch(1), true).await.expect("commits");
    }
    assert_eq!(names(directory.path()), ["out-1.txt", "out-2.txt", "out.txt"]);
}

#[tokio::test]
async fn files_roll_with_the_clock_and_carry_the_day() {
    let directory = TempDir::new().expect("a directory");
    let clock = clock();
    let factory = factory(directory.path(), "path = 'out-{date}.txt'");
    let mut sink = factory.open(Share { index: 1, of: 2 }, None, clock.clone()).await.expect("opens");
    for epoch in 1..=3 {
        sink.write(&batch(&["row"])).await.expect("taken");
        sink.prepare(Epoch(epoch)).await.expect("prepares");
        sink.commit(Epoch(epoch), false).await.expect("commits");
        clock.advance(Duration::from_secs(15 * 3_600));
    }
    sink.prepare(Epoch(4)).await.expect("prepares");
    sink.commit(Epoch(4), true).await.expect("commits");
    assert_eq!(names(directory.path()), ["out-2023-11-14-1-0.txt", "out-2023-11-16-1-1.txt"]);
}

#[tokio::test]
async fn a_full_disk_takes_no_row_and_says_so() {
    let directory = TempDir::new().expect("a directory");
    std::os::unix::fs::symlink("/dev/full", directory.path().join("out.txt.part")).expect("linked");
    let mut sink = open(directory.path(), "path = 'out.txt'", None).await;
    let rows = batch(&[&"x".repeat(2 << 20)]);
    let mut failed = None;
    for _ in 0..3 {
        failed = sink.write(&rows).await.err().or(failed);
    }
    let error = failed.expect("the disk is full");
    assert_eq!(error.kind(), ErrorKind::Full);
    let part = directory.path().join("out.txt.part");
    assert_eq!(error.to_string(), format!("no space left on device writing {}", part.display()));
    assert_eq!(sink.write(&rows).await.err().map(|error| error.kind()), Some(ErrorKind::Full));
}

#[tokio::test]
async fn an_envelope_holds_key_time_and_value() {
    let directory = TempDir::new().expect("a directory");
    let mut sink = open(directory.path(), "path = 'out.jsonl'\nenvelope = true", None).await;
    sink.write(&batch(&["{\"a\":\n1}", "no \"json\""])).await.expect("taken");
    sink.prepare(Epoch(1)).await.expect("prepares");
    sink.commit(Epoch(1), true).await.expect("commits");
    let expected = "{\"key\":\"k\",\"time\":5,\"value\":{\"a\": 1}}\n\
                    {\"key\":\"k\",\"time\":5,\"value\":\"no \\\"json\\\"\"}\n";
    assert_eq!(std::fs::read_to_string(directory.path().join("out.jsonl")).expect("readable"), expected);
}

#[tokio::test]
async fn an_envelope_may_name_the_plugin_that_made_the_row() {
    let directory = TempDir::new().expect("a directory");
    let mut sink = open(directory.path(), "path = 'out.jsonl'\nenvelope = true\nplugin = true", None).await;
    let digest = wasmill_model::PluginDigest([0xab; 32]);
    sink.write(&batch(&["1"]).with_maker(Some(digest))).await.expect("taken");
    sink.write(&batch(&["2"])).await.expect("taken");
    // Lanes in which two versions run.
    let parts = [batch(&["3", "5"]).with_maker(Some(digest)), batch(&["4", "6"])];
    sink.write(&wasmill_model::Batch::weave(&parts, &[(0, 0), (1, 0), (0, 1), (1, 1)])).await.expect("taken");
    sink.prepare(Epoch(1)).await.expect("prepares");
    sink.commit(Epoch(1), true).await.expect("commits");
    let row = |value: u32| {
        let plugin = if value % 2 == 1 { format!("\"{digest}\"") } else { "null".to_owned() };
        format!("{{\"key\":\"k\",\"time\":5,\"value\":{value},\"plugin\":{plugin}}}\n")
    };
    let expected: String = (1..=6).map(row).collect();
    assert_eq!(std::fs::read_to_string(directory.path().join("out.jsonl")).expect("readable"), expected);
}

#[tokio::test]
async fn a_committed_file_that_shrank_is_noticed() {
    let directory = TempDir::new().expect("a directory");
    let mut sink = open(directory.path(), "path = 'out.txt'", None).await;
    sink.write(&batch(&["row"])).await.expect("taken");
    let handle = sink.prepare(Epoch(1)).await.expect("prepares");
    drop(sink);
    std::fs::write(directory.path().join("out.txt.part"), "ro").expect("written");
    let factory = factory(directory.path(), "path = 'out.txt'");
    let error = factory.open(Share::WHOLE, Some(handle), clock()).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().ends_with("out.txt.part: 4 bytes were committed and it has 2"), "{error}");
}

async fn direct(directory: &Path, options: &str, recovered: Option<SinkHandle>) -> Box<dyn Sink> {
    factory(directory, options).open_direct(Share::WHOLE, recovered, clock()).await.expect("opens")
}

#[tokio::test]
async fn a_direct_writer_shows_rows_at_once_and_takes_nothing_back() {
    let directory = TempDir::new().expect("a directory");
    let options = "path = 'out.txt'";
    let mut sink = direct(directory.path(), options, None).await;
    sink.write(&batch(&["a"])).await.expect("written");
    assert_eq!(committed(directory.path()), [b"a"], "before any epoch");
    let handle = sink.prepare(Epoch(1)).await.expect("prepared");
    sink.write(&batch(&["b"])).await.expect("written");
    drop(sink);
    let path = directory.path().join("out.txt");
    let mut torn = std::fs::OpenOptions::new().append(true).open(&path).expect("there");
    std::io::Write::write_all(&mut torn, b"half a ro").expect("written");
    let mut sink = direct(directory.path(), options, Some(handle)).await;
    assert_eq!(committed(directory.path()), [b"a", b"b"], "half a row goes, whole ones stay");
    sink.write(&batch(&["b", "c"])).await.expect("written");
    sink.prepare(Epoch(2)).await.expect("prepared");
    sink.commit(Epoch(2), true).await.expect("committed");
    assert_eq!(committed(directory.path()), [b"a", b"b", b"b", b"c"]);
    assert_eq!(names(directory.path()), ["out.txt"]);
}

#[tokio::test]
async fn a_direct_writer_that_rolls_goes_on_behind_files_of_no_epoch() {
    let directory = TempDir::new().expect("a directory");
    let options = "path = 'out.txt'\nroll = { bytes = '1B' }";
    let mut sink = direct(directory.path(), options, None).await;
    sink.write(&batch(&["a"])).await.expect("written");
    let handle = sink.prepare(Epoch(1)).await.expect("prepared");
    sink.write(&batch(&["b"])).await.expect("written");
    sink.prepare(Epoch(2)).await.expect("prepared");
    drop(sink);
    let mut sink = direct(directory.path(), options, Some(handle)).await;
    sink.write(&batch(&["b"])).await.expect("written");
    assert_eq!(committed(directory.path()), [b"a", b"b", b"b"]);
    assert_eq!(names(directory.path()), ["out-0.txt", "out-1.txt", "out-2.txt"]);
}

#[tokio::test]
async fn one_kind_of_writer_goes_on_behind_the_other() {
    let directory = TempDir::new().expect("a directory");
    let options = "path = 'out.txt'";
    let mut sink = open(directory.path(), options, None).await;
    sink.write(&batch(&["a"])).await.expect("written");
    let handle = sink.prepare(Epoch(1)).await.expect("prepared");
    sink.write(&batch(&["never committed"])).await.expect("written");
    sink.prepare(Epoch(2)).await.expect("prepared");
    drop(sink);
    let mut sink = direct(directory.path(), options, Some(handle)).await;
    sink.write(&batch(&["b"])).await.expect("written");
    let handle = sink.prepare(Epoch(2)).await.expect("prepared");
    sink.write(&batch(&["shown"])).await.expect("written");
    drop(sink);
    let mut sink = open(directory.path(), options, Some(handle)).await;
    sink.write(&batch(&["c"])).await.expect("written");
    assert_eq!(committed(directory.path()), [&b"a"[..], b"b", b"shown"]);
    sink.prepare(Epoch(3)).await.expect("prepared");
    sink.commit(Epoch(3), true).await.expect("committed");
    assert_eq!(committed(directory.path()), [&b"a"[..], b"b", b"shown", b"c"]);
}

#[tokio::test]
async fn rows_of_no_epoch_are_gone_though_none_follow() {
    let directory = TempDir::new().expect("a directory");
    let mut sink = open(directory.path(), "path = 'out.txt'", None).await;
    sink.write(&batch(&["a"])).await.expect("written");
    let handle = sink.prepare(Epoch(1)).await.expect("prepared");
    sink.write(&batch(&["never committed"])).await.expect("written");
    sink.prepare(Epoch(2)).await.expect("prepared");
    drop(sink);
    let mut sink = open(directory.path(), "path = 'out.txt'", Some(handle)).await;
    sink.prepare(Epoch(2)).await.expect("prepared");
    sink.commit(Epoch(2), true).await.expect("committed");
    assert_eq!(committed(directory.path()), [b"a"]);
}
