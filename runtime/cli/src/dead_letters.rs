//! Rejected rows, one JSON object a line, written behind the epoch they belong to.
//!
//! # Crash consistency
//! Rows are appended once their epoch is durable. A job that starts anew begins without the file.
//! One that goes on writes it again from the rows in its store, so that it holds each row of every
//! committed epoch once, whatever was lost or half written before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use wasmill_contract::{BoxFuture, CommitError, Committer, Cut, letter_records};
use wasmill_control::records::offset;
use wasmill_env::{is_full, kill_point};
use wasmill_model::{Epoch, ErrorKind, LetterKind, LetterSubject, NodeName, Timestamp};
use wasmill_store::{LetterId, LetterRecord, StoreError};

use crate::failure::Failure;

/// Stored rows that are in memory at once while the file is written again.
const PAGE_ROWS: usize = 10_000;

/// Where rejected rows of a run go, and whether there are any.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    path: PathBuf,
    /// The source of each node that has one only.
    sources: Arc<BTreeMap<NodeName, NodeName>>,
    written: Arc<AtomicBool>,
}

impl DeadLetters {
    /// Takes away what an earlier run left.
    pub(crate) fn fresh(path: PathBuf, sources: BTreeMap<NodeName, NodeName>) -> Result<Self, Failure> {
        match std::fs::remove_file(&path) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(Failure::file("replace the dead letters", &path, &error))
            }
            _ => Ok(Self { path, sources: Arc::new(sources), written: Arc::default() }),
        }
    }

    /// Writes what is stored, in place of what an earlier run left. `page` reads up to so many rows
    /// from an id on.
    pub(crate) fn stored(
        path: PathBuf,
        sources: BTreeMap<NodeName, NodeName>,
        page: impl Fn(LetterId, usize) -> Result<Vec<(LetterId, LetterRecord)>, StoreError>,
    ) -> Result<Self, Failure> {
        let letters = Self::fresh(path, sources)?;
        let mut from = LetterId(0);
        loop {
            let rows = page(from, PAGE_ROWS).map_err(|error| Failure::of(error.kind(), &error))?;
            let Some((last, _)) = rows.last() else { return Ok(letters) };
            from = LetterId(last.0 + 1);
            let written =
                append(None, &letters.path, |out| rows.iter().try_for_each(|(_, letter)| write_line(out, letter)));
            written.map_err(|error| Failure::file("write the dead letters", &letters.path, &error))?;
            letters.written.store(true, Ordering::Relaxed);
        }
    }

    /// The file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.written.load(Ordering::Relaxed).then_some(&self.path)
    }

    /// A committer that writes rejected rows once `inner` has made the epoch durable.
    pub(crate) fn committer(&self, inner: Box<dyn Committer>) -> Box<dyn Committer> {
        Box::new(DeadLetterCommitter { letters: self.clone(), file: None, inner })
    }
}

struct DeadLetterCommitter {
    letters: DeadLetters,
    file: Option<File>,
    inner: Box<dyn Committer>,
}

impl Committer for DeadLetterCommitter {
    fn commit(&mut self, epoch: Epoch, cuts: Vec<Cut>) -> BoxFuture<'_, Result<(), CommitError>> {
        let sources = &self.letters.sources;
        let mut rejected = Vec::new();
        for letter in cuts.iter().flat_map(|cut| &cut.dead_letters) {
            let source = sources.get(&letter.node).unwrap_or(&letter.node);
            rejected.extend(letter_records(letter, source).map(|letter| LetterRecord { epoch, ..letter }));
        }
        Box::pin(async move {
            self.inner.commit(epoch, cuts).await?;
            if !rejected.is_empty() {
                let path = self.letters.path.clone();
                let file = self.file.take();
                let written = tokio::task::spawn_blocking({
                    let path = path.clone();
                    move || append(file, &path, |out| rejected.iter().try_for_each(|letter| write_line(out, letter)))
                });
                let written = written.await.map_err(io::Error::other).and_then(|result| result);
                self.file = Some(written.map_err(|error| CommitError {
                    epoch,
                    kind: match error.kind() {
                        io::ErrorKind::PermissionDenied
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::AlreadyExists => ErrorKind::Config,
                        _ if is_full(&error) => ErrorKind::Full,
                        _ => ErrorKind::Unavailable,
                    },
                    reason: format!("cannot write rejected rows to {}: {error}", path.display()),
                })?);
                kill_point("letters-written");
                self.letters.written.store(true, Ordering::Relaxed);
            }
            Ok(())
        })
    }

    fn close(&mut self, complete: bool) -> BoxFuture<'_, Result<(), CommitError>> {
        self.inner.close(complete)
    }
}

