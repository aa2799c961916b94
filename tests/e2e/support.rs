//! A folder to work in, the binary, and plugins that misbehave.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A folder with a job in it.
pub(crate) struct Folder {
    dir: TempDir,
}

/// What the binary did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The same with a file.
    pub(crate) fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
        self
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// What the sink has written over all runs: `out.jsonl`, `out-1.jsonl` and so on.
    pub(crate) fn results(&self) -> String {
        let later = (1..).map(|run| format!("out-{run}.jsonl")).take_while(|name| self.has(name));
        let first = Some("out.jsonl".to_owned()).filter(|name| self.has(name));
        first.into_iter().chain(later).map(|name| self.read(&name)).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path().join(name).exists()
    }

    /// The binary, to run in this folder.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmill"));
        self.at_home(&mut command);
        command
    }

    /// Any program, to run in this folder with a cache of compiled plugins that all tests share.
    pub(crate) fn at_home(&self, command: &mut Command) {
        command
            .current_dir(self.path())
            .env("WASMILL_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasmill-cache"))
            .env_remove("WASMILL_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// Runs the binary to its end. It never panics, whatever happens.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        Done::of(self.command().args(arguments).output().expect("the binary runs"))
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command().args(arguments).stdin(Stdio::piped()).spawn().expect("the binary starts")
    }
}

impl Done {
    #[track_caller]
    pub(crate) fn of(output: Output) -> Self {
        let done = Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        };
        // A guest that panics says so, too, but is no thread.
        let panicked = |line: &str| line.contains("thread '") && line.contains("panicked");
        assert!(!done.err.lines().any(panicked), "{}", done.err);
        assert!(!done.err.contains("RUST_BACKTRACE"), "{}", done.err);
        done
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It went well.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }

    /// It ended with `code`, and said each of `words` in at most a screen of text.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in:\n{}", self.err);
        }
        assert!(self.err.lines().count() <= 40, "more than a screen:\n{}", self.err);
        self
    }
}

/// A job that copies `in.jsonl` to `out.jsonl`, through `plugin.wasm` where `stage` says so.
pub(crate) fn job(stage: Option<&str>) -> String {
    let (stage, from) = match stage {
        Some(more) => (format!("[stage.work]\nplugin = \"plugin.wasm\"\ninput = \"in\"\n{more}\n"), "work"),
        None => (String::new(), "in"),
    };
    format!(
        "name = \"test\"\n\n[source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\nkey = \"/k\"\n\n\
         {stage}\n[sink.out]\nconnector = \"file\"\npath = \"out.jsonl\"\ninput = \"{from}\"\n"
    )
}

/// A folder with that job and three events.
pub(crate) fn three_events(stage: Option<&str>) -> Folder {
    Folder::new().with("job.toml", job(stage)).with("in.jsonl", "{\"k\":\"a\"}\n{\"k\":\"b\"}\n{\"k\":\"c\"}\n")
}

pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A plugin of `tests/guests` that is compiled from source.
pub(crate) fn built_guest(name: &str) -> Vec<u8> {
    let path = repository("target/guests").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run cargo xtask plugins", path.display()))
}

/// A plugin of the world `stateless` that does `body` in `export`, and passes batches on as they
/// are otherwise. A core module: the host makes a component of it.
pub(crate) fn guest(export: &str, body: &str) -> Vec<u8> {
    let defaults = text("tests/guests/defaults.wat");
    let functions: String = defaults
        .split("(func (export \"")
        .skip(1)
        .filter(|function| !["/timed@", "/aggregate@", "/migration@"].iter().any(|other| function.contains(other)))
        .map(|function| {
            let name = function.split('"').next().expect("a name");
            let function = format!("(func (export \"{function}");
            if name == export || name.ends_with(&format!("#{export}")) {
                let signature = function.trim_end().rsplit_once("\n  (").expect("signature and body").0;
                format!("{signature}\n  {body})\n")
            } else {
                function
            }
        })
        .collect();
    let module = format!("(module {}\n{functions})", text("tests/guests/prelude.wat"));
    embedded(&wat::parse_str(&module).unwrap_or_else(|error| panic!("{export}: {error}")), "stateless")
}

/// A core module that says which world it implements.
pub(crate) fn embedded(module: &[u8], world: &str) -> Vec<u8> {
    let mut module = module.to_vec();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("operator.wit", &text("wit/operator.wit")).expect("the WIT package parses");
    let world = resolve.select_world(&[package], Some(world)).expect("the world exists");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("the world embeds");
    module
}
