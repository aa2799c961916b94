//! The half of the ladder that decides: facts in, next step out.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What plugins are compiled for: std's clocks and files fail there instead of asking the host.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The oldest compiler that takes the code `wit-bindgen` generates.
const OLDEST: Version = Version { major: 1, minor: 85, patch: 0 };

/// The ways to a compiler, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// The user named the compiler.
    Explicit,
    /// The default compiler has the target.
    Installed,
    /// `rustup target add`.
    Rustup,
    /// Compile the standard library along with the plugin.
    BuildStd,
    /// Install Debian's compiler, library source and linker; then as [`Rung::BuildStd`].
    Packages,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "explicit",
            Self::Installed => "installed",
            Self::Rustup => "rustup",
            Self::BuildStd => "build-std",
            Self::Packages => "packages",
        })
    }
}

impl FromStr for Rung {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "installed" => Ok(Self::Installed),
            "rustup" => Ok(Self::Rustup),
            "build-std" => Ok(Self::BuildStd),
            _ => Err("expected installed, rustup or build-std".to_owned()),
        }
    }
}

/// A release of the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// 1, so far.
    pub major: u32,
    /// Counts releases.
    pub minor: u32,
    /// Counts repairs.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Reads the `release:` line of `rustc -vV`; `-nightly` and the like are left out.
    pub(crate) fn of(verbose: &str) -> Option<Self> {
        let release = verbose.lines().find_map(|line| line.strip_prefix("release: "))?;
        let mut numbers = release.split(['-', '+']).next()?.split('.').map(|part| part.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { major: next()?, minor: next()?, patch: next()? })
    }
}

/// A compiler on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compiler {
    /// The program itself, not a shim.
    pub rustc: PathBuf,
    /// Its release.
    pub version: Version,
    /// Its name for rustup, if it is one of rustup's.
    pub toolchain: Option<String>,
    /// Whether it has a compiled standard library for [`TARGET`].
    pub target: bool,
    /// Whether it has the source of its own standard library. No other source fits it.
    pub library: bool,
}

/// Whether Debian packages can be installed from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packages {
    /// There is no `apt-get`.
    Absent,
    /// There is, and this is root.
    Root,
    /// There is, and `sudo -n` answers.
    Sudo,
    /// There is, but no right to use it.
    NoRight,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attempt {
    /// It reported success.
    Done,
    /// It failed, with this message.
    Refused(String),
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Of which rung.
    pub rung: Rung,
    /// With what result.
    pub attempt: Attempt,
}

/// What is known of the machine.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The only rung allowed, if the user says so.
    pub forced: Option<Rung>,
    /// No use of the network.
    pub offline: bool,
    /// The compiler the user named.
    pub explicit: Option<Compiler>,
    /// Whether the `rustc` that answers first in the plugin's folder is `compilers[0]`.
    pub default: bool,
    /// The default compiler first, then others.
    pub compilers: Vec<Compiler>,
    /// Linkers for wasm, best first.
    pub linkers: Vec<PathBuf>,
    /// Whether there is a `rustup`.
    pub rustup: bool,
    /// Debian's packages.
    pub packages: Packages,
    /// Steps taken so far.
    pub tried: Vec<Tried>,
}

/// A compiler, and how to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The rung it stands on.
    pub rung: Rung,
    /// The program.
    pub rustc: PathBuf,
    /// Its release.
    pub version: Version,
    /// Set: compile the standard library too, and link with this.
    pub build_std: Option<PathBuf>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin toolchain ({}): rustc {} at {}", self.rung, self.version, self.rustc.display())?;
        match &self.build_std {
            None => write!(f, ", {TARGET} installed"),
            Some(linker) => write!(f, ", building std from its source, linker {}", linker.display()),
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Compile.
    Use(Choice),
    /// `rustup target add` for this toolchain, then ask again.
    AddTarget(String),
    /// Install Debian's packages, through `sudo -n` if set, then ask again.
    InstallPackages {
        /// Not root.
        sudo: bool,
    },
    /// Nothing fits.
    Fail,
}

/// A rung that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// Which.
    pub rung: Rung,
    /// Why not.
    pub reason: String,
}

/// The next step, and why the rungs before it do not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// Rungs passed over, in order.
    pub passed: Vec<Passed>,
}

type Ask = fn(&Facts) -> Result<Step, String>;

/// Finds the first rung that holds.
#[must_use]
pub fn decide(facts: &Facts) -> Decision {
    if facts.explicit.is_some() {
        return match explicit(facts) {
            Ok(step) => Decision { step, passed: Vec::new() },
            Err(reason) => Decision { step: Step::Fail, passed: vec![Passed { rung: Rung::Explicit, reason }] },
        };
    }
    let rungs: [(Rung, Ask); 4] =
        [(Rung::Installed, installed), (Rung::Rustup, rustup), (Rung::BuildStd, build_std), (Rung::Packages, packages)];
    let mut passed = Vec::new();
    for (rung, ask) in rungs {
        let allowed = match facts.forced {
            // Packages are what building std may still need.
            Some(Rung::BuildStd) => matches!(rung, Rung::BuildStd | Rung::Packages),
            Some(forced) => rung == forced,
            None => true,
        };
        let answer = if allowed { ask(facts) } else { Err("the user forces another rung".to_owned()) };
        match answer {
            Ok(step) => return Decision { step, passed },
            Err(reason) => passed.push(Passed { rung, reason }),
        }
    }
    Decision { step: Step::Fail, passed }
}

