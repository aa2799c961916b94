//! Windows that overlap share slices: each event is folded once, however many windows it is in.

use std::process::Command;

use crate::bench::definitions::{NEXMARK_EVENTS, NEXMARK_RATE, build, wasmill};
use crate::bench::{Benchmark, Run, Sample, Take, Target};
use crate::nexmark::Kit;

/// Bids per auction in windows of 10 s every 2 s against windows of 10 s side by side.
pub(super) fn sliding() -> Benchmark {
    Benchmark {
        name: "order/sliding".into(),
        against: "tumbling 10 s; 1.5 times its cost",
        target: Target::AtLeast(1.0 / 1.5),
        prepare: Box::new(|lab| {
            build(lab)?;
            Kit::build()?.data(NEXMARK_EVENTS, NEXMARK_RATE).map(drop)
        }),
        run: Run::Pair {
            subject: counts(r#"{ sliding = "10s", every = "2s" }"#),
            baseline: counts(r#"{ tumbling = "10s" }"#),
        },
    }
}

fn counts(window: &'static str) -> Take<Sample> {
    Box::new(move |lab| {
        let input = Kit::open()?.data(NEXMARK_EVENTS, NEXMARK_RATE)?;
        let mut job = Command::new(wasmill(lab));
        job.arg("run").arg(lab.root.join("tests/bench/windows.toml")).arg("--json");
        job.arg("--set").arg(format!("source.events.path={:?}", input.display().to_string()));
        job.arg("--set").arg(format!("stage.counts.window={window}"));
        lab.run(&mut job, NEXMARK_EVENTS)
    })
}
