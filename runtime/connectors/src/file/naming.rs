use std::path::{Path, PathBuf};

use wasmill_contract::Share;
use wasmill_model::Timestamp;

const DATE: &str = "{date}";
const DATE_LENGTH: usize = "2026-01-31".len();
pub(super) const PART: &str = ".part";

/// The names of a sink's files: `<stem>[-<share>][-<number>]<extension>`.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) directory: PathBuf,
    stem: String,
    extension: String,
    share: Share,
}

impl Names {
    /// The names for the option `path`, `None` where it names no file, or has `{date}` in a
    /// directory or twice.
    pub(super) fn new(base: &Path, path: &str, share: Share) -> Option<Self> {
        let path = base.join(path);
        let directory = path.parent()?.to_owned();
        let name = path.file_name()?.to_str()?;
        if directory.to_string_lossy().contains(DATE) || name.matches(DATE).count() > 1 || path.is_dir() {
            return None;
        }
        let dot = name.rfind('.').filter(|&dot| dot > 0 && !name[dot..].contains('}')).unwrap_or(name.len());
        let (stem, extension) = name.split_at(dot);
        Some(Self { directory, stem: stem.to_owned(), extension: extension.to_owned(), share })
    }

    pub(super) fn is_dated(&self) -> bool {
        self.stem.contains(DATE)
    }

    fn suffix(&self) -> String {
        if self.share.of > 1 { format!("-{}", self.share.index) } else { String::new() }
    }

    /// The name of a file begun at `now`.
    pub(super) fn name(&self, now: Timestamp, number: Option<u64>) -> String {
        let day = now.to_string();
        let stem = self.stem.replace(DATE, &day[..DATE_LENGTH.min(day.len())]);
        let number = number.map_or(String::new(), |number| format!("-{number}"));
        format!("{stem}{}{number}{}", self.suffix(), self.extension)
    }

    /// The number of a file of this share by its name without `.part`: `Some(None)` where it has
    /// none, `None` where it is another's.
    pub(super) fn number(&self, name: &str) -> Option<Option<u64>> {
        let rest = match self.stem.split_once(DATE) {
            None => name.strip_prefix(self.stem.as_str())?,
            Some((front, back)) => {
                let rest = name.strip_prefix(front)?;
                let (day, rest) = rest.split_at_checked(DATE_LENGTH)?;
                if !day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
                    return None;
                }
                rest.strip_prefix(back)?
            }
        };
        let rest = rest.strip_prefix(self.suffix().as_str())?.strip_suffix(self.extension.as_str())?;
        if rest.is_empty() {
            return Some(None);
        }
        let digits = rest.strip_prefix('-')?;
        (digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok().map(Some)).flatten()
    }

    /// Names and numbers of the files of this share that exist; the flag says `.part`.
    pub(super) fn existing(&self) -> std::io::Result<Vec<(String, Option<u64>, bool)>> {
        let mut files = Vec::new();
        for entry in self.directory.read_dir()? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let (whole, part) = name.strip_suffix(PART).map_or((name, false), |whole| (whole, true));
            if let Some(number) = self.number(whole) {
                files.push((whole.to_owned(), number, part));
            }
        }
        Ok(files)
    }

    /// For people: where the results are.
    pub(super) fn pattern(&self, numbered: bool) -> String {
        let number = if numbered { "-*" } else { "" };
        let stem = self.stem.replace(DATE, "*");
        self.directory.join(format!("{stem}{}{number}{}", self.suffix(), self.extension)).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_share_number_and_day_and_can_be_read_back() {
        let share = Share { index: 1, of: 2 };
        let names = Names::new(Path::new("/out"), "a-{date}.tar.jsonl", share).expect("valid");
        let now = Timestamp::from_millis(1_700_000_000_000);
        assert_eq!(names.name(now, Some(7)), "a-2023-11-14.tar-1-7.jsonl");
        assert_eq!(names.name(now, None), "a-2023-11-14.tar-1.jsonl");
        assert_eq!(names.number("a-2023-11-14.tar-1-7.jsonl"), Some(Some(7)));
        assert_eq!(names.number("a-2023-11-14.tar-1.jsonl"), Some(None));
        assert_eq!(names.number("a-2023-11-14.tar-0-7.jsonl"), None);
        assert_eq!(names.number("a-nine-chars.tar-1.jsonl"), None);
        assert!(Names::new(Path::new("/out"), "{date}/a", share).is_none());
        assert!(Names::new(Path::new("/"), "..", share).is_none());
    }
}
