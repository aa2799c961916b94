//! What a job file asks for, held against what its tenant may.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmill_model::{JobName, PluginDigest};
use wasmill_spec::{Diagnostic, JobSpec, PluginRef};

use super::plugins;
use super::problem::Problem;
use super::record::{Desired, JobRecord, NextRecord, Reserved, TenantRecord};
use super::tenant::no_job;

/// Memory that an instance may take where the job file says nothing.
const INSTANCE_MEMORY_BYTES: u64 = 256 << 20;
/// Nodes of a job.
const NODES_MAX: usize = 200;

/// A job file that was looked at.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) job: JobName,
    pub(super) pins: BTreeMap<String, PluginDigest>,
    pub(super) reserved: Reserved,
}

/// Reads a job file. Its findings say where it stands in `job.toml`.
pub(super) fn parse(text: &[u8]) -> Result<JobSpec, Problem> {
    wasmill_spec::parse("job.toml", text).map_err(|wrong| {
        let detail = match wrong.len() {
            1 => "the job file has an error".to_owned(),
            many => format!("the job file has {many} errors"),
        };
        Problem::wrong_job(detail, wrong.iter().map(Diagnostic::to_json).collect())
    })
}

/// What names of plugins stood for when a job was deployed.
pub(super) type Pins = BTreeMap<String, String>;

/// Says what a job needs, and finds its plugins: `pinned` ones first. Signatures are verified here, so at
/// every start.
pub(super) fn admit(spec: &JobSpec, record: &TenantRecord, pinned: &Pins) -> Result<Admitted, Problem> {
    let nodes = spec.nodes().count();
    if nodes > NODES_MAX {
        return Err(Problem::wrong(format!("the job has {nodes} nodes, a job of the service at most {NODES_MAX}")));
    }
    let mut reserved = Reserved::default();
    for (_, node) in spec.nodes() {
        reserved.tasks = reserved.tasks.saturating_add(u32::from(node.parallelism()));
    }
    let mut pins = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, stage) in &spec.stages {
        let memory = stage.limits.memory.map_or(INSTANCE_MEMORY_BYTES, |memory| memory.bytes());
        let memory = memory.saturating_mul(u64::from(stage.parallelism));
        reserved.memory_bytes = reserved.memory_bytes.saturating_add(memory);
        let at = ["stage", name.as_str(), "plugin"];
        let named = match &stage.plugin {
            PluginRef::Standard(_) => continue,
            PluginRef::Digest(digest) => digest.to_string(),
            PluginRef::Path(named) if named.starts_with(plugins::REGISTRY) => named.clone(),
            PluginRef::Path(path) if path.contains('/') || path.ends_with(".wasm") => {
                let message = format!("stage `{name}` names a file; the service has plugins by name and digest only");
                wrong.push(spec.error(&at, message).hint(
                    "push it with `wasmill plugin push FILE --name NAME`, and write plugin = \"NAME\", or deploy \
                     with `wasmill deploy`, which pushes files",
                ));
                continue;
            }
            PluginRef::Path(named) => named.clone(),
        };
        let meant = pinned.get(&named).unwrap_or(&named);
        let found = plugins::resolve(record, meant).and_then(|digest| match digest {
            Some(digest) => plugins::verify(record, &digest).map(|()| digest),
            None => Err(Problem::bad("no plugin")),
        });
        match found {
            Ok(digest) => drop(pins.insert(named, digest)),
            Err(problem) => {
                let diagnostic = spec.error(&at, problem.detail);
                wrong.push(problem.hints.into_iter().fold(diagnostic, Diagnostic::hint));
            }
        }
    }
    if !wrong.is_empty() {
        let found = wrong.iter().map(Diagnostic::to_json).collect();
        return Err(Problem::wrong_job("the job file names plugins that cannot be used", found));
    }
    Ok(Admitted { job: spec.name.clone(), pins, reserved })
}

/// A job file that is deployed.
pub(super) struct Deployed<'a> {
    pub(super) admitted: &'a Admitted,
    pub(super) text: &'a str,
    /// Whether the job may forget what its state holds for nodes that it has no more.
    pub(super) allow_dropped: bool,
    /// Microseconds since the Unix epoch.
    pub(super) now: i64,
}

