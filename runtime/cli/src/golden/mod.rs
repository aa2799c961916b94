//! Golden cases: what a plugin makes of an input, held fast in files, run on the real host in
//! virtual time. The format stands in `docs/testing.md`.
//!
//! Each case is played three times: as its file has it, with every row a call of its own, and with
//! a restart in the middle. What comes out must be the same.

mod case;
mod line;
mod play;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use similar::TextDiff;
use wasmill_model::{Descriptor, WindowSpec};
use wasmill_wasm::LoadedPlugin;

use crate::failure::{Failure, chain};
use case::Case;
use line::{OutputLine, Shown};
use play::{Schedule, play};

/// What came of one case.
#[derive(Debug)]
pub(crate) struct CaseResult {
    /// The name of its folder.
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
}

#[derive(Debug)]
pub(crate) enum Verdict {
    /// It comes out as expected, however it is cut.
    Passed,
    /// The expectation was rewritten; how it changed, empty where it did not.
    Blessed { diff: String },
    /// It comes out otherwise.
    Differs { when: &'static str, diff: String },
    /// It could not be played.
    Broken { reason: String },
}

impl CaseResult {
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.verdict, Verdict::Passed | Verdict::Blessed { .. })
    }
}

/// The folders of the cases in a folder, in the order of their names.
pub(crate) fn folders(cases: &Path) -> Result<Vec<PathBuf>, Failure> {
    let list = |error: &std::io::Error| Failure::file("list the cases in", cases, error);
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(cases).map_err(|error| list(&error))? {
        let path = entry.map_err(|error| list(&error))?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Plays a case, and holds it against what is expected, or writes that down.
pub(crate) async fn run(plugin: &LoadedPlugin, folder: &Path, bless: bool) -> CaseResult {
    let name = folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.display().to_string());
    let verdict = judge(plugin, folder, bless).await.unwrap_or_else(|reason| Verdict::Broken { reason });
    CaseResult { name, verdict }
}

async fn judge(plugin: &LoadedPlugin, folder: &Path, bless: bool) -> Result<Verdict, String> {
    let case = Case::read(folder)?;
    let factory = plugin.configure(case.config.clone()).await.map_err(|error| error.to_string())?;
    let descriptor = factory.descriptor();
    fits(descriptor, case.window)?;
    let lines = case.input(descriptor)?;
    let played = |schedule| {
        let (factory, lines) = (Arc::clone(&factory), &lines);
        async move { play(factory, case.window, lines, schedule).await.map_err(|error| chain(&error)) }
    };
    let whole = played(Schedule::AsWritten).await?;
    let mut diff = String::new();
    if bless {
        let before = case.output_text()?.unwrap_or_default();
        let after = line::file(&whole, descriptor, Shown::ALL);
        diff = difference(&before, &after);
        case.write_output(&after)?;
    } else {
        let Some(expected) = case.output(descriptor)? else {
            return Err(format!("{} is missing; `--bless` writes it", case.output_path().display()));
        };
        let shown = Shown::by(&expected);
        let (expected, got) = (texts(&expected, descriptor, shown), texts(&whole, descriptor, shown));
        if expected != got {
            return Ok(Verdict::Differs { when: "", diff: difference(&expected, &got) });
        }
    }
    let reference = texts(&whole, descriptor, Shown::ALL);
    let remembers = descriptor.aggregate || descriptor.timed || !descriptor.spaces.is_empty();
    let variants = [
        (Schedule::RowByRow, "with every row in a call of its own", true),
        (Schedule::RestartAt(lines.len() / 2), "with a restart in the middle", remembers),
    ];
    for (schedule, when, applies) in variants {
        if applies {
            let got = played(schedule).await.map_err(|error| format!("{when}: {error}"))?;
            let got = texts(&got, descriptor, Shown::ALL);
            if got != reference {
                return Ok(Verdict::Differs { when, diff: difference(&reference, &got) });
            }
        }
    }
    Ok(if bless { Verdict::Blessed { diff } } else { Verdict::Passed })
}

fn fits(plugin: &Descriptor, window: Option<WindowSpec>) -> Result<(), String> {
    match (plugin.aggregate, window) {
        (true, None) => Err("the plugin is an aggregate: case.toml needs window = { tumbling = \"1m\" }".into()),
        (false, Some(_)) => Err("the plugin is no aggregate, and only an aggregate has a window".into()),
        _ => Ok(()),
    }
}

/// Lines side by side by port: how ports take turns depends on how rows are cut into calls.
fn texts(lines: &[OutputLine], plugin: &Descriptor, shown: Shown) -> String {
    let mut sorted: Vec<&OutputLine> = lines.iter().collect();
    sorted.sort_by_key(|line| line.place());
    sorted.iter().map(|line| line.render(plugin, shown) + "\n").collect()
}

/// What is expected, and what came instead.
fn difference(expected: &str, got: &str) -> String {
    if expected == got {
        return String::new();
    }
    TextDiff::from_lines(expected, got).unified_diff().context_radius(2).header("expected", "got").to_string()
}