fn explicit(facts: &Facts) -> Result<Step, String> {
    let compiler = facts.explicit.as_ref().ok_or("no compiler was named")?;
    recent_enough(compiler)?;
    if compiler.target {
        return Ok(Step::Use(choice(Rung::Explicit, compiler, None)));
    }
    if !compiler.library {
        return Err(format!("{} has neither {TARGET} nor the source of its library", compiler.rustc.display()));
    }
    Ok(Step::Use(choice(Rung::Explicit, compiler, Some(linker(facts)?))))
}

fn installed(facts: &Facts) -> Result<Step, String> {
    let compiler = default(facts)?;
    recent_enough(compiler)?;
    if compiler.target {
        Ok(Step::Use(choice(Rung::Installed, compiler, None)))
    } else {
        Err(format!("rustc {} at {} has no {TARGET}", compiler.version, compiler.rustc.display()))
    }
}

fn rustup(facts: &Facts) -> Result<Step, String> {
    let compiler = default(facts)?;
    recent_enough(compiler)?;
    match tried(facts, Rung::Rustup) {
        Some(Attempt::Refused(message)) => return Err(format!("refused: {message}")),
        Some(Attempt::Done) if compiler.target => return Ok(Step::Use(choice(Rung::Rustup, compiler, None))),
        Some(Attempt::Done) => return Err(format!("rustup reported success, yet there is no {TARGET}")),
        None => {}
    }
    if !facts.rustup {
        return Err("rustup is not installed".to_owned());
    }
    let Some(toolchain) = &compiler.toolchain else {
        return Err(format!("{} is not one of rustup's", compiler.rustc.display()));
    };
    if compiler.target {
        // Only reached when this rung is forced: nothing to fetch.
        return Ok(Step::Use(choice(Rung::Rustup, compiler, None)));
    }
    if facts.offline {
        return Err("the network may not be used (offline)".to_owned());
    }
    Ok(Step::AddTarget(toolchain.clone()))
}

fn build_std(facts: &Facts) -> Result<Step, String> {
    let mut reasons = Vec::new();
    for compiler in &facts.compilers {
        match recent_enough(compiler) {
            Err(reason) => reasons.push(reason),
            Ok(()) if compiler.library => {
                let rung = match tried(facts, Rung::Packages) {
                    Some(Attempt::Done) => Rung::Packages,
                    _ => Rung::BuildStd,
                };
                return Ok(Step::Use(choice(rung, compiler, Some(linker(facts)?))));
            }
            Ok(()) => reasons.push(format!(
                "rustc {} at {} has no source of its own library",
                compiler.version,
                compiler.rustc.display()
            )),
        }
    }
    Err(if reasons.is_empty() { "there is no rustc".to_owned() } else { reasons.join("; ") })
}

fn packages(facts: &Facts) -> Result<Step, String> {
    match (tried(facts, Rung::Packages), facts.packages) {
        (Some(Attempt::Refused(message)), _) => Err(format!("refused: {message}")),
        (Some(Attempt::Done), _) => Err("installed, yet no compiler and library fit together".to_owned()),
        (None, Packages::Absent) => Err("there is no apt-get".to_owned()),
        (None, _) if facts.offline => Err("the network may not be used (offline)".to_owned()),
        (None, Packages::NoRight) => Err("apt-get needs root, and sudo -n does not answer".to_owned()),
        (None, Packages::Root) => Ok(Step::InstallPackages { sudo: false }),
        (None, Packages::Sudo) => Ok(Step::InstallPackages { sudo: true }),
    }
}

fn default(facts: &Facts) -> Result<&Compiler, String> {
    facts.compilers.first().filter(|_| facts.default).ok_or_else(|| "no rustc answers on the path".to_owned())
}

fn recent_enough(compiler: &Compiler) -> Result<(), String> {
    if compiler.version >= OLDEST {
        return Ok(());
    }
    Err(format!("rustc {} at {} is older than {OLDEST}", compiler.version, compiler.rustc.display()))
}

fn linker(facts: &Facts) -> Result<PathBuf, String> {
    facts.linkers.first().cloned().ok_or_else(|| "there is no linker for wasm (rust-lld, wasm-ld)".to_owned())
}

fn tried(facts: &Facts, rung: Rung) -> Option<&Attempt> {
    facts.tried.iter().find(|tried| tried.rung == rung).map(|tried| &tried.attempt)
}

fn choice(rung: Rung, compiler: &Compiler, build_std: Option<PathBuf>) -> Choice {
    Choice { rung, rustc: compiler.rustc.clone(), version: compiler.version, build_std }
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
