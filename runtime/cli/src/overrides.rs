//! `--set KEY=VALUE`: one value of a job file, changed for one run.

use toml_edit::{DocumentMut, Item, Table, Value};

use crate::failure::Failure;

/// A key path and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Override {
    path: Vec<String>,
    value: String,
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE, such as source.x.path=data.jsonl")?;
        let path = toml_edit::Key::parse(key.trim())
            .map_err(|_| format!("{key:?} is not a key of a job file; write it with dots: source.x.path"))?;
        let path = path.into_iter().map(|key| key.get().to_owned()).collect();
        Ok(Self { path, value: value.trim().to_owned() })
    }
}

/// The job file with the values in place. Everything else stays where it is, so that errors keep
/// their lines.
pub(crate) fn apply(file: &str, bytes: Vec<u8>, overrides: &[Override]) -> Result<Vec<u8>, Failure> {
    if overrides.is_empty() {
        return Ok(bytes);
    }
    // A file that is not TOML gets its errors from the job's own parser.
    let Some(mut document) = str::from_utf8(&bytes).ok().and_then(|text| text.parse::<DocumentMut>().ok()) else {
        return Ok(bytes);
    };
    for change in overrides {
        set(document.as_item_mut(), change)
            .map_err(|reason| Failure::wrong(format!("--set {}: {reason} in {file}", change.path.join("."))))?;
    }
    Ok(document.to_string().into_bytes())
}

fn set(root: &mut Item, change: &Override) -> Result<(), String> {
    let Some((last, tables)) = change.path.split_last() else { return Err("there is no key".into()) };
    let mut at = root;
    for key in tables {
        let table = at.as_table_like_mut().ok_or_else(|| format!("`{key}` is not in a table"))?;
        at = table.entry(key).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
    }
    let table = at.as_table_like_mut().ok_or_else(|| format!("`{last}` is not in a table"))?;
    // A word that is no TOML value is a string, so that a shell needs no second pair of quotes.
    let mut value = change.value.parse::<Value>().unwrap_or_else(|_| Value::from(change.value.as_str()));
    if let Some(old) = table.get(last).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    table.insert(last, Item::Value(value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str =
        "name = \"j\" # the job\n\n[source.a]\nconnector = \"file\"\npath = \"x\"\nroll = { bytes = 1 }\n";

    fn applied(sets: &[&str]) -> String {
        let sets: Vec<Override> = sets.iter().map(|text| text.parse().expect("an override")).collect();
        String::from_utf8(apply("job.toml", JOB.into(), &sets).expect("applies")).expect("text")
    }

    #[test]
    fn one_value_changes_and_the_rest_stays() {
        assert_eq!(applied(&["source.a.path=/data/b.jsonl"]), JOB.replace("\"x\"", "\"/data/b.jsonl\""));
        assert_eq!(applied(&["source.a.path=\"1\""]), JOB.replace("\"x\"", "\"1\""));
        assert_eq!(applied(&["name=k"]), JOB.replace("\"j\"", "\"k\""));
        assert_eq!(applied(&["source.a.roll.bytes=2"]), JOB.replace("bytes = 1", "bytes = 2"));
        assert!(applied(&["epoch.interval=1s"]).contains("[epoch]\ninterval = \"1s\""));
        assert!(applied(&["source.a.parallelism=4"]).contains("parallelism = 4\n"));
    }

    #[test]
    fn what_cannot_be_set_is_said() {
        assert!("source.a.path".parse::<Override>().is_err());
        assert!("=1".parse::<Override>().is_err());
        let into_text: Override = "name.x=1".parse().expect("an override");
        assert!(matches!(apply("job.toml", JOB.into(), &[into_text]), Err(Failure::Said { code: 2, .. })));
    }
}