/// Refuses a job that is more than the budget of its tenant allows, beside its other jobs.
fn fits(record: &TenantRecord, admitted: &Admitted) -> Result<(), Problem> {
    let budget = record.budget;
    let others = || record.jobs.iter().filter(|(job, _)| **job != admitted.job).map(|(_, job)| job.takes());
    if others().count() >= budget.jobs as usize {
        return Err(Problem::over_budget(format!("the tenant has {} jobs, and may have no more", budget.jobs)));
    }
    let tasks: u32 = others().map(|takes| takes.tasks).fold(admitted.reserved.tasks, u32::saturating_add);
    if tasks > budget.tasks {
        let message = format!("with this job the tenant had {tasks} tasks, it may have {}", budget.tasks);
        return Err(Problem::over_budget(message).hint("lower `parallelism`"));
    }
    let memory = others().map(|takes| takes.memory_bytes);
    let memory: u64 = memory.fold(admitted.reserved.memory_bytes, u64::saturating_add);
    if memory > budget.memory_bytes {
        let message = format!(
            "with this job plugins of the tenant could take {memory} bytes of memory, they may take {}",
            budget.memory_bytes
        );
        return Err(Problem::over_budget(message).hint("give stages less: limits = { memory = \"64MiB\" }"));
    }
    Ok(())
}

fn texts(pins: &BTreeMap<String, PluginDigest>) -> Pins {
    pins.iter().map(|(name, digest)| (name.clone(), digest.to_string())).collect()
}

/// Takes what a job needs out of the budget of its tenant, or refuses. Called where the record is
/// changed, so two jobs never take the same.
pub(super) fn reserve(record: &mut TenantRecord, deployed: &Deployed<'_>) -> Result<u64, Problem> {
    let Deployed { admitted, text, allow_dropped, now } = *deployed;
    fits(record, admitted)?;
    let before = record.jobs.remove(&admitted.job);
    let revision = before.as_ref().map_or(1, |before| before.revision + 1);
    let desired = match before.as_ref().map(|before| before.desired) {
        Some(Desired::Paused) => Desired::Paused,
        _ => Desired::Running,
    };
    let job = JobRecord {
        text: text.to_owned(),
        desired,
        pins: texts(&admitted.pins),
        reserved: admitted.reserved,
        deployed: now,
        revision,
        swapped: before.map(|before| before.swapped.clone()).unwrap_or_default(),
        allow_dropped,
        next: None,
    };
    record.jobs.insert(admitted.job.clone(), Arc::new(job));
    Ok(revision)
}

