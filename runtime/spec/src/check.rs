//! What the tables say together: names, inputs, circles, loose ends.

use std::collections::{HashMap, HashSet};

use wasmill_model::NodeName;

use crate::job::{JobSpec, NodeSpec, PortRef, SourceSpec};
use crate::order::{OrderBy, OrderSpec};
use crate::read::Problems;
use crate::{Document, did_you_mean, listed};

/// Most sources, stages and sinks of a job.
const NODES_MAX: usize = 1_000;

/// Most inputs of all nodes together.
const INPUTS_MAX: usize = 10_000;

pub(crate) fn check(p: &mut Problems, job: &JobSpec, document: &Document) {
    if !within_limits(p, job, document) {
        return;
    }
    ends(p, job, document);
    unique_names(p, job, document);
    inputs(p, job, document);
    orders(p, job);
    aligned(p, job, document);
    watermarks_from(p, job, document);
    circles(p, job);
    // An input that leads nowhere makes loose ends that are none.
    if p.is_empty() {
        loose_ends(p, job, document);
    }
}

fn within_limits(p: &mut Problems, job: &JobSpec, document: &Document) -> bool {
    let nodes = job.nodes().count();
    let inputs: usize = job.nodes().map(|(_, node)| node.inputs().len()).sum();
    for (what, count, max) in [("nodes", nodes, NODES_MAX), ("inputs", inputs, INPUTS_MAX)] {
        if count > max {
            let message = format!("a job has at most {max} {what}, this one has {count}");
            p.error(&document.locate(&["name"]), message, "split it into several jobs");
            return false;
        }
    }
    true
}

fn ends(p: &mut Problems, job: &JobSpec, document: &Document) {
    for (section, empty, example) in [
        ("source", job.sources.is_empty(), "connector = \"stdin\""),
        ("sink", job.sinks.is_empty(), "connector = \"stdout\", input = \"NODE\""),
    ] {
        // A missing table is reported where tables are read, a broken one where it is broken.
        if let Some(item) = document.get(&[section])
            && matches!(&item.value, crate::document::Value::Table(table) if table.is_empty())
            && empty
        {
            p.error(&item.key, format!("the job has no {section}"), format!("add [{section}.NAME] with {example}"));
        }
    }
}

/// All names that the file has in one section, also those of broken tables.
fn written<'d>(document: &'d Document, section: &str) -> impl Iterator<Item = &'d str> {
    let table = match document.get(&[section]).map(|item| &item.value) {
        Some(crate::document::Value::Table(table)) => Some(table),
        _ => None,
    };
    table.into_iter().flat_map(|table| table.keys().map(String::as_str))
}

fn unique_names(p: &mut Problems, job: &JobSpec, document: &Document) {
    let mut seen: HashMap<&NodeName, &str> = HashMap::new();
    for (name, node) in job.nodes() {
        let section = node.section();
        if let Some(first) = seen.insert(name, section) {
            let (line, _) = document.source().position(document.locate(&[first, name.as_str()]).start);
            let message = format!("`{name}` is a {section} here and a {first} on line {line}");
            let hint = "sources, stages and sinks share their names: rename one";
            p.error(&document.locate(&[section, name.as_str()]), message, hint);
        }
    }
}

fn inputs(p: &mut Problems, job: &JobSpec, document: &Document) {
    for (name, node) in job.nodes() {
        let mut seen = HashSet::new();
        for input in node.inputs() {
            if p.is_full() {
                return;
            }
            let from = input.from.as_str();
            if !seen.insert((&input.from, &input.output, &input.port)) {
                let message = format!("`{from}` comes into `{name}` twice by the same port");
                p.error(&input.span, message, "delete one of the two");
            }
            match job.node(&input.from) {
                Some(NodeSpec::Sink(_)) => {
                    let hint = format!("read what sink `{from}` reads");
                    p.error(&input.span, format!("`{from}` is a sink: nothing comes out of it"), hint);
                }
                Some(NodeSpec::Source(_)) if input.output != PortRef::DEFAULT => {
                    let message = format!("source `{from}` has one output and no port `{}`", input.output);
                    p.error(&input.span, message, format!("write \"{from}\""));
                }
                Some(_) => {}
                // Broken and missing tables have a diagnostic of their own.
                None if ["source", "stage"].iter().all(|s| written(document, s).next().is_none()) => {}
                None if ["source", "stage"].iter().any(|s| written(document, s).any(|n| n == from)) => {}
                None => {
                    let known = || written(document, "source").chain(written(document, "stage"));
                    let hint = match did_you_mean(from, known().filter(|known| *known != name.as_str())) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None if known().count() <= 10 => format!("the job has {}", listed(known())),
                        None => "it is the name of a source or a stage".to_owned(),
                    };
                    p.error(&input.span, format!("`{name}` reads `{from}`, which does not exist"), hint);
                }
            }
        }
    }
}

