//! Gathers the [`Facts`] the ladder decides on.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::Error;
use crate::ladder::{Compiler, Facts, Packages, Rung, TARGET, Tried, Version};
use crate::process;

/// Forces a rung: `installed`, `rustup` or `build-std`.
pub const RUNG_VARIABLE: &str = "WASMILL_PLUGIN_TOOLCHAIN";
/// Names the compiler; nothing is searched then.
pub const RUSTC_VARIABLE: &str = "WASMILL_PLUGIN_RUSTC";
/// Names the linker used when the standard library is built too.
pub const LINKER_VARIABLE: &str = "WASMILL_PLUGIN_WASM_LINKER";

/// A probe that takes longer is broken.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Where and how to look for a compiler.
#[derive(Debug, Clone)]
pub struct Search {
    /// The plugin's folder: a toolchain file there decides what `rustc` means.
    pub dir: PathBuf,
    /// Leave the network alone.
    pub offline: bool,
    /// The only rung allowed.
    pub forced: Option<Rung>,
    /// The compiler the user named.
    pub rustc: Option<PathBuf>,
    /// The linker the user named.
    pub linker: Option<PathBuf>,
    /// Folders in which programs are found, as in `PATH`.
    pub path: OsString,
    /// The cargo to run.
    pub cargo: PathBuf,
}

impl Search {
    /// As the environment says, for the plugin in `dir`.
    ///
    /// # Errors
    /// A variable holds what it cannot hold.
    pub fn from_env(dir: &Path, offline: bool) -> Result<Self, Error> {
        let forced = match env::var(RUNG_VARIABLE) {
            Ok(value) if !value.is_empty() => {
                Some(value.parse().map_err(|expected| Error::Variable { variable: RUNG_VARIABLE, value, expected })?)
            }
            _ => None,
        };
        let named = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let cargo = named("CARGO").or_else(|| find(&path, "cargo")).unwrap_or_else(|| "cargo".into());
        Ok(Self {
            dir: dir.to_owned(),
            offline: offline || env::var("CARGO_NET_OFFLINE").is_ok_and(|value| value == "true"),
            forced,
            rustc: named(RUSTC_VARIABLE),
            linker: named(LINKER_VARIABLE),
            path,
            cargo,
        })
    }

    /// A program on the search path.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        find(&self.path, program)
    }

    /// A command that runs in the plugin's folder.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).env("PATH", &self.path);
        command
    }

    fn output(&self, program: &Path, arguments: &[&str]) -> Option<String> {
        let said = process::run(self.command(program).args(arguments), PROBE_LIMIT).ok()?;
        said.status.success().then_some(said.stdout)
    }
}

