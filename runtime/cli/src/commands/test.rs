//! `wasmill test`: golden cases of a plugin.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use wasmill_env::RealClock;
use wasmill_spec::PluginRef;
use wasmill_wasm::InstanceLimits;

use crate::commands::build::{self, BuildArgs};
use crate::failure::{FAILED, Failure};
use crate::golden::{self, CaseResult, Verdict};
use crate::plugins::{self, Plugins};
use crate::terminal::{Style, Terminal, count};

#[derive(Debug, Args)]
#[command(
    after_help = "A case is a folder with input.jsonl and output.jsonl, and with config.json or case.toml where \
                        it needs them.\nEach is played as written, row by row, and with a restart in the middle: what \
                        comes out must be the same."
)]
pub(super) struct TestArgs {
    /// The folder of a plugin, which is built first; or a .wasm file, or std:NAME
    #[arg(default_value = ".")]
    plugin: String,
    /// The folder of the cases, `cases` in the plugin's folder or here unless given
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
    /// Write down what comes out as what is expected
    #[arg(long)]
    bless: bool,
}

/// A plugin with its cases.
struct Subject {
    plugin: PluginRef,
    path: PathBuf,
    cases: PathBuf,
}

pub(super) fn test(args: &TestArgs, terminal: &Terminal) -> Result<(), Failure> {
    let subjects = subjects(args, terminal)?;
    super::small_runtime()?.block_on(async {
        let plugins = Plugins::new(terminal, Arc::new(RealClock::default()))?;
        let mut results = Vec::new();
        for subject in &subjects {
            let loaded = plugins.load(&subject.plugin, &subject.path, None, InstanceLimits::default()).await?;
            for folder in golden::folders(&subject.cases)? {
                let result = golden::run(&loaded, &folder, args.bless).await;
                if !terminal.json {
                    terminal.print(&to_text(&result, terminal.out))?;
                }
                results.push(result);
            }
        }
        finish(&results, terminal, &subjects)
    })
}

fn subjects(args: &TestArgs, terminal: &Terminal) -> Result<Vec<Subject>, Failure> {
    let folder = Path::new(&args.plugin);
    let cases = |beside: &Path| args.cases.clone().unwrap_or_else(|| beside.join("cases"));
    if !folder.is_dir() {
        let plugin = plugins::named(&args.plugin);
        return Ok(vec![Subject { plugin, path: folder.to_owned(), cases: cases(Path::new("")) }]);
    }
    let built = build::components(&BuildArgs::of(folder.to_owned()), terminal)?;
    let subjects = built.into_iter().map(|component| Subject {
        plugin: PluginRef::Path(component.path.display().to_string()),
        cases: cases(&component.dir),
        path: component.path,
    });
    Ok(subjects.collect())
}

fn finish(results: &[CaseResult], terminal: &Terminal, subjects: &[Subject]) -> Result<(), Failure> {
    if results.is_empty() {
        let place = subjects.first().map_or_else(|| "cases".to_owned(), |subject| subject.cases.display().to_string());
        return Err(Failure::wrong(format!("there is no case in {place}"))
            .hint(format!("make a folder {place}/NAME with an input.jsonl, then run this with --bless")));
    }
    let failed = results.iter().filter(|result| !result.is_good()).count();
    let passed = results.len() - failed;
    if terminal.json {
        let cases: Vec<Value> = results.iter().map(to_json).collect();
        terminal.print_json(&json!({"ok": failed == 0, "passed": passed, "failed": failed, "cases": cases}))?;
    } else {
        let all = count(results.len() as u64, "case");
        terminal.print(&match failed {
            0 => format!("{}: {all}", terminal.out.good("ok")),
            _ => format!("{}: {failed} of {all}", terminal.out.bad("failed")),
        })?;
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Reported { code: FAILED }) }
}

fn to_text(result: &CaseResult, style: Style) -> String {
    let name = &result.name;
    match &result.verdict {
        Verdict::Passed => format!("{} {name}", style.good("ok    ")),
        Verdict::Blessed { diff } if diff.is_empty() => format!("{} {name}: as it was", style.good("ok    ")),
        Verdict::Blessed { diff } => format!("{} {name}\n{}", style.warning("new   "), coloured(diff, style)),
        Verdict::Differs { when, diff } => {
            let when = if when.is_empty() { String::new() } else { format!(", {when}") };
            format!("{} {name}{when}\n{}", style.bad("FAILED"), coloured(diff, style))
        }
        Verdict::Broken { reason } => format!("{} {name}: {reason}", style.bad("FAILED")),
    }
}

fn coloured(diff: &str, style: Style) -> String {
    let line = |line: &str| match line.as_bytes().first() {
        Some(b'-') => style.bad(line),
        Some(b'+') => style.good(line),
        _ => style.dim(line),
    };
    diff.lines().map(|text| format!("    {}\n", line(text))).collect()
}

fn to_json(result: &CaseResult) -> Value {
    let (verdict, when, diff) = match &result.verdict {
        Verdict::Passed => ("passed", None, None),
        Verdict::Blessed { diff } => ("blessed", None, Some(diff.as_str())),
        Verdict::Differs { when, diff } => {
            ("differs", Some(*when).filter(|when| !when.is_empty()), Some(diff.as_str()))
        }
        Verdict::Broken { reason } => ("broken", None, Some(reason.as_str())),
    };
    json!({"name": result.name, "ok": result.is_good(), "verdict": verdict, "when": when, "detail": diff})
}