/// Ordering buffers where there can be one: one for each input port of a stage.
fn orders(p: &mut Problems, job: &JobSpec) {
    for (name, node) in job.nodes() {
        for input in node.inputs() {
            let port = || node.inputs().iter().filter(|other| other.port == input.port);
            match (&input.order, node) {
                (Some(_), NodeSpec::Sink(_)) => {
                    let hint = "put it on the input of a stage in front of the sink";
                    p.error(&input.span, format!("sink `{name}` cannot order its input"), hint);
                }
                (Some(_), NodeSpec::Stage(stage)) if stage.ordered.is_some() => {
                    let message = format!("`{name}` is a convoy: each of its lanes would see a part of its input");
                    p.error(&input.span, message, "order the input of a stage in front of it");
                }
                (Some(OrderSpec { by: OrderBy::Sequence(order), .. }), NodeSpec::Stage(stage))
                    if !order.per_key && stage.parallelism > 1 =>
                {
                    let message = format!("each of the {} tasks of `{name}` would see a part of it", stage.parallelism);
                    let message = format!("one sequence cannot be followed: {message}");
                    p.error(&input.span, message, "write per = \"key\", or parallelism = 1");
                }
                _ => {}
            }
            if port().next().is_some_and(|first| first.order != input.order) {
                let message = format!("inputs of one port of `{name}` have different orders");
                p.error(&input.span, message, "one buffer orders all of them: write the same `order` for each");
            }
        }
    }
}

/// A source that is alone has nobody to wait for.
fn aligned(p: &mut Problems, job: &JobSpec, document: &Document) {
    for (name, source) in job.sources.iter().filter(|(_, source)| source.parallelism == 1) {
        let Some(align) = &source.watermark.align else { continue };
        let group = |other: &SourceSpec| other.watermark.align.as_ref().is_some_and(|of| of.group == align.group);
        if job.sources.values().filter(|other| group(other)).count() == 1 {
            let message = format!("no other source has `align` with the group of `{name}`: it waits for nobody");
            let hint = "write `align` for the sources that it meets too, with the same group";
            p.warning(&document.locate(&["source", name.as_str(), "watermark", "align"]), message, hint);
        }
    }
}

/// Sources that have the watermarks of another: there is such a source, it has its own, and one task.
fn watermarks_from(p: &mut Problems, job: &JobSpec, document: &Document) {
    for (name, source) in &job.sources {
        let Some(from) = &source.watermark.from else { continue };
        let span = document.locate(&["source", name.as_str(), "watermark", "from"]);
        let known = job.sources.keys().map(|source| source.as_str());
        match job.sources.get(from) {
            None => {
                let hint = match did_you_mean(from.as_str(), known.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the sources are {}", listed(known)),
                };
                p.error(&span, format!("there is no source `{from}`"), hint);
            }
            Some(_) if from == name => {
                p.error(&span, "a source cannot have its own watermarks from itself", "delete `from`");
            }
            Some(other) if other.watermark.from.is_some() => {
                let message = format!("source `{from}` has its watermarks from another one");
                p.error(&span, message, "name that one here");
            }
            Some(other) if other.parallelism > 1 => {
                let message = format!("source `{from}` has {} tasks", other.parallelism);
                p.error(&span, message, "watermarks come from one: write parallelism = 1 there");
            }
            Some(_) => {}
        }
    }
}

/// Takes away nodes with nothing in front of them until only circles, and what hangs behind them,
/// are left; reports one circle, takes it away, and goes on.
fn circles(p: &mut Problems, job: &JobSpec) {
    let mut left: HashSet<&NodeName> = job.nodes().map(|(name, _)| name).collect();
    loop {
        let in_front = |name: &NodeName, left: &HashSet<&NodeName>| {
            job.node(name).and_then(|node| node.inputs().iter().find(|input| left.contains(&input.from)))
        };
        loop {
            let free: Vec<&NodeName> = left.iter().copied().filter(|name| in_front(name, &left).is_none()).collect();
            if free.is_empty() {
                break;
            }
            free.iter().for_each(|name| {
                left.remove(name);
            });
        }
        // In the order of the file, so that messages do not depend on hashing.
        let Some(mut at) = job.nodes().map(|(name, _)| name).find(|name| left.contains(name)) else { return };
        let mut walked: Vec<&NodeName> = Vec::new();
        let circle = loop {
            if let Some(start) = walked.iter().position(|name| *name == at) {
                break walked.split_off(start);
            }
            walked.push(at);
            match in_front(at, &left) {
                Some(input) => at = &input.from,
                None => return,
            }
        };
        let Some(input) = in_front(circle[0], &left) else { return };
        let hint = "rows only go forward: let one of them read something else";
        let message = match circle.as_slice() {
            [only] => format!("`{only}` reads itself"),
            _ => format!("{} read each other in a circle", listed(circle.iter().rev().map(|name| name.as_str()))),
        };
        p.error(&input.span, message, hint);
        for name in circle {
            left.remove(name);
        }
    }
}

fn loose_ends(p: &mut Problems, job: &JobSpec, document: &Document) {
    let read = job.nodes().flat_map(|(_, node)| node.inputs()).map(|input| &input.from);
    let marks = job.sources.values().filter_map(|source| source.watermark.from.as_ref());
    let read: HashSet<&NodeName> = read.chain(marks).collect();
    for (name, node) in job.nodes() {
        let section = node.section();
        if section != "sink" && !read.contains(name) {
            let message = format!("nobody reads {section} `{name}`");
            let hint = format!("add `input = \"{name}\"` to a stage or a sink, or delete it");
            p.warning(&document.locate(&[section, name.as_str()]), message, hint);
        }
    }
}
