//! Whether a plugin can take the place of another, and what is different.

use serde::Serialize;
use wasmill_contract::{OperatorContext, OperatorError, OperatorFactory, Share};
use wasmill_model::{Descriptor, Entries, NodeName, SpaceDescriptor};
use wasmill_store::{MemoryState, StateBackend};

/// What a difference means for a stage that has run with the old plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The new plugin can take over while the job runs.
    Swap,
    /// The same, and its `migrate` turns the state of the old one into its own.
    Migrate,
    /// It can take over when the job is started again with it in the job file.
    Restart,
    /// It cannot go on from what the old one has left.
    Refuse,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about: `kind`, `input`, `output`, `space` and so on.
    pub what: &'static str,
    /// The difference in words.
    pub reason: String,
    /// What it means.
    pub verdict: Verdict,
}

/// A space whose entries a plugin does not take over, and its words.
pub type Unknown = (String, String);

/// Asks a plugin whether it knows the schema versions that the spaces of another have: those that it
/// does not.
///
/// # Errors
/// Where the plugin cannot be opened or asked.
pub async fn ask(old: &Descriptor, factory: &dyn OperatorFactory) -> Result<Vec<Unknown>, OperatorError> {
    let new = factory.descriptor();
    let migrations = new.migrations_from(&old.spaces);
    if migrations.is_empty() || !new.migrates {
        return Ok(Vec::new());
    }
    let mut state = MemoryState::default();
    state.declare(&new.spaces);
    let stage = NodeName::new("plugin").map_err(|error| OperatorError::Instance(error.to_string()))?;
    let context = OperatorContext::new(stage, Share::WHOLE, Box::new(state));
    let mut operator = factory.open(context).await.map_err(|failed| failed.cause)?;
    let mut unknown = Vec::new();
    for migration in migrations {
        match operator.migrate(migration.space, migration.from_version, &Entries::default()).await {
            Ok(_) => {}
            Err(OperatorError::Fatal { reason, .. } | OperatorError::Retry { reason, .. }) => {
                unknown.push((new.spaces[usize::from(migration.space)].name.clone(), reason));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(unknown)
}

/// Every difference that matters, the worst verdict first. Pure. Ports count by their place, as the
/// graph of a running job has them; state spaces by their place, name, schema and lifetime. `unknown`
/// is what the new one has said when [`ask`]ed.
#[must_use]
pub fn compare(old: &Descriptor, new: &Descriptor, unknown: &[Unknown]) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |what, verdict, reason| found.push(Difference { what, reason, verdict });
    if old.aggregate != new.aggregate {
        let kind = |aggregate| if aggregate { "an aggregate for windows" } else { "an operator" };
        let reason = format!("the old one is {}, the new one {}", kind(old.aggregate), kind(new.aggregate));
        add("kind", Verdict::Refuse, reason);
    }
    if old.name != new.name {
        // Nothing but the name says whose accumulators a window holds.
        let verdict = if old.aggregate { Verdict::Refuse } else { Verdict::Swap };
        add("name", verdict, format!("it calls itself {:?}, the old one {:?}", new.name, old.name));
    }
    if old.version != new.version {
        add("version", Verdict::Swap, format!("{} becomes {}", old.version, new.version));
    }
    for (what, old, new) in [("input", &old.inputs, &new.inputs), ("output", &old.outputs, &new.outputs)] {
        for (place, name) in old.iter().enumerate() {
            match new.get(place) {
                Some(now) if now == name => {}
                Some(now) => add(what, Verdict::Refuse, format!("port {place} was {name:?} and is {now:?}")),
                None => add(what, Verdict::Refuse, format!("port {place}, {name:?}, is gone")),
            }
        }
        for name in new.iter().skip(old.len()) {
            add(what, Verdict::Swap, format!("port {name:?} is new: nothing is joined to it"));
        }
    }
    if old.timed && !new.timed {
        add("timers", Verdict::Refuse, "the new one has no timers, and those of the old one may be set".to_owned());
    }
    for (what, reason, verdict) in spaces(&old.spaces, new, unknown) {
        add(what, verdict, reason);
    }
    found.sort_by_key(|difference| std::cmp::Reverse(difference.verdict));
    found
}

fn spaces(old: &[SpaceDescriptor], plugin: &Descriptor, unknown: &[Unknown]) -> Vec<(&'static str, String, Verdict)> {
    let new = &plugin.spaces;
    let mut found = Vec::new();
    let mut add = |verdict, reason| found.push(("space", reason, verdict));
    for space in old {
        let name = &space.name;
        let Some(now) = new.iter().find(|now| now.name == *name) else {
            add(Verdict::Restart, format!("{name:?} is gone: its state is forgotten with --allow-dropped"));
            continue;
        };
        if now.schema_version != space.schema_version {
            let reason =
                format!("{name:?} has schema {}, its state schema {}", now.schema_version, space.schema_version);
            match unknown.iter().find(|(unknown, _)| unknown == name) {
                Some((_, words)) => add(Verdict::Refuse, format!("{reason}: {words}")),
                None if plugin.migrates => add(Verdict::Migrate, format!("{reason}: through migrate")),
                None => add(Verdict::Refuse, format!("{reason}, and it exports no `migration`")),
            }
        }
        if now.ttl != space.ttl {
            add(Verdict::Restart, format!("entries of {name:?} have another lifetime"));
        }
    }
    for space in new.iter().filter(|space| !old.iter().any(|old| old.name == space.name)) {
        add(Verdict::Restart, format!("{:?} is new", space.name));
    }
    let names = |spaces: &[SpaceDescriptor]| spaces.iter().map(|space| space.name.clone()).collect::<Vec<_>>();
    if found.iter().all(|(.., verdict)| *verdict == Verdict::Migrate) && names(old) != names(new) {
        found.push(("space", "they stand in another order".to_owned(), Verdict::Restart));
    }
    found
}

/// The worst of all differences.
#[must_use]
pub fn verdict(differences: &[Difference]) -> Verdict {
    differences.iter().map(|difference| difference.verdict).max().unwrap_or(Verdict::Swap)
}

#[cfg(test)]
mod tests {
    use wasmill_model::{Clock, ColumnSet, Ttl};

    use super::*;

    fn space(name: &str, schema_version: u32) -> SpaceDescriptor {
        SpaceDescriptor { name: name.into(), schema_version, ttl: None }
    }

    fn plugin() -> Descriptor {
        Descriptor {
            name: "p".into(),
            version: "1.0.0".into(),
            inputs: vec!["in".into()],
            outputs: vec!["out".into()],
            spaces: vec![space("a", 1), space("b", 2)],
            columns: ColumnSet::ALL,
            watermarks: false,
            timed: true,
            aggregate: false,
            migrates: false,
        }
    }

    /// What comes of one change.
    fn after(change: impl FnOnce(&mut Descriptor)) -> (Verdict, Vec<&'static str>) {
        let mut new = plugin();
        change(&mut new);
        let found = compare(&plugin(), &new, &[]);
        (verdict(&found), found.iter().map(|difference| difference.what).collect())
    }

    #[test]
    fn every_difference_has_its_verdict() {
        assert_eq!(after(|_| {}), (Verdict::Swap, vec![]));
        assert_eq!(after(|new| new.version = "2.0.0".into()), (Verdict::Swap, vec!["version"]));
        assert_eq!(after(|new| new.name = "q".into()), (Verdict::Swap, vec!["name"]));
        assert_eq!(after(|new| new.columns.times = false), (Verdict::Swap, vec![]));
        assert_eq!(after(|new| new.outputs.push("more".into())), (Verdict::Swap, vec!["output"]));
        assert_eq!(after(|new| new.outputs[0] = "other".into()), (Verdict::Refuse, vec!["output"]));
        assert_eq!(after(|new| new.inputs.clear()), (Verdict::Refuse, vec!["input"]));
        assert_eq!(after(|new| new.timed = false), (Verdict::Refuse, vec!["timers"]));
        assert_eq!(after(|new| new.spaces[1].schema_version = 3), (Verdict::Refuse, vec!["space"]));
        assert_eq!(after(|new| drop(new.spaces.pop())), (Verdict::Restart, vec!["space"]));
        assert_eq!(after(|new| new.spaces.push(space("c", 1))), (Verdict::Restart, vec!["space"]));
        assert_eq!(after(|new| new.spaces.reverse()), (Verdict::Restart, vec!["space"]));
        let ttl = Some(Ttl { clock: Clock::Event, micros: 1 });
        assert_eq!(after(|new| new.spaces[0].ttl = ttl), (Verdict::Restart, vec!["space"]));
        let all = after(|new| (new.aggregate, new.version) = (true, "2".into()));
        assert_eq!(all, (Verdict::Refuse, vec!["kind", "version"]), "the worst comes first");
    }

    #[test]
    fn another_schema_goes_through_migrate_where_the_plugin_knows_it() {
        let schema = |new: &mut Descriptor| (new.migrates, new.spaces[1].schema_version) = (true, 3);
        assert_eq!(after(schema), (Verdict::Migrate, vec!["space"]));
        let order = |new: &mut Descriptor| {
            schema(new);
            new.spaces.reverse();
        };
        assert_eq!(after(order), (Verdict::Restart, vec!["space", "space"]));
        let mut new = plugin();
        schema(&mut new);
        let found = compare(&plugin(), &new, &[("b".into(), "no version 2".into())]);
        assert_eq!(verdict(&found), Verdict::Refuse);
        assert!(found[0].reason.ends_with("no version 2"), "{found:?}");
    }

    #[test]
    fn accumulators_belong_to_a_name() {
        let old = Descriptor { aggregate: true, spaces: vec![], timed: false, ..plugin() };
        let new = Descriptor { name: "q".into(), ..old.clone() };
        assert_eq!(verdict(&compare(&old, &new, &[])), Verdict::Refuse);
    }
}
