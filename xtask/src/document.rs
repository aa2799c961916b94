//! Parts of documents that commands write: between `<!-- name -->` and `<!-- /name -->`.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::steps::say;

/// Puts `text` in the place of what stands between the marks of `name`.
pub(crate) fn replace(path: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let before = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let Some(after) = replaced(&before, name, text) else {
        bail!("{} has no part between <!-- {name} --> and <!-- /{name} -->", path.display());
    };
    if after != before {
        fs::write(path, after).with_context(|| format!("cannot write {}", path.display()))?;
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn replaced(document: &str, name: &str, text: &str) -> Option<String> {
    let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let from = document.find(&open)? + open.len();
    let to = from + document[from..].find(&close)?;
    Some(format!("{}\n{}\n{}", &document[..from], text.trim_end(), &document[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_marks_is_replaced() {
        let document = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        assert_eq!(replaced(document, "x", "new\n").as_deref(), Some("a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"));
        assert_eq!(replaced(document, "y", "new"), None);
    }
}
