//! A sequential convoy: what lanes gain on a stage that needs the processor, and what keeping the
//! order costs.

use std::process::Command;

use anyhow::ensure;

use crate::bench::definitions::{build, number, wasmill};
use crate::bench::{Benchmark, Lab, Run, Sample, Take, Target};

/// Events of a run, as `tests/bench/convoy.toml` has them.
const EVENTS: u64 = 40_000;
/// How much more a second core has to give; the machine has others to serve, and a lane is no core.
const GAIN: f64 = 1.5;

/// Events a second with a lane for each of two cores, against one copy. Wall-clock time: what counts
/// here is that cores work at the same time.
pub(super) fn cores() -> Benchmark {
    Benchmark {
        name: "order/convoy-cores".into(),
        against: "one copy; 2 lanes on 2 cores give 1.5 times as much",
        target: Target::AtLeast(1.0),
        prepare: Box::new(build),
        run: Run::Figure {
            unit: "x",
            limit: GAIN,
            take: Box::new(|lab| {
                let cores = std::thread::available_parallelism()?.get();
                ensure!(cores >= 2, "this takes two cores, and there is {cores}");
                let rate = |lanes| number(&mut job(lab, lanes), &["events_per_second"]);
                Ok(rate(2)? / rate(1)?)
            }),
        },
    }
}

/// CPU time of 8 lanes against one copy: dealing, merging and smaller batches.
pub(super) fn cost() -> Benchmark {
    let run = |lanes| -> Take<Sample> { Box::new(move |lab| lab.run(&mut job(lab, lanes), EVENTS)) };
    Benchmark {
        name: "order/convoy-cost".into(),
        against: "one copy, per CPU-second",
        target: Target::AtLeast(0.8),
        prepare: Box::new(build),
        run: Run::Pair { subject: run(8), baseline: run(1) },
    }
}

fn job(lab: &Lab, lanes: u16) -> Command {
    let mut job = Command::new(wasmill(lab));
    job.current_dir(&lab.root).args(["run", "tests/bench/convoy.toml", "--json"]);
    job.arg("--set").arg(format!("stage.work.parallelism={lanes}"));
    job
}
