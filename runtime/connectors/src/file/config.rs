use schemars::JsonSchema;
use serde::Deserialize;

use wasmill_spec::{ByteSize, Period};

use crate::text::{CsvTypes, Format};

/// Options of the source `file`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceConfig {
    /// A file, or a pattern of files (`*`, `?`, `[a-z]`, `**`), relative to the job file.
    pub(crate) path: String,
    /// How records follow each other. By default from the name: `.csv` and `.tsv` are CSV, `.json`,
    /// `.jsonl` and `.ndjson` are JSON lines, anything else is lines.
    pub(crate) format: Option<Format>,
    /// How files are compressed. By default from the name: `.gz` is gzip, `.zst` is zstd.
    pub(crate) compression: Option<Compression>,
    /// CSV: the character between fields. By default a comma, a tab for `.tsv`.
    pub(crate) delimiter: Option<char>,
    /// CSV: what fields become. By default `infer`.
    pub(crate) types: Option<CsvTypes>,
    /// CSV: texts that become `null`. By default the empty text only; often `["", "NA"]`.
    pub(crate) null: Option<Vec<String>>,
    /// Go on with what is appended later, and with new files. The input never ends.
    #[serde(default)]
    pub(crate) follow: bool,
    /// How several files are read. By default `together`; with `follow` always together.
    pub(crate) order: Option<Order>,
    /// Longest record; longer ones go to the dead-letter queue. By default 1 MiB.
    pub(crate) record_bytes_max: Option<ByteSize>,
}

/// How several files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Side by side, each a partition of its own.
    Together,
    /// One after the other by name, all one partition.
    ByName,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// gzip, several members too.
    Gzip,
    /// Zstandard, several frames too.
    Zstd,
}

/// Options of the sink `file`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SinkConfig {
    /// The file to write, relative to the job file. While it grows it has the suffix `.part`; a file
    /// without it holds committed rows only. `{date}` in its name stands for the UTC day on which
    /// the file was begun (`2026-01-31`).
    pub(crate) path: String,
    /// Write `{"key":…,"time":…,"value":…}` rather than the value alone. `time` is in microseconds
    /// since the Unix epoch. Rows of windows that fire more than once have `"pane"`: `early`,
    /// `on-time`, `correction` or `retraction`.
    #[serde(default)]
    pub(crate) envelope: bool,
    /// With `envelope`: write `"plugin"`, too, the digest of the plugin that made the row; `null` of a
    /// row that no plugin has made.
    #[serde(default)]
    pub(crate) plugin: bool,
    /// When to finish a file and begin the next one, numbered `-0`, `-1`, … By default never.
    pub(crate) roll: Option<Roll>,
    /// What to do about a file of the same name when the job starts anew. By default `replace`, with
    /// `roll` `new`.
    pub(crate) if_exists: Option<IfExists>,
    /// Whether each epoch is on disk before it counts. By default `epoch` where the job keeps its
    /// state, else `none`: after a crash such a job starts anew.
    pub(crate) sync: Option<Sync>,
}

/// When to finish a file and begin the next one: at the first epoch at which either is reached.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Roll {
    /// At this size.
    pub(crate) bytes: Option<ByteSize>,
    /// At multiples of this length of time since midnight UTC.
    pub(crate) interval: Option<Period>,
}

/// What to do about an existing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IfExists {
    /// Replace it when the new one is finished.
    Replace,
    /// Refuse to start.
    Fail,
    /// Leave it and write to the next free number: `out-1.jsonl`.
    New,
}

/// When written rows are forced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sync {
    /// At every epoch: rows survive a crash of the machine.
    Epoch,
    /// Never: rows survive a crash of the process, not of the machine.
    None,
}
