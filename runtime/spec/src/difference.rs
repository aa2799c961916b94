//! What is different between two versions of a job file, key by key. Pure.

use std::collections::BTreeSet;

use wasmill_model::NodeName;

use crate::JobSpec;

/// What became of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeDifference {
    /// It is there in both, with the same table.
    Same,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// These keys of its table are new, gone or have other values.
    Changed(BTreeSet<String>),
}

/// What is different between two job files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDifference {
    /// Keys of the job itself that are new, gone or have other values.
    pub job: BTreeSet<String>,
    /// Its nodes: `source`, `stage` or `sink`, and the name; those of the new file in its order, then those
    /// that are gone.
    pub nodes: Vec<(&'static str, NodeName, NodeDifference)>,
}

const SECTIONS: [&str; 3] = ["source", "stage", "sink"];

impl JobSpec {
    /// What another version of the job file has that this one has not, and the other way round. The order of
    /// keys, comments and the way a value is written do not count.
    #[must_use]
    pub fn difference(&self, new: &Self) -> JobDifference {
        let (before, after) = (self.document.to_toml(), new.document.to_toml());
        let mut job = keys(&before, &after);
        job.retain(|key| !SECTIONS.contains(&key.as_str()));
        let table = |of: &toml::Table, section: &str, name: &NodeName| {
            let node = of.get(section).and_then(|nodes| nodes.get(name.as_str()));
            node.and_then(toml::Value::as_table).cloned().unwrap_or_default()
        };
        let mut nodes: Vec<_> = (new.nodes())
            .map(|(name, node)| {
                let section = node.section();
                let known = self.node(name).is_some_and(|node| node.section() == section);
                let changed = keys(&table(&before, section, name), &table(&after, section, name));
                let difference = match (known, changed.is_empty()) {
                    (false, _) => NodeDifference::Added,
                    (true, true) => NodeDifference::Same,
                    (true, false) => NodeDifference::Changed(changed),
                };
                (section, name.clone(), difference)
            })
            .collect();
        let gone = self.nodes().filter(|(name, node)| {
            let section = node.section();
            new.node(name).is_none_or(|node| node.section() != section)
        });
        nodes.extend(gone.map(|(name, node)| (node.section(), name.clone(), NodeDifference::Removed)));
        JobDifference { job, nodes }
    }
}

/// The keys under which two tables have different values.
fn keys(before: &toml::Table, after: &toml::Table) -> BTreeSet<String> {
    let all = before.keys().chain(after.keys());
    all.filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "name = \"a\"\nepoch = { interval = \"1s\" }\n\
        [source.in]\nconnector = \"stdin\"\n\
        [stage.one]\nplugin = \"one.wasm\"\ninput = \"in\"\n\
        [sink.out]\nconnector = \"stdout\"\ninput = \"one\"\n";

    fn spec(text: &str) -> JobSpec {
        crate::parse("job.toml", text.as_bytes()).expect("a job file")
    }

    #[test]
    fn a_difference_is_told_key_by_key() {
        let old = spec(JOB);
        let same = old.difference(&spec(&format!("# said otherwise\n{}", JOB.replace(" = ", "="))));
        assert!(same.job.is_empty() && same.nodes.iter().all(|node| node.2 == NodeDifference::Same), "{same:?}");
        let new = JOB
            .replace("1s", "2s")
            .replace("plugin = \"one.wasm\"", "plugin = \"two.wasm\"\nparallelism = 2")
            .replace("sink.out", "sink.other");
        let found = old.difference(&spec(&new));
        assert_eq!(found.job, ["epoch".to_owned()].into());
        let said: Vec<_> = found.nodes.iter().map(|(section, name, what)| (*section, name.as_str(), what)).collect();
        let changed = NodeDifference::Changed(["parallelism".to_owned(), "plugin".to_owned()].into());
        assert_eq!(
            said,
            [
                ("source", "in", &NodeDifference::Same),
                ("stage", "one", &changed),
                ("sink", "other", &NodeDifference::Added),
                ("sink", "out", &NodeDifference::Removed),
            ]
        );
    }
}
