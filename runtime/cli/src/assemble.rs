//! From a job file to what the engine runs.
//!
//! Everything that is wrong with the file is found before anything runs, and shown where it stands:
//! what the file alone tells, what connectors say about their options, what plugins say about
//! their configuration, what the planner says about the whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmill_connectors::{Fence, Site};
use wasmill_contract::{Bell, Bounds, OperatorError, OperatorFactory, SinkCapabilities, SinkFactory, SourceFactory};
use wasmill_engine::{JobSettings, NodePart};
use wasmill_env::{RealClock, RealDisk};
use wasmill_model::{NodeName, PartitionId, PluginDigest, Position};
use wasmill_plan::{Explanation, Facts, Picture, Planned, Recovery, SinkFacts, SourceFacts};
use wasmill_spec::{Diagnostic, JobSpec, PluginRef, connector_keys, did_you_mean};
use wasmill_store::{JobStore, Sequences, Topics};

use crate::failure::{self, Failure};
use crate::overrides::{self, Override};
use crate::plugins::{self, Plugins};

/// A job that can run.
pub(crate) struct Assembled {
    pub(crate) spec: JobSpec,
    pub(crate) planned: Planned,
    facts: Facts,
    sources: HashMap<NodeName, Arc<dyn SourceFactory>>,
    stages: HashMap<NodeName, Arc<dyn OperatorFactory>>,
    sinks: HashMap<NodeName, Arc<dyn SinkFactory>>,
}

/// Reads a job file. Rejected rows get a place where it names none.
pub(crate) fn read(file: &Path, sets: &[Override]) -> Result<JobSpec, Failure> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|error| {
        let failure = Failure::file("read the job file", file, &error);
        if file.is_dir() { failure.hint("name the job file in it, such as job.toml") } else { failure }
    })?;
    let mut spec = wasmill_spec::parse(&name, &overrides::apply(&name, bytes, sets)?).map_err(Failure::Job)?;
    // Here and not where it is used, so that `explain` says the same as `run` does.
    spec.dead_letters.get_or_insert_with(|| format!(".wasmill/{}/dead-letters.jsonl", spec.name));
    Ok(spec)
}

/// Where a job is assembled.
pub(crate) struct Place<'a> {
    /// The folder that paths of the job file start from; by default that of the file.
    pub(crate) base_dir: Option<&'a Path>,
    /// Where it keeps its state, if it does.
    pub(crate) state_dir: Option<&'a Path>,
    /// The topics there are.
    pub(crate) topics: &'a Topics,
    /// Where plugins are that are known by their digest.
    pub(crate) plugins: Option<&'a Path>,
    /// What the job may reach, where that is not everything.
    pub(crate) fence: Option<Arc<Fence>>,
}

/// Finds everything that a job names, and plans it.
pub(crate) async fn assemble(spec: JobSpec, plugins: &Plugins, place: &Place<'_>) -> Result<Assembled, Failure> {
    let Place { base_dir: base, state_dir, topics, plugins: store, fence } = place;
    let recovery = if state_dir.is_some() { Recovery::LastEpoch } else { Recovery::Nothing };
    let mut wrong = Vec::new();
    let mut facts = Facts { sources: HashMap::new(), stages: HashMap::new(), sinks: HashMap::new(), recovery };
    let (mut sources, mut stages, mut sinks) = (HashMap::new(), HashMap::new(), HashMap::new());
    let base_dir = base.map_or_else(|| base_dir(&spec), Path::to_owned);
    // They are shared by those who share topics.
    let sequences = topics.dir().with_file_name("sequences");
    let sequences = Sequences::new(Arc::new(RealDisk), &sequences, Arc::new(RealClock::default()));
    let restored_at = match state_dir {
        Some(dir) => JobStore::restored_at(&RealDisk, dir).map_err(|error| Failure::failed(failure::chain(&error)))?,
        None => None,
    };
    let site = |node: &NodeName| Site {
        job: spec.name.clone(),
        node: node.clone(),
        base_dir: base_dir.clone(),
        topics: (*topics).clone(),
        durable: recovery == Recovery::LastEpoch,
        state_dir: state_dir.map(Path::to_owned),
        restored_at,
        fence: fence.clone(),
        backpressure: spec.sources.get(node).map(|source| source.backpressure).unwrap_or_default(),
        sequences: sequences.clone(),
        sequence: spec.sources.get(node).and_then(|source| source.sequence.clone()),
    };
    for (name, source) in &spec.sources {
        match wasmill_connectors::source(&source.connector, source.options.clone(), &site(name)) {
            Ok(factory) => {
                let can = factory.capabilities();
                let bounded = can.bounds == Bounds::Bounded;
                facts.sources.insert(name.clone(), SourceFacts { bounded, replayable: can.replayable });
                sources.insert(name.clone(), factory);
            }
            Err(error) => wrong.push(option_error(&spec, "source", name, error)),
        }
    }
    for (name, sink) in &spec.sinks {
        match wasmill_connectors::sink(&sink.connector, sink.options.clone(), &site(name)) {
            Ok(factory) => {
                let SinkCapabilities { visibility, changes, more_changes } = factory.capabilities();
                let direct = factory.has_direct();
                facts.sinks.insert(name.clone(), SinkFacts { visibility, direct, changes, more_changes });
                sinks.insert(name.clone(), factory);
            }
            Err(error) => wrong.push(option_error(&spec, "sink", name, error)),
        }
    }
    for name in spec.stages.keys() {
        match stage(&spec, name, plugins, *store).await {
            Ok(factory) => {
                facts.stages.insert(name.clone(), factory.descriptor().clone());
                stages.insert(name.clone(), factory);
            }
            Err(diagnostic) => wrong.push(diagnostic),
        }
    }
    wrong.extend(dead_letters_in_the_way(&spec));
    if !wrong.is_empty() {
        return Err(Failure::Job(everything(&spec, wrong, &facts)));
    }
    let planned = wasmill_plan::plan(&spec, &facts).map_err(Failure::Job)?;
    Ok(Assembled { spec, planned, facts, sources, stages, sinks })
}

