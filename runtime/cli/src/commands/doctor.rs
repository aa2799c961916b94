//! `wasmill doctor`: what this machine has, and what to do about what it lacks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;
use serde_json::json;
use wasmill_wasm::{HostSettings, WasmHost};

use crate::failure::{FAILED, Failure, chain};
use crate::terminal::{Style, Terminal, bytes};
use crate::{data_dir, std_plugins};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    /// Something will not work, jobs will.
    Warn,
    /// Jobs will not run.
    Fail,
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Ok, found: found.into(), fix: None }
    }

    fn warn(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    fn fail(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Fail, found: found.into(), fix: Some(fix.into()) }
    }
}

pub(super) fn doctor(terminal: &Terminal) -> Result<(), Failure> {
    let (toolchain, details) = toolchain();
    let findings = [cache(), engine(), standard_plugins(), machine(), working_directory(), toolchain];
    let worst = if findings.iter().any(|finding| finding.verdict == Verdict::Fail) { FAILED } else { 0 };
    if terminal.json {
        terminal.print_json(&json!({"ok": worst == 0, "findings": findings, "toolchain": details}))?;
    } else {
        terminal.print(&to_text(&findings, terminal.out))?;
        if terminal.verbose
            && let Some(details) = details
        {
            terminal.print(&details.to_string())?;
        }
    }
    if worst == 0 { Ok(()) } else { Err(Failure::Reported { code: worst }) }
}

fn to_text(findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => style.good("ok  "),
            Verdict::Warn => style.warning("warn"),
            Verdict::Fail => style.bad("fail"),
        };
        text.push_str(&format!("{verdict} {:<17} {}\n", finding.what, finding.found));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("     {:<17} {}\n", "", style.dim(&format!("-> {fix}"))));
        }
    }
    text
}

/// Where plugins are compiled for: a machine without a compiler runs jobs all the same.
fn toolchain() -> (Finding, Option<wasmill_toolchain::Report>) {
    const WHAT: &str = "plugin toolchain";
    let report = wasmill_toolchain::Search::from_env(Path::new("."), true)
        .and_then(|search| wasmill_toolchain::diagnose(&wasmill_toolchain::Search { offline: false, ..search }));
    match report {
        Ok(report) => {
            let found = report.to_string();
            let first = found.lines().next().unwrap_or_default();
            let first = first.strip_prefix("plugin toolchain").unwrap_or(first);
            let first = first.trim_start_matches(':').trim_start().to_owned();
            let finding = if report.healthy() {
                Finding::ok(WHAT, first)
            } else {
                let fix = "rustup target add wasm32-unknown-unknown, or apt-get install rustc-web rust-web-src lld-19";
                Finding::warn(WHAT, "none: `wasmill build` will not work, jobs will", fix)
            };
            (finding, Some(report))
        }
        Err(error) => (Finding::warn(WHAT, chain(&error), "correct or unset that variable"), None),
    }
}

fn cache() -> Finding {
    const WHAT: &str = "plugin cache";
    let fix = format!("set {} to a directory that you may write", data_dir::CACHE_VARIABLE);
    let directory = match data_dir::cache_dir() {
        Ok(directory) => directory,
        Err(_) => return Finding::fail(WHAT, "neither HOME nor XDG_CACHE_HOME is set", fix),
    };
    let shown = directory.display();
    if let Err(error) = fs::create_dir_all(&directory).and_then(|()| tempfile_in(&directory)) {
        return Finding::fail(WHAT, format!("cannot write to {shown}: {error}"), fix);
    }
    let mode = fs::metadata(&directory).map(|found| found.permissions().mode() & 0o777);
    match mode {
        Ok(mode) if mode & 0o022 != 0 => {
            Finding::warn(WHAT, format!("{shown} is writable by others (mode {mode:o})"), format!("chmod 700 {shown}"))
        }
        Ok(mode) => Finding::ok(WHAT, format!("{shown}, mode {mode:o}, {}", bytes(size_of(&directory)))),
        Err(error) => Finding::fail(WHAT, format!("cannot look at {shown}: {error}"), fix),
    }
}

/// Bytes of the files under a directory, as far as they can be seen.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

fn tempfile_in(directory: &Path) -> std::io::Result<()> {
    let probe = directory.join(format!(".wasmill-doctor-{}", std::process::id()));
    fs::write(&probe, b"probe")?;
    fs::remove_file(&probe)
}

fn engine() -> Finding {
    const WHAT: &str = "WebAssembly";
    let made = data_dir::cache_dir()
        .map_err(|_| "no cache directory".to_owned())
        .and_then(|directory| HostSettings::new(directory).map_err(|error| error.to_string()))
        .and_then(|settings| WasmHost::new(settings).map_err(|error| chain(&error)));
    match made {
        Ok(_) => Finding::ok(WHAT, format!("wasmtime, {}", std::env::consts::ARCH)),
        Err(reason) => Finding::fail(WHAT, reason, "raise the limit on address space: ulimit -v unlimited"),
    }
}

fn standard_plugins() -> Finding {
    const WHAT: &str = "standard plugins";
    let names: Vec<&str> = std_plugins::names().collect();
    if names.is_empty() {
        return Finding::warn(WHAT, "none in this binary", "run `cargo xtask plugins` and build it again");
    }
    Finding::ok(WHAT, names.join(", "))
}

fn machine() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    match memory {
        Some(kib) if kib < 256 << 10 => Finding::warn(
            "machine",
            format!("{cores} cores, {} of memory free", bytes(kib << 10)),
            "jobs with state want more memory",
        ),
        Some(kib) => Finding::ok("machine", format!("{cores} cores, {} of memory free", bytes(kib << 10))),
        None => Finding::ok("machine", format!("{cores} cores")),
    }
}

fn working_directory() -> Finding {
    const WHAT: &str = "working directory";
    let shown = std::env::current_dir().map_or_else(|error| error.to_string(), |dir| dir.display().to_string());
    match tempfile_in(Path::new(".")) {
        Ok(()) => Finding::ok(WHAT, format!("{shown} is writable")),
        Err(error) => {
            Finding::warn(WHAT, format!("{shown} is not writable: {error}"), "let the sinks write somewhere else")
        }
    }
}