fn find(path: &OsStr, program: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A compiler, and what tells two of one release apart.
pub(crate) struct Probed {
    pub(crate) compiler: Compiler,
    /// What `rustc -vV` says.
    pub(crate) verbose: String,
}

/// The compiler that answers as `rustc` in the plugin's folder.
pub(crate) fn default_compiler(search: &Search) -> Option<Probed> {
    probe(search, &search.find("rustc")?, None)
}

/// What the first two rungs need, without looking further.
pub(crate) fn near(search: &Search, default: Option<&Probed>) -> Result<Facts, Error> {
    let explicit = match &search.rustc {
        None => None,
        Some(rustc) => Some(probe(search, rustc, None).ok_or_else(|| Error::Variable {
            variable: RUSTC_VARIABLE,
            value: rustc.display().to_string(),
            expected: "expected a Rust compiler that answers to -vV".to_owned(),
        })?),
    };
    Ok(Facts {
        forced: search.forced,
        offline: search.offline,
        explicit: explicit.map(|probed| probed.compiler),
        default: default.is_some(),
        compilers: default.map(|probed| probed.compiler.clone()).into_iter().collect(),
        linkers: search.linker.clone().into_iter().collect(),
        rustup: false,
        packages: Packages::Absent,
        tried: Vec::new(),
    })
}

/// Everything.
pub(crate) fn all(search: &Search, tried: &[Tried]) -> Result<Facts, Error> {
    let rustup = search.find("rustup");
    let toolchains = rustup.as_deref().and_then(|rustup| toolchains(search, rustup));
    let default = search.find("rustc").and_then(|rustc| probe(search, &rustc, toolchains.as_deref()));
    let mut facts = near(search, default.as_ref())?;
    facts.rustup = rustup.is_some();
    facts.packages = packages(search);
    facts.tried = tried.to_vec();

    let mut known: BTreeSet<PathBuf> = facts.compilers.iter().map(|compiler| canonical(&compiler.rustc)).collect();
    for rustc in other_compilers(search, toolchains.as_deref()) {
        if known.contains(&canonical(&rustc)) {
            continue;
        }
        if let Some(Probed { compiler, .. }) = probe(search, &rustc, toolchains.as_deref())
            && known.insert(canonical(&compiler.rustc))
        {
            facts.compilers.push(compiler);
        }
    }
    facts.linkers.extend(linkers(search, &facts.compilers, toolchains.as_deref()));
    Ok(facts)
}

/// The folder of rustup's toolchains.
fn toolchains(search: &Search, rustup: &Path) -> Option<PathBuf> {
    let home = search.output(rustup, &["show", "home"])?;
    Some(Path::new(home.trim()).join("toolchains"))
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut folders: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

/// rustup's compilers, then those on the path that are no shims.
fn other_compilers(search: &Search, toolchains: Option<&Path>) -> Vec<PathBuf> {
    let mut compilers: Vec<_> =
        toolchains.map(folders).unwrap_or_default().iter().map(|folder| folder.join("bin/rustc")).collect();
    let system = env::split_paths(&search.path).map(|folder| folder.join("rustc"));
    compilers.extend(system.filter(|rustc| canonical(rustc).file_name() != Some(OsStr::new("rustup"))));
    compilers.retain(|rustc| rustc.is_file());
    compilers
}

fn linkers(search: &Search, compilers: &[Compiler], toolchains: Option<&Path>) -> Vec<PathBuf> {
    let toolchains = toolchains.map(folders).unwrap_or_default();
    let own = compilers.iter().filter_map(|compiler| Some(compiler.rustc.parent()?.parent()?.to_owned()));
    let mut found: Vec<PathBuf> = Vec::new();
    for sysroot in own.chain(toolchains) {
        for host in folders(&sysroot.join("lib/rustlib")) {
            found.push(host.join("bin/rust-lld"));
        }
    }
    found.extend(search.find("rust-lld"));
    found.extend(search.find("wasm-ld"));
    let mut numbered: Vec<(u32, PathBuf)> = env::split_paths(&search.path)
        .flat_map(|folder| folders(&folder))
        .filter_map(|file| Some((file.file_name()?.to_str()?.strip_prefix("wasm-ld-")?.parse().ok()?, file)))
        .collect();
    numbered.sort_by(|one, other| other.cmp(one));
    found.extend(numbered.into_iter().map(|(_, file)| file));

    let mut seen = BTreeSet::new();
    found.retain(|linker| linker.is_file() && seen.insert(canonical(linker)));
    found
}

/// Asks a compiler what it is. `None`: it does not answer.
fn probe(search: &Search, rustc: &Path, toolchains: Option<&Path>) -> Option<Probed> {
    let verbose = search.output(rustc, &["-vV"])?;
    let version = Version::of(&verbose)?;
    let sysroot = PathBuf::from(search.output(rustc, &["--print", "sysroot"])?.trim_end());
    let libraries = search.output(rustc, &["--print", "target-libdir", "--target", TARGET]).unwrap_or_default();
    let program = sysroot.join("bin").join("rustc");
    let compiler = Compiler {
        // Where a shim answered, what it stands for.
        rustc: if program.is_file() { program } else { rustc.to_owned() },
        version,
        toolchain: toolchains.and_then(|folder| toolchain_name(&sysroot, folder)),
        target: holds_library(Path::new(libraries.trim_end())),
        library: sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file(),
    };
    Some(Probed { compiler, verbose })
}

fn toolchain_name(sysroot: &Path, toolchains: &Path) -> Option<String> {
    let name = sysroot.file_name()?.to_str()?;
    (canonical(sysroot.parent()?) == canonical(toolchains)).then(|| name.to_owned())
}

fn holds_library(folder: &Path) -> bool {
    folders(folder)
        .iter()
        .filter_map(|file| file.file_name()?.to_str())
        .any(|name| (name.starts_with("libstd-") || name.starts_with("libcore-")) && name.ends_with(".rlib"))
}

fn packages(search: &Search) -> Packages {
    if search.find("apt-get").is_none() {
        return Packages::Absent;
    }
    let says = |program, arguments: &[&str]| search.output(&search.find(program)?, arguments);
    if says("id", &["-u"]).is_some_and(|user| user.trim() == "0") {
        Packages::Root
    } else if says("sudo", &["-n", "true"]).is_some() {
        Packages::Sudo
    } else {
        Packages::NoRight
    }
}

fn canonical(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
