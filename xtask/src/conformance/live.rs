//! What the suite shows on a job that runs: a stage goes from Rust to another language and back on the
//! same state, and an operator runs that no SDK has a part in.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

use super::TOOLS;
use crate::steps::run;

/// An operator on what `wit-bindgen` makes for C, and a world of its own.
const RAW: &str = "tests/guests/raw-c";
/// zig, as `wasmill build` installs it for the SDK of C.
const ZIG: &str = "ziglang-0.17.0";

/// A job that counts what is appended to a file, by key.
struct Job {
    child: Child,
    output: BufReader<ChildStdout>,
    lab: PathBuf,
    wasmill: PathBuf,
}

impl Job {
    fn start(wasmill: &Path, lab: &Path, plugin: &Path, config: &str) -> anyhow::Result<Self> {
        // What is left of another run is another job's.
        let _absent = fs::remove_dir_all(lab);
        fs::create_dir_all(lab).with_context(|| format!("cannot make {}", lab.display()))?;
        fs::write(lab.join("in.jsonl"), "")?;
        let job = format!(
            "name = \"live\"\ndelivery = \"at-least-once\"\nepoch = {{ interval = \"1h\" }}\n\
             [source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\nfollow = true\nkey = \"/k\"\n\
             [stage.count]\nplugin = {plugin:?}\ninput = \"in\"\n{config}\n\
             [sink.seen]\nconnector = \"stdout\"\ninput = \"count\"\n"
        );
        fs::write(lab.join("job.toml"), job)?;
        let mut command = Command::new(wasmill);
        command.args(["run", "job.toml", "--state", "state"]).current_dir(lab).stdin(Stdio::null());
        let log = fs::File::create(lab.join("run.log"))?;
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().context("cannot start the job")?;
        let output = BufReader::new(child.stdout.take().context("its output is piped")?);
        Ok(Self { child, output, lab: lab.to_owned(), wasmill: wasmill.to_owned() })
    }

    /// What comes of one event.
    fn event(&mut self, key: &str) -> anyhow::Result<String> {
        use std::io::Write as _;
        let mut input = fs::OpenOptions::new().append(true).open(self.lab.join("in.jsonl"))?;
        writeln!(input, "{{\"k\":\"{key}\"}}")?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the job ended: {}", fs::read_to_string(self.lab.join("run.log"))?);
        }
        Ok(line.trim_end().to_owned())
    }

    fn swap(&self, plugin: &Path) -> anyhow::Result<()> {
        let mut command = Command::new(&self.wasmill);
        command.args(["swap", "state", "count"]).arg(plugin).current_dir(&self.lab);
        let said = command.output().context("cannot run wasmill swap")?;
        if !said.status.success() {
            bail!("wasmill swap: {}", String::from_utf8_lossy(&said.stderr));
        }
        Ok(())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Its state is thrown away: nothing has to come to an end.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Swaps the running stage in Rust for the one in another language, and back. What differs, empty for
/// nothing.
pub(super) fn swap(wasmill: &Path, lab: &Path, rust: &Path, other: &Path) -> anyhow::Result<String> {
    let mut job = Job::start(wasmill, lab, rust, "config = { op = \"count\" }")?;
    let mut counts = vec![job.event("a")?, job.event("b")?, job.event("a")?];
    job.swap(other)?;
    counts.extend([job.event("a")?, job.event("b")?]);
    job.swap(rust)?;
    counts.extend([job.event("a")?, job.event("c")?]);
    Ok(difference(&counts, &["1", "1", "2", "3", "2", "4", "1"]))
}

/// Compiles the operator on raw bindings, and runs it in a job.
pub(super) fn raw(root: &Path, wasmill: &Path, lab: &Path) -> anyhow::Result<String> {
    let work = lab.join("raw");
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let mut resolve = Resolve::default();
    resolve.push_file(root.join("wit/operator.wit"))?;
    let package = resolve.push_file(root.join(RAW).join("world.wit"))?;
    let world = resolve.select_world(&[package], None)?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    for (name, bytes) in files.iter() {
        fs::write(work.join(name), bytes)?;
    }
    let (tools, module) = (root.join(TOOLS), work.join("counter.wasm"));
    let mut zig = Command::new("python3");
    zig.args(["-m", "ziglang", "cc", "-target", "wasm32-wasi", "-O2", "-mexec-model=reactor", "-s"]);
    zig.args(["-Wl,-z,stack-size=65536", "counter.c", "counter_component_type.o", "-I", "."]);
    zig.arg(root.join(RAW).join("main.c")).arg("-o").arg(&module).current_dir(&work);
    zig.env("PYTHONPATH", tools.join(ZIG)).env("ZIG_GLOBAL_CACHE_DIR", tools.join("zig-cache"));
    run(zig.env("ZIG_LOCAL_CACHE_DIR", work.join("zig")))?;
    let mut job = Job::start(wasmill, &lab.join("job"), &module, "")?;
    let counts = [job.event("a")?, job.event("b")?, job.event("a")?];
    Ok(difference(&counts, &["1", "1", "2"]))
}

fn difference(got: &[String], expected: &[&str]) -> String {
    if got == expected { String::new() } else { format!("expected {expected:?}, got {got:?}") }
}