fn append(
    file: Option<File>,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<File> {
    let file = match file {
        Some(file) => file,
        None => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            File::options().append(true).create(true).open(path)?
        }
    };
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

/// One rejected row.
#[derive(Serialize)]
struct Line<'a> {
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<String>,
    kind: LetterKind,
    /// Where it is no row.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'static str>,
    reason: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stack: &'a [String],
    epoch: Epoch,
    time: String,
    #[serde(flatten)]
    key: Bytes<'a>,
    #[serde(flatten)]
    value: Value<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

#[derive(Serialize)]
enum Bytes<'a> {
    #[serde(rename = "key")]
    Text(&'a str),
    #[serde(rename = "key_base64")]
    Base64(String),
}

#[derive(Serialize)]
enum Value<'a> {
    #[serde(rename = "value")]
    Text(&'a str),
    #[serde(rename = "value_base64")]
    Base64(String),
}

fn write_line(out: &mut impl Write, letter: &LetterRecord) -> io::Result<()> {
    let LetterRecord { key, value, origin, .. } = letter;
    let line = Line {
        node: letter.node.as_str(),
        plugin: letter.digest.map(|digest| digest.to_string()),
        kind: letter.kind,
        subject: Some(letter.subject).filter(|it| !matches!(it, LetterSubject::Row { .. })).map(LetterSubject::name),
        reason: &letter.reason,
        stack: &letter.stack,
        epoch: letter.epoch,
        time: Timestamp(letter.time).to_string(),
        key: str::from_utf8(key).map_or_else(|_| Bytes::Base64(BASE64.encode(key)), Bytes::Text),
        value: str::from_utf8(value).map_or_else(|_| Value::Base64(BASE64.encode(value)), Value::Text),
        source: origin.as_ref().map(|origin| origin.node.as_str()),
        partition: origin.as_ref().map(|origin| origin.partition.0),
        offset: origin.as_ref().and_then(offset),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wasmill_contract::{DeadLetter, MemoryCommitter};
    use wasmill_model::{BatchBuilder, Lineage, PartitionId, PluginDigest};

    use super::*;

    fn letter() -> DeadLetter {
        let mut rows = BatchBuilder::default();
        rows.push(Timestamp(0), b"k", b"{\"a\":1}");
        rows.push(Timestamp(1_000), b"\xff", b"\xfe");
        let lineage = Lineage { partition: PartitionId(3), offsets: Arc::new(vec![7, 15]) };
        DeadLetter {
            node: NodeName::new("classify").expect("a name"),
            digest: Some(PluginDigest([0; 32])),
            kind: LetterKind::Rejected,
            subject: LetterSubject::default(),
            rows: rows.finish(0).with_lineage(Some(lineage)),
            reasons: vec!["no \"wheels\"".into(), "not text".into()],
            stack: Vec::new(),
        }
    }

    #[tokio::test]
    async fn rejected_rows_are_written_with_their_epoch_and_only_then() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(".wasmill/job/dead-letters.jsonl");
        let letters = DeadLetters::fresh(path.clone(), BTreeMap::new()).expect("nothing there");
        let mut committer = letters.committer(Box::new(MemoryCommitter::default()));
        committer.commit(Epoch(1), vec![Cut::default()]).await.expect("commits");
        assert!(!path.exists() && letters.path().is_none());
        for epoch in 2..4 {
            let cut = Cut { dead_letters: vec![letter()], ..Cut::default() };
            committer.commit(Epoch(epoch), vec![cut]).await.expect("commits");
        }
        let text = std::fs::read_to_string(letters.path().expect("written")).expect("readable");
        assert_eq!(text.lines().count(), 4);
        let zeros = "0".repeat(64);
        assert_eq!(
            text.lines().take(2).collect::<Vec<_>>(),
            [
                format!(
                    r#"{{"node":"classify","plugin":"sha256:{zeros}","kind":"rejected","reason":"no \"wheels\"","epoch":2,"time":"1970-01-01T00:00:00.000Z","key":"k","value":"{{\"a\":1}}","source":"classify","partition":3,"offset":7}}"#
                ),
                format!(
                    r#"{{"node":"classify","plugin":"sha256:{zeros}","kind":"rejected","reason":"not text","epoch":2,"time":"1970-01-01T00:00:00.001Z","key_base64":"/w==","value_base64":"/g==","source":"classify","partition":3,"offset":15}}"#
                ),
            ]
        );
        DeadLetters::fresh(path.clone(), BTreeMap::new()).expect("removed");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_fails_the_epoch() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("file"), "").expect("written");
        let letters = DeadLetters::fresh(dir.path().join("file/x.jsonl"), BTreeMap::new()).expect("nothing there");
        let mut committer = letters.committer(Box::new(MemoryCommitter::default()));
        let cut = Cut { dead_letters: vec![letter()], ..Cut::default() };
        let error = committer.commit(Epoch(1), vec![cut]).await.expect_err("no directory");
        assert!(error.reason.contains("cannot write rejected rows to"), "{error}");
    }
}