/// The same for a file that is about to take the place of that of a job while it runs. Returns the revision that
/// it will be.
pub(super) fn reserve_next(record: &mut TenantRecord, deployed: &Deployed<'_>) -> Result<u64, Problem> {
    let Deployed { admitted, text, allow_dropped, now } = *deployed;
    fits(record, admitted)?;
    let wanted = record.jobs.get_mut(&admitted.job).ok_or_else(|| no_job(&admitted.job))?;
    let wanted = Arc::make_mut(wanted);
    wanted.next = Some(Box::new(NextRecord {
        text: text.to_owned(),
        pins: texts(&admitted.pins),
        reserved: admitted.reserved,
        deployed: now,
        allow_dropped,
    }));
    Ok(wanted.revision + 1)
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::record::Egress;
    use super::super::usage::Usage;
    use super::*;

    fn record(budget: Budget) -> TenantRecord {
        TenantRecord {
            name: wasmill_model::TenantName::new("acme").expect("a name"),
            created: 0,
            budget,
            egress: Egress::default(),
            signers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            plugins: BTreeMap::new(),
            tags: BTreeMap::new(),
            jobs: BTreeMap::new(),
            usage: Usage::default(),
        }
    }

    fn job(name: &str, plugin: &str, parallelism: u16) -> String {
        format!(
            "name = \"{name}\"\n[source.in]\nconnector = \"generator\"\n[stage.s]\nplugin = \"{plugin}\"\n\
             input = \"in\"\nparallelism = {parallelism}\n[sink.out]\nconnector = \"blackhole\"\ninput = \"s\"\n"
        )
    }

    fn admitted(text: &str, record: &TenantRecord) -> Result<Admitted, Problem> {
        admit(&parse(text.as_bytes())?, record, &Pins::new())
    }

    #[test]
    fn budgets_hold_in_sum_and_a_job_counts_once() {
        let mut record = record(Budget { jobs: 2, tasks: 10, memory_bytes: 1 << 30, ..Budget::default() });
        let mut reserve_one = |name: &str, parallelism: u16| {
            let text = job(name, "std:filter", parallelism);
            let admitted = admitted(&text, &record).expect("fits");
            reserve(&mut record, &Deployed { admitted: &admitted, text: &text, allow_dropped: false, now: 0 })
        };
        assert_eq!(reserve_one("a", 2).expect("fits"), 1);
        assert_eq!(reserve_one("a", 3).expect("replaces itself"), 2);
        // 5 tasks of `a`, and 5 with this one.
        assert!(reserve_one("b", 4).is_err(), "6 more tasks");
        assert!(reserve_one("b", 2).is_err(), "memory of 5 instances is more than 1 GiB");
        assert_eq!(reserve_one("b", 1).expect("fits"), 1);
        let problem = reserve_one("c", 1).expect_err("a third job");
        assert!(problem.detail.contains("2 jobs"), "{problem:?}");
    }

    #[test]
    fn until_it_is_decided_a_job_takes_what_the_larger_of_two_files_takes() {
        let mut record = record(Budget { tasks: 8, ..Budget::default() });
        let ask = |record: &mut TenantRecord, name: &str, parallelism: u16, next: bool| {
            let text = job(name, "std:filter", parallelism);
            let admitted = admitted(&text, record).expect("admitted");
            let deployed = Deployed { admitted: &admitted, text: &text, allow_dropped: true, now: 7 };
            if next { reserve_next(record, &deployed) } else { reserve(record, &deployed) }
        };
        assert_eq!(ask(&mut record, "none", 1, true).expect_err("is not there").status, 404);
        assert_eq!(ask(&mut record, "a", 2, false).expect("fits"), 1);
        assert_eq!(ask(&mut record, "a", 7, true).expect_err("too many tasks").status, 403);
        let a = JobName::new("a").expect("a name");
        let of_a = |record: &mut TenantRecord, taken| {
            Arc::make_mut(record.jobs.get_mut(&a).expect("there")).decided(taken);
            let JobRecord { revision, reserved, deployed, next, .. } = &*record.jobs[&a];
            assert!(next.is_none());
            (*revision, reserved.tasks, *deployed)
        };
        for (taken, after) in [(false, (1, 4, 7)), (true, (2, 6, 7))] {
            assert_eq!(ask(&mut record, "a", 4, true).expect("fits"), 2);
            assert_eq!(record.jobs[&a].reserved.tasks, 4, "as it runs");
            assert_eq!(ask(&mut record, "b", 1, false).expect_err("9 tasks").status, 403);
            assert_eq!(of_a(&mut record, taken), after);
        }
        // The smaller one frees its tasks once it runs.
        assert_eq!(ask(&mut record, "a", 1, true).expect("fits"), 3);
        assert!(ask(&mut record, "b", 1, false).is_err());
        assert_eq!(of_a(&mut record, true), (3, 3, 7));
        assert_eq!(ask(&mut record, "b", 1, false).expect("fits"), 1);
    }

    #[test]
    fn files_and_unknown_plugins_are_shown_where_they_stand() {
        let record = record(Budget::default());
        for plugin in ["./x.wasm", "/etc/passwd", "../../x", "unknown", "unknown:1", "A B"] {
            let problem = admitted(&job("a", plugin, 1), &record).err().expect("refused");
            assert_eq!(problem.status, 422, "{plugin}");
            assert_eq!(problem.diagnostics[0]["place"]["line"], 5, "{problem:?}");
        }
    }
}
