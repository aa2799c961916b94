use std::fmt::{self, Write};

use serde::Serialize;
use wasmill_model::{Clock, Descriptor, NodeName, PaneMode, Trigger, WindowShape, WindowSpec};
use wasmill_spec::{ByteSize, Delivery, JobSpec, NodeSpec, Period};

use crate::delivery::Shown;
use crate::{Facts, Guarantee, Planned, Routing, WeakestLink};

/// Most paths that are shown one by one.
const PATHS_MAX: usize = 1_000;

/// How a job will run and what it promises: text for people by `Display`, and JSON by serde.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    job: String,
    /// What the job file asks for.
    asked: Option<Delivery>,
    /// What all paths together give.
    gives: Guarantee,
    epoch_interval: Period,
    epoch_bytes: ByteSize,
    latency_goal: Period,
    dead_letters: Option<String>,
    paths: Vec<PathText>,
    paths_left_out: usize,
    chains: Vec<ChainText>,
    exchanges: Vec<ExchangeText>,
    nodes: Vec<NodeText>,
}

#[derive(Debug, Clone, Serialize)]
struct PathText {
    source: NodeName,
    through: Vec<NodeName>,
    sink: NodeName,
    gives: Guarantee,
    weakest_link: Option<WeakestLink>,
    reason: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct ChainText {
    nodes: Vec<NodeName>,
    tasks: u16,
}

#[derive(Debug, Clone, Serialize)]
struct ExchangeText {
    from: NodeName,
    output: Option<String>,
    to: NodeName,
    input: Option<String>,
    by: &'static str,
    key: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct NodeText {
    name: NodeName,
    kind: &'static str,
    /// The plugin or the connector.
    runs: String,
    /// Further facts, one each.
    facts: Vec<String>,
}

impl Explanation {
    /// Explains a planned job.
    #[must_use]
    pub fn new(job: &JobSpec, facts: &Facts, planned: &Planned) -> Self {
        let plan = &planned.plan;
        let mode = job.delivery.unwrap_or(Delivery::ExactlyOnce);
        let name = |place: usize| plan.nodes[place].name.clone();
        let paths = planned.paths.iter().take(PATHS_MAX).map(|path| PathText {
            source: name(path.source),
            through: plan.between(path.source, path.sink).into_iter().map(name).collect(),
            sink: name(path.sink),
            gives: path.verdict.gives,
            weakest_link: path.verdict.weakest,
            reason: path.verdict.reason,
        });
        let chains = plan.chains.iter().map(|chain| ChainText {
            nodes: chain.nodes.iter().copied().map(name).collect(),
            tasks: chain.parallelism,
        });
        let exchanges = plan.edges.iter().filter(|edge| edge.routing != Routing::Local).map(|edge| ExchangeText {
            from: name(edge.from),
            output: port_name(facts.stages.get(&name(edge.from)).map(|plugin| &plugin.outputs), edge.output),
            to: name(edge.to),
            input: port_name(facts.stages.get(&name(edge.to)).map(|plugin| &plugin.inputs), edge.input),
            by: match edge.routing {
                Routing::Forward => "task to the same task",
                Routing::Keyed | Routing::Local => "key group",
                Routing::Split => "lane of a convoy",
                Routing::Merged => "key group, merged in order",
            },
            key: edge.key.as_ref().map(ToString::to_string),
        });
        Self {
            job: job.name.to_string(),
            asked: job.delivery,
            gives: planned.gives(),
            epoch_interval: job.epoch.interval,
            epoch_bytes: job.epoch.bytes,
            latency_goal: job.latency_goal,
            dead_letters: job.dead_letters.clone(),
            paths: paths.collect(),
            paths_left_out: planned.paths.len().saturating_sub(PATHS_MAX),
            chains: chains.collect(),
            exchanges: exchanges.collect(),
            nodes: (plan.nodes.iter())
                .filter_map(|node| Some(node_text(&node.name, job.node(&node.name)?, facts, mode)))
                .collect(),
        }
    }
}

/// The name of a port where there are several to tell apart.
pub(crate) fn port_name(names: Option<&Vec<String>>, port: u16) -> Option<String> {
    names.filter(|names| names.len() > 1)?.get(usize::from(port)).cloned()
}

/// Windows in words.
#[must_use]
pub fn window_text(WindowSpec { shape, firing }: WindowSpec) -> String {
    let mut text = match shape {
        WindowShape::Tumbling { size_micros } => format!("tumbling {}", period(size_micros)),
        WindowShape::Sliding { size_micros, slide_micros } => {
            format!("sliding {} every {}", period(size_micros), period(slide_micros))
        }
        WindowShape::Session { gap_micros } => format!("sessions, gap {}", period(gap_micros)),
        WindowShape::Count { rows, every } if rows == every => format!("every {rows} events"),
        WindowShape::Count { rows, every } => format!("{rows} events every {every}"),
        WindowShape::Global => "one window".to_owned(),
    };
    let mut say = |what: String| text.extend([", ", &what]);
    firing.early.into_iter().for_each(|trigger| say(format!("early {}", trigger_text(trigger))));
    if firing.lateness_micros > 0 {
        say(format!("lateness {}", period(firing.lateness_micros)));
    }
    firing.late.into_iter().for_each(|trigger| say(format!("late {}", trigger_text(trigger))));
    if firing.early.is_some() || firing.lateness_micros > 0 {
        say(match firing.panes {
            PaneMode::Discard => "discarding".to_owned(),
            PaneMode::Accumulate => "accumulating".to_owned(),
            PaneMode::Retract => "retracting".to_owned(),
        });
    }
    text
}

fn period(micros: i64) -> Period {
    Period::from_micros(micros.unsigned_abs())
}

fn trigger_text(Trigger { rows, every_micros, wall_micros }: Trigger) -> String {
    let rows = rows.map(|rows| if rows == 1 { "with each event".to_owned() } else { format!("after {rows} events") });
    let every = every_micros.map(|micros| format!("every {}", period(micros)));
    let wall = wall_micros.map(|micros| format!("every {} of the wall clock", period(micros)));
    let all: Vec<String> = rows.into_iter().chain(every).chain(wall).collect();
    all.join(" or ")
}

fn node_text(name: &NodeName, node: NodeSpec<'_>, facts: &Facts, asked: Delivery) -> NodeText {
    let mut text = NodeText { name: name.clone(), kind: node.section(), runs: String::new(), facts: Vec::new() };
    let say = &mut text.facts;
    match node {
        NodeSpec::Source(source) => {
            text.runs.clone_from(&source.connector);
            if let Some(known) = facts.sources.get(name) {
                say.push(if known.bounded { "ends by itself" } else { "goes on until stopped" }.to_owned());
                say.push(if known.replayable { "can be read again" } else { "cannot be read again" }.to_owned());
            }
            say.push(match &source.key {
                Some(key) => format!("key {key}"),
                None => "key from the connector".to_owned(),
            });
            say.push(match &source.time {
                Some(time) => format!("time {} ({})", time.field, time.unit),
                None => "time from the connector".to_owned(),
            });
            say.push(match &source.watermark.from {
                Some(from) => format!("watermark of {from}"),
                None => format!("watermark {} behind the latest event", source.watermark.bound),
            });
            say.extend(source.watermark.idle.map(|idle| format!("idle after {idle}")));
            say.extend(source.watermark.align.as_ref().map(|align| match &align.group {
                Some(group) => format!("at most {} ahead of group {group}", align.within),
                None => format!("at most {} ahead of the slowest", align.within),
            }));
        }
        NodeSpec::Stage(stage) => {
            text.runs = stage.plugin.to_string();
            say.extend(facts.stages.get(name).map(|plugin| format!("{} {}", plugin.name, plugin.version)));
            say.extend(stage.inputs.iter().filter_map(|input| {
                let key = input.key.as_ref()?;
                Some(if stage.inputs.len() == 1 {
                    format!("key {key}")
                } else {
                    format!("key {key} of {}", input.from)
                })
            }));
            say.extend(stage.window.map(window_text));
            if let Some(plugin) = facts.stages.get(name) {
                state_text(plugin, say);
            }
            say.extend(stage.limits.memory.map(|memory| format!("memory at most {memory}")));
            say.extend(stage.limits.call.map(|call| format!("a call at most {call}")));
        }
        NodeSpec::Sink(sink) => {
            text.runs.clone_from(&sink.connector);
            if let Some(known) = facts.sinks.get(name) {
                let when = match known.shown(asked, facts.recovery) {
                    Shown::AtOnce => "rows appear at once",
                    Shown::BehindEpoch => "rows leave once their epoch is committed",
                    Shown::WithEpoch => "rows appear with their epoch",
                    Shown::Deduplicated => "rows are delivered after their epoch, each with an id",
                };
                say.push(when.to_owned());
            }
        }
    }
    text
}

fn state_text(plugin: &Descriptor, say: &mut Vec<String>) {
    for space in &plugin.spaces {
        let lives = space.ttl.map_or_else(String::new, |ttl| {
            let clock = match ttl.clock {
                Clock::Event => "event time",
                Clock::Processing => "wall time",
            };
            format!(" for {} of {clock}", Period::from_micros(ttl.micros))
        });
        say.push(format!("state `{}` v{}{lives}", space.name, space.schema_version));
    }
    if plugin.timed {
        say.push("timers".to_owned());
    }
}

fn joined<T: fmt::Display>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    let mut text = String::new();
    for (place, item) in items.into_iter().enumerate() {
        // Writing to a string does not fail.
        let _never = write!(text, "{}{item}", if place == 0 { "" } else { between });
    }
    text
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "job {}", self.job)?;
        let asked = self.asked.map_or_else(|| "nothing asked for".to_owned(), |asked| format!("{asked} asked for"));
        let gives = if self.paths.iter().all(|path| path.gives == self.gives) {
            self.gives.to_string()
        } else {
            "differs from path to path".to_owned()
        };
        writeln!(f, "  delivery   {gives} ({asked})")?;
        writeln!(f, "  epoch      every {} or {}", self.epoch_interval, self.epoch_bytes)?;
        writeln!(f, "  batches    wait at most {}", self.latency_goal)?;
        let dead_letters = self.dead_letters.as_deref().unwrap_or("are counted and dropped");
        writeln!(f, "  rejected   {dead_letters}")?;
        writeln!(f, "\npaths")?;
        for path in &self.paths {
            let nodes = std::iter::once(&path.source).chain(&path.through).chain([&path.sink]);
            writeln!(f, "  {}", joined(nodes, " ▸ "))?;
            writeln!(f, "    {}: {}", path.gives, path.reason)?;
            match path.weakest_link {
                Some(WeakestLink::Source) => writeln!(f, "    weakest link: source {}", path.source)?,
                Some(WeakestLink::Sink) => writeln!(f, "    weakest link: sink {}", path.sink)?,
                Some(WeakestLink::Recovery) => writeln!(f, "    weakest link: recovery")?,
                Some(WeakestLink::Asked) => writeln!(f, "    weakest link: none; `delivery` asks for no more")?,
                None => {}
            }
        }
        if self.paths_left_out > 0 {
            writeln!(f, "  and {} more", self.paths_left_out)?;
        }
        writeln!(f, "\ntasks")?;
        for chain in &self.chains {
            writeln!(f, "  {:>3} ×  {}", chain.tasks, joined(&chain.nodes, " ▸ "))?;
        }
        if !self.exchanges.is_empty() {
            writeln!(f, "\nexchanges")?;
        }
        for exchange in &self.exchanges {
            let end = |node: &NodeName, port: &Option<String>| match port {
                Some(port) => format!("{node}.{port}"),
                None => node.to_string(),
            };
            let (from, to) = (end(&exchange.from, &exchange.output), end(&exchange.to, &exchange.input));
            let key = exchange.key.as_ref().map_or_else(String::new, |key| format!(", new key {key}"));
            writeln!(f, "  {from} ══▶ {to}  by {}{key}", exchange.by)?;
        }
        writeln!(f, "\nnodes")?;
        let width = |of: fn(&NodeText) -> usize| self.nodes.iter().map(of).max().unwrap_or(0);
        let (names, runs) = (width(|n| n.name.as_str().len()), width(|n| n.runs.chars().count()).min(40));
        for node in &self.nodes {
            let line = format!(
                "  {:<6} {:<names$}  {:<runs$}  {}",
                node.kind,
                node.name.as_str(),
                node.runs,
                joined(&node.facts, " · ")
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
