//! The folder of a case.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wasmill_model::{Descriptor, WindowSpec};
use wasmill_spec::{Diagnostic, parse_case};

use super::line::{InputLine, OutputLine};

/// Largest file of a case: it is read whole.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A case, its input still unread: reading it takes the names of the plugin's ports.
#[derive(Debug)]
pub(super) struct Case {
    folder: PathBuf,
    /// As JSON, empty where there is none.
    pub(super) config: Vec<u8>,
    pub(super) window: Option<WindowSpec>,
}

/// `case.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    config: Option<serde_json::Value>,
    /// Read by [`parse_case`].
    #[serde(rename = "window")]
    _window: Option<toml::Value>,
}

impl Case {
    /// Reads `config.json` and `case.toml`, both of which may be missing.
    pub(super) fn read(folder: &Path) -> Result<Self, String> {
        let (mut settings, mut window) = (Settings::default(), None);
        if let Some(text) = read(&folder.join("case.toml"))? {
            settings = toml::from_str(&text).map_err(|error| format!("case.toml: {}", error.message()))?;
            window = parse_case("case.toml", text.as_bytes()).map_err(|wrong| listed(&wrong))?;
        }
        let config = match (read(&folder.join("config.json"))?, settings.config) {
            (Some(_), Some(_)) => return Err("config.json and `config` in case.toml say the same: keep one".into()),
            (Some(text), None) => {
                serde_json::from_str::<serde_json::Value>(&text).map_err(|error| format!("config.json: {error}"))?;
                text.into_bytes()
            }
            (None, Some(config)) => config.to_string().into_bytes(),
            (None, None) => Vec::new(),
        };
        Ok(Self { folder: folder.to_owned(), config, window })
    }

    /// The lines of `input.jsonl`.
    pub(super) fn input(&self, plugin: &Descriptor) -> Result<Vec<InputLine>, String> {
        let text = read(&self.folder.join("input.jsonl"))?
            .ok_or_else(|| format!("{} is missing", self.folder.join("input.jsonl").display()))?;
        lines("input.jsonl", &text, |line| InputLine::read(line, plugin))
    }

    /// The lines of `output.jsonl`, if it exists.
    pub(super) fn output(&self, plugin: &Descriptor) -> Result<Option<Vec<OutputLine>>, String> {
        let text = self.output_text()?;
        text.map(|text| lines("output.jsonl", &text, |line| OutputLine::read(line, plugin))).transpose()
    }

    pub(super) fn output_text(&self) -> Result<Option<String>, String> {
        read(&self.output_path())
    }

    pub(super) fn output_path(&self) -> PathBuf {
        self.folder.join("output.jsonl")
    }

    pub(super) fn write_output(&self, text: &str) -> Result<(), String> {
        let path = self.output_path();
        std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

/// A file of a case, if it exists.
fn read(path: &Path) -> Result<Option<String>, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    match std::fs::metadata(path) {
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            Err(format!("{} is larger than {FILE_BYTES_MAX} bytes: a case is small", path.display()))
        }
        Ok(_) => std::fs::read_to_string(path).map(Some).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Every line, but for empty ones and those that begin with `#`.
/// What is wrong with `case.toml`, in one line each.
fn listed(wrong: &[Diagnostic]) -> String {
    let lines: Vec<String> = wrong
        .iter()
        .map(|wrong| match &wrong.hint {
            Some(hint) => format!("case.toml: {}: {hint}", wrong.message),
            None => format!("case.toml: {}", wrong.message),
        })
        .collect();
    lines.join("\n")
}

fn lines<T>(file: &str, text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(number, line)| read(line).map_err(|reason| format!("{file}:{}: {reason}", number + 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use wasmill_model::WindowShape;

    use super::*;

    fn case(files: &[(&str, &str)]) -> Result<Case, String> {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        Case::read(dir.path())
    }

    #[test]
    fn configuration_comes_from_one_of_two_files() {
        assert_eq!(case(&[]).expect("a case").config, b"");
        assert_eq!(case(&[("config.json", "{\"a\": 1}")]).expect("a case").config, b"{\"a\": 1}");
        let toml = "config = { a = 1 }\nwindow = { sliding = \"1m\", every = \"10s\" }";
        let both = case(&[("case.toml", toml)]).expect("a case");
        assert_eq!(both.config, b"{\"a\":1}");
        assert_eq!(
            both.window,
            Some(WindowShape::Sliding { size_micros: 60_000_000, slide_micros: 10_000_000 }.into())
        );
        assert!(case(&[("config.json", "{}"), ("case.toml", toml)]).is_err());
        for wrong in [
            "window = {}",
            "window = { tumbling = \"0s\" }",
            "windw = 1",
            "window = { sliding = \"1s\", every = \"2s\" }",
        ] {
            assert!(case(&[("case.toml", wrong)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        let read = |line: &str| line.parse::<u8>().map_err(|error| error.to_string());
        assert_eq!(lines("f", "1\n\n# two\n2\n", read), Ok(vec![1, 2]));
        assert_eq!(lines("f", "1\n\nx\n", read), Err("f:3: invalid digit found in string".into()));
    }
}
