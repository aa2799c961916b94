//! The half of the ladder that acts.

use std::path::Path;
use std::time::Duration;

use crate::cache;
use crate::error::Error;
use crate::ladder::{Attempt, Choice, Rung, Step, TARGET, Tried, decide};
use crate::probe::{self, Search};
use crate::process::{self, Said};

const RUSTUP_LIMIT: Duration = Duration::from_secs(60);
const PACKAGES_LIMIT: Duration = Duration::from_secs(15 * 60);
const PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "lld-19"];

/// Finds a compiler, fetching what is missing, and remembers it in the folder `target`. `say`
/// gets a line before anything is fetched, and one for the choice.
///
/// # Errors
/// [`Error::NoToolchain`] with the reasons and the commands that would help; what a variable holds;
/// the folder `target` cannot be written.
pub fn climb(search: &Search, target: &Path, say: &mut dyn FnMut(&str)) -> Result<Choice, Error> {
    let default = probe::default_compiler(search);
    // A target that has been installed since beats what is remembered.
    if let Step::Use(choice) = decide(&probe::near(search, default.as_ref())?).step {
        say(&choice.to_string());
        return Ok(choice);
    }
    let key = if search.rustc.is_some() { None } else { default.and_then(|it| cache::Key::of(&it, search.forced)) };
    if let Some(choice) = key.as_ref().and_then(|key| cache::load(target, key)) {
        say(&format!("{choice} (as before)"));
        return Ok(choice);
    }

    let mut tried = Vec::new();
    loop {
        let decision = decide(&probe::all(search, &tried)?);
        match decision.step {
            Step::Use(choice) => {
                say(&choice.to_string());
                if let Some(key) = key {
                    cache::store(target, key, &choice)?;
                }
                return Ok(choice);
            }
            Step::AddTarget(toolchain) => {
                say(&format!("rustup target add {TARGET} --toolchain {toolchain}"));
                let attempt = add_target(search, &toolchain);
                if let Attempt::Refused(message) = &attempt {
                    say(&format!("rustup refused ({message}); looking for another way"));
                }
                tried.push(Tried { rung: Rung::Rustup, attempt });
            }
            Step::InstallPackages { sudo } => {
                tried.push(Tried { rung: Rung::Packages, attempt: install(search, sudo, say) });
            }
            Step::Fail => return Err(Error::NoToolchain(decision.passed)),
        }
    }
}

fn add_target(search: &Search, toolchain: &str) -> Attempt {
    let Some(rustup) = search.find("rustup") else { return Attempt::Refused("rustup is gone".to_owned()) };
    let mut command = search.command(&rustup);
    command.args(["target", "add", TARGET, "--toolchain", toolchain]);
    attempt(process::run(&mut command, RUSTUP_LIMIT))
}

fn install(search: &Search, sudo: bool, say: &mut dyn FnMut(&str)) -> Attempt {
    let mut packages = PACKAGES.to_vec();
    if search.find("cargo").is_none() {
        packages.push("cargo-web");
    }
    say(&format!("installing Debian's {} with apt-get: nothing on this machine compiles for wasm", packages.join(" ")));
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    match apt_get(search, sudo, &arguments) {
        Attempt::Done => Attempt::Done,
        // Package lists may be old or absent.
        Attempt::Refused(_) => match apt_get(search, sudo, &["update"]) {
            Attempt::Done => apt_get(search, sudo, &arguments),
            refused @ Attempt::Refused(_) => refused,
        },
    }
}

fn apt_get(search: &Search, sudo: bool, arguments: &[&str]) -> Attempt {
    let program = if sudo { "sudo" } else { "apt-get" };
    let Some(program) = search.find(program) else { return Attempt::Refused(format!("{program} is gone")) };
    let mut command = search.command(&program);
    if sudo {
        command.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    } else {
        command.env("DEBIAN_FRONTEND", "noninteractive");
    }
    attempt(process::run(command.args(arguments), PACKAGES_LIMIT))
}

fn attempt(said: Result<Said, Error>) -> Attempt {
    match said {
        Ok(Said { status, .. }) if status.success() => Attempt::Done,
        Ok(Said { status, stderr, .. }) => {
            let last = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
            Attempt::Refused(last.map_or_else(|| status.to_string(), |line| line.chars().take(300).collect()))
        }
        Err(Error::Run { program, source }) => Attempt::Refused(format!("{program}: {source}")),
        Err(error) => Attempt::Refused(error.to_string()),
    }
}

#[cfg(all(test, unix))]
#[path = "climb_tests.rs"]
mod tests;
