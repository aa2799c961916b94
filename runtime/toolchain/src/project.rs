//! `plugin.toml`: what a plugin project in a language other than Rust says about itself.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;

/// The file that makes a folder a plugin project.
pub const MANIFEST: &str = "plugin.toml";

/// A language that `wasmill build` compiles by itself. Rust projects are cargo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Language {
    /// C.
    C,
    /// C++20.
    #[serde(rename = "c++")]
    Cpp,
    /// Go.
    Go,
    /// JavaScript.
    Javascript,
    /// Python.
    Python,
    /// TypeScript.
    Typescript,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::C, Self::Cpp, Self::Go, Self::Javascript, Self::Python, Self::Typescript];

    /// Its name in `plugin.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cpp => "c++",
            Self::Go => "go",
            Self::Javascript => "javascript",
            Self::Python => "python",
            Self::Typescript => "typescript",
        }
    }

    /// What a person types for it.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Some(match text {
            "c" => Self::C,
            "c++" | "cpp" | "cxx" => Self::Cpp,
            "go" | "golang" => Self::Go,
            "javascript" | "js" => Self::Javascript,
            "python" | "py" => Self::Python,
            "typescript" | "ts" => Self::Typescript,
            _ => return None,
        })
    }

    /// How people write it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Cpp => "C++",
            Self::Go => "Go",
            Self::Javascript => "JavaScript",
            Self::Python => "Python",
            Self::Typescript => "TypeScript",
        }
    }

    /// The folder of its SDK: C++ is within C, TypeScript within JavaScript.
    #[must_use]
    pub const fn sdk(self) -> &'static str {
        match self {
            Self::C | Self::Cpp => "c",
            Self::Go => "go",
            Self::Javascript | Self::Typescript => "javascript",
            Self::Python => "python",
        }
    }

    /// The operator's file unless the manifest names another.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::C => "main.c",
            Self::Cpp => "main.cpp",
            Self::Go => "main.go",
            Self::Javascript => "main.js",
            Self::Python => "main.py",
            Self::Typescript => "main.ts",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// A world of `wasmill:operator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// An operator without state and timers.
    Stateless,
    /// An operator with state and timers.
    Stateful,
    /// An aggregate for windows.
    Windowed,
}

impl World {
    /// Its name in the interface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::Stateful => "stateful",
            Self::Windowed => "windowed",
        }
    }
}

/// A plugin project in a language other than Rust.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its folder.
    pub dir: PathBuf,
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// What it is written in.
    pub language: Language,
    /// Which world it implements.
    pub world: World,
    /// The operator's file, within `dir`.
    pub source: PathBuf,
    /// The folder of the SDK, as `plugin-sdk/` has it.
    pub sdk: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    version: String,
    language: Language,
    world: World,
    source: Option<PathBuf>,
    sdk: Option<PathBuf>,
}

impl Project {
    /// Whether a folder has a `plugin.toml`.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        dir.join(MANIFEST).is_file()
    }

    /// Reads the project in a folder.
    ///
    /// # Errors
    /// The manifest cannot be read or says what it cannot say, or what it names is not there.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(MANIFEST);
        let text =
            fs::read_to_string(&path).map_err(|source| Error::File { act: "read", path: path.clone(), source })?;
        let wrong = |reason: String| Error::Project { path: path.clone(), reason };
        let manifest: Manifest = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let Manifest { name, version, language, world, source, sdk } = manifest;
        let fits = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !fits(&name) {
            return Err(wrong(format!("name = {name:?}: expected letters, digits and '-'")));
        }
        let source = source.unwrap_or_else(|| language.source().into());
        if !dir.join(&source).is_file() {
            let given = source.display();
            return Err(wrong(format!("there is no file {given}: name the operator's with source = \"…\"")));
        }
        let sdk = dir.join(sdk.unwrap_or_else(|| "sdk".into()));
        if !sdk.join(language.sdk()).is_dir() {
            let (shown, part) = (sdk.display(), language.sdk());
            return Err(wrong(format!(
                "there is no {part} SDK in {shown}: copy sdk/ from a project of `wasmill new`, or name it with sdk = \"…\""
            )));
        }
        Ok(Self { dir: dir.to_owned(), name, version, language, world, source, sdk })
    }

    /// The SDK of its language.
    pub(crate) fn own_sdk(&self) -> PathBuf {
        self.sdk.join(self.language.sdk())
    }

    /// The folder of what a build leaves for the next.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.join("target/build")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(manifest: &str) -> Result<Project, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("sdk/c")).expect("made");
        for (name, text) in [("main.c", ""), (MANIFEST, manifest)] {
            fs::write(folder.path().join(name), text).expect("written");
        }
        Project::read(folder.path())
    }

    #[test]
    fn manifest_is_read_and_defaults_are_the_languages() {
        let text = "name = \"a-b\"\nversion = \"1\"\nlanguage = \"c\"\nworld = \"stateful\"";
        let project = read(text).expect("a project");
        assert_eq!((project.language, project.world), (Language::C, World::Stateful));
        assert_eq!(project.source, Path::new("main.c"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = "name = \"a\"\nversion = \"1\"\nlanguage = \"c\"\nworld = \"stateful\"";
        for (from, to, expected) in [
            ("\"c\"", "\"cobol\"", "unknown variant `cobol`"),
            ("\"stateful\"", "\"flat\"", "unknown variant `flat`"),
            ("\"a\"", "\"../a\"", "expected letters"),
            ("version", "vresion", "unknown field `vresion`"),
            ("\"c\"", "\"python\"", "there is no file main.py"),
        ] {
            let error = read(&good.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