/// The file of rejected rows is made anew by every run: it must not be one that the job reads or
/// writes.
fn dead_letters_in_the_way(spec: &JobSpec) -> Option<Diagnostic> {
    let letters = spec.resolve(spec.dead_letters.as_deref()?);
    let is_it = |options: &toml::Table| {
        options.get("path").and_then(toml::Value::as_str).is_some_and(|path| spec.resolve(path) == letters)
    };
    let sources = spec.sources.iter().map(|(name, source)| ("source", name, &source.options));
    let sinks = spec.sinks.iter().map(|(name, sink)| ("sink", name, &sink.options));
    let (section, name, _) = sources.chain(sinks).find(|(.., options)| is_it(options))?;
    let message = format!("`dead_letters` names the file of {section} `{name}`");
    Some(spec.error(&["dead_letters"], message).hint("rejected rows have a file of their own"))
}

/// What is wrong, and what the planner has to say about the nodes that are not.
fn everything(spec: &JobSpec, mut wrong: Vec<Diagnostic>, facts: &Facts) -> Vec<Diagnostic> {
    let planned = match wasmill_plan::plan(spec, facts) {
        Ok(planned) => planned.warnings,
        Err(diagnostics) => diagnostics,
    };
    // That nothing is known about a plugin follows from what is wrong with it.
    let unknown = |diagnostic: &Diagnostic| {
        spec.stages
            .keys()
            .any(|stage| !facts.stages.contains_key(stage) && diagnostic.message.contains(&format!("`{stage}`")))
    };
    wrong.extend(planned.into_iter().filter(|diagnostic| !unknown(diagnostic)));
    wrong.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
    wrong
}

/// The directory that paths of a job file start from.
fn base_dir(spec: &JobSpec) -> PathBuf {
    let base = spec.resolve("");
    if base.as_os_str().is_empty() { PathBuf::from(".") } else { base }
}

