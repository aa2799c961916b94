//! What a job file that is deployed over another one changes. Pure.

use std::collections::BTreeMap;

use wasmill_model::{NodeName, PluginDigest};
use wasmill_spec::{JobSpec, NodeDifference, PluginRef};

/// A job file, and what names of plugins stand for in it.
pub(super) type Pinned<'a> = (&'a JobSpec, &'a BTreeMap<String, PluginDigest>);

/// The stages that have another plugin, and which, where nothing else differs. `None` where something does,
/// or nothing.
pub(super) fn only_plugins(before: Pinned<'_>, after: Pinned<'_>) -> Option<Vec<(NodeName, String)>> {
    let difference = before.0.difference(after.0);
    if !difference.job.is_empty() {
        return None;
    }
    let mut swaps = Vec::new();
    for (section, name, what) in difference.nodes {
        let only_plugin = match &what {
            NodeDifference::Same => true,
            NodeDifference::Changed(keys) => section == "stage" && keys.iter().all(|key| key == "plugin"),
            NodeDifference::Added | NodeDifference::Removed => false,
        };
        if !only_plugin {
            return None;
        }
        if let (Some(was), Some(is)) = (plugin(before, &name), plugin(after, &name))
            && was != is
        {
            swaps.push((name, is));
        }
    }
    (!swaps.is_empty()).then_some(swaps)
}

/// The plugin of a stage, as a swap is asked for it.
fn plugin((spec, pins): Pinned<'_>, stage: &NodeName) -> Option<String> {
    Some(match &spec.stages.get(stage)?.plugin {
        PluginRef::Path(named) => pins.get(named)?.to_string(),
        PluginRef::Standard(name) => format!("std:{name}"),
        PluginRef::Digest(digest) => digest.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_plugins_are_swapped() {
        let file = "name = \"a\"\n[source.in]\nconnector = \"stdin\"\n\
            [stage.one]\nplugin = \"count:1\"\ninput = \"in\"\n\
            [stage.two]\nplugin = \"std:filter\"\ninput = \"one\"\n[sink.out]\nconnector = \"stdout\"\ninput = \"two\"\n";
        let spec = |text: &str| wasmill_spec::parse("job.toml", text.as_bytes()).expect("a job file");
        let pins = |digest| BTreeMap::from([("count:1".to_owned(), PluginDigest([digest; 32]))]);
        let (old, one, two) = (spec(file), pins(1), pins(2));
        let swaps = |new: &str, pins| {
            let swaps = only_plugins((&old, &one), (&spec(new), pins))?;
            Some(swaps.into_iter().map(|(stage, plugin)| (stage.to_string(), plugin)).collect::<Vec<_>>())
        };
        assert_eq!(swaps(file, &one), None, "nothing differs");
        // The tag has moved.
        assert_eq!(swaps(file, &two), Some(vec![("one".to_owned(), PluginDigest([2; 32]).to_string())]));
        let mapped = file.replace("std:filter", "std:map");
        assert_eq!(swaps(&mapped, &one), Some(vec![("two".to_owned(), "std:map".to_owned())]));
        let wider = mapped.replace("input = \"one\"", "input = \"one\"\nparallelism = 2");
        assert_eq!(swaps(&wider, &one), None);
        assert_eq!(swaps(&format!("delivery = \"at-least-once\"\n{mapped}"), &one), None);
        assert_eq!(swaps(&mapped.replace("sink.out", "sink.other"), &one), None);
    }
}