fn option_error(spec: &JobSpec, section: &str, name: &NodeName, error: wasmill_connectors::ConfigError) -> Diagnostic {
    let mut path = vec![section, name.as_str()];
    path.extend(error.key.iter().flat_map(|key| key.split('.')));
    let diagnostic = spec.error(&path, format!("{section} `{name}`: {}", error.message));
    // What is no option of the connector may be a typo of what every one of them takes.
    let key = error.key.as_deref().filter(|_| error.message.starts_with("unknown option"));
    let meant = || key.and_then(|key| did_you_mean(key, connector_keys(section)));
    match error.hint.or_else(|| meant().map(|meant| format!("did you mean `{meant}`?"))) {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

async fn stage(
    spec: &JobSpec,
    name: &NodeName,
    plugins: &Plugins,
    store: Option<&Path>,
) -> Result<Arc<dyn OperatorFactory>, Diagnostic> {
    let stage = &spec.stages[name];
    let path = match &stage.plugin {
        PluginRef::Path(path) => spec.resolve(path),
        PluginRef::Standard(_) | PluginRef::Digest(_) => PathBuf::new(),
    };
    let at_plugin = ["stage", name.as_str(), "plugin"];
    let loaded =
        plugins.load(&stage.plugin, &path, store, plugins::limits(&stage.limits)).await.map_err(|unusable| {
            let diagnostic = spec.error(&at_plugin, unusable.message);
            match unusable.hint {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            }
        })?;
    loaded.configure(config(stage)).await.map_err(|error| match &error {
        OperatorError::Fatal { reason, .. } => config_error(spec, name, reason),
        error => spec
            .error(&at_plugin, format!("stage `{name}`: {}", error))
            .hint("the plugin cannot even describe itself: it needs a fix, not the job"),
    })
}

/// The configuration of a stage as its plugin gets it.
pub(crate) fn config(stage: &wasmill_spec::StageSpec) -> Vec<u8> {
    match &stage.config {
        serde_json::Value::Null => Vec::new(),
        config => config.to_string().into_bytes(),
    }
}

/// What a plugin says about its configuration, at the place it names. The SDKs write
/// ``config: `sum.fields[0]`: what is wrong``.
fn config_error(spec: &JobSpec, name: &NodeName, reason: &str) -> Diagnostic {
    let (place, said) = reason
        .strip_prefix("config: ")
        .map(|rest| match rest.strip_prefix('`').and_then(|rest| rest.split_once("`: ")) {
            Some((place, said)) => (place, said),
            None => ("", rest),
        })
        .unwrap_or(("", reason));
    let mut path = vec!["stage", name.as_str(), "config"];
    path.extend(place.split(['.', '[', ']']).filter(|part| !part.is_empty()));
    let message = if place.is_empty() {
        format!("stage `{name}` refuses its config: {said}")
    } else {
        format!("stage `{name}` refuses `{place}` in its config: {said}")
    };
    spec.error(&path, message)
}

impl Assembled {
    /// One part for each node of the plan; `watch` sees every sink.
    pub(crate) fn parts(&self, watch: impl Fn(Arc<dyn SinkFactory>) -> Arc<dyn SinkFactory>) -> Vec<NodePart> {
        let part = |name: &NodeName| {
            (self.sources.get(name).map(|source| NodePart::Source(Arc::clone(source))))
                .or_else(|| self.stages.get(name).map(|stage| NodePart::Stage(Arc::clone(stage))))
                .or_else(|| self.sinks.get(name).map(|sink| NodePart::Sink(watch(Arc::clone(sink)))))
        };
        self.planned.plan.nodes.iter().filter_map(|node| part(&node.name)).collect()
    }

    /// How the job file wants the job to run.
    pub(crate) fn settings(&self) -> JobSettings {
        let by_default = JobSettings::default();
        JobSettings {
            accumulators_max: self.spec.accumulators_max.unwrap_or(by_default.accumulators_max),
            epoch_interval: self.spec.epoch.interval.as_duration(),
            epoch_bytes: self.spec.epoch.bytes.bytes(),
            latency_goal: self.spec.latency_goal.as_duration(),
            delivery: self.planned.delivery,
        }
    }

    /// Whether a source ends by itself.
    pub(crate) fn is_bounded(&self, source: &NodeName) -> bool {
        self.sources.get(source).is_some_and(|source| source.capabilities().bounds == Bounds::Bounded)
    }

    /// Whether every source gives the same rows again, so that a job can go on as after a crash.
    pub(crate) fn can_be_read_again(&self) -> bool {
        self.sources.values().all(|source| source.capabilities().replayable)
    }

    /// What a source waits for that has read as far as this.
    pub(crate) fn bell(&self, source: &NodeName, positions: &[(PartitionId, Position)]) -> Option<Bell> {
        self.sources.get(source)?.bell(positions)
    }

    /// The plugin that the job file names for a stage.
    pub(crate) fn factory(&self, stage: &NodeName) -> Option<&Arc<dyn OperatorFactory>> {
        self.stages.get(stage)
    }

    /// The plugin of a stage.
    pub(crate) fn digest(&self, stage: &NodeName) -> Option<PluginDigest> {
        self.stages.get(stage).map(|stage| stage.digest())
    }

    /// Where rejected rows go.
    pub(crate) fn dead_letters(&self) -> PathBuf {
        self.spec.resolve(self.spec.dead_letters.as_deref().unwrap_or("dead-letters.jsonl"))
    }

    /// Warnings about a job that can run.
    pub(crate) fn warnings(&self) -> &[Diagnostic] {
        &self.planned.warnings
    }

    /// Whether a sink writes to standard output.
    pub(crate) fn prints_rows(&self) -> bool {
        self.spec.sinks.values().any(|sink| sink.connector == "stdout")
    }

    /// How it will run and what it promises.
    pub(crate) fn explanation(&self) -> Explanation {
        Explanation::new(&self.spec, &self.facts, &self.planned)
    }

    /// It, drawn.
    pub(crate) fn picture(&self) -> Picture {
        Picture::new(&self.spec, &self.facts, &self.planned.plan)
    }
}
