//! What an ordering buffer adds to an event.

use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::bench::definitions::output;
use crate::bench::{Benchmark, Lab, Run, Target};
use crate::steps::{cargo, run, say};

/// Nanoseconds of CPU time an event, with 10,000 rows of 100 bytes held.
pub(super) fn buffer() -> Benchmark {
    Benchmark {
        name: "order/buffer".into(),
        against: "150 ns an event, 10,000 rows held",
        target: Target::AtMost(1.0),
        prepare: Box::new(|lab: &Lab| {
            say("building for release");
            let what = ["--package", "wasmill-order", "--example", "ordering"];
            run(cargo(&lab.root, &["build", "--release", "--quiet"]).args(what))
        }),
        run: Run::Figure {
            unit: "ns",
            limit: 150.0,
            take: Box::new(|lab: &Lab| {
                let mut example = Command::new(lab.root.join("target/release/examples/ordering"));
                let printed: Value = serde_json::from_str(output(example.arg("cost"))?.trim())?;
                printed["ns_per_event"].as_f64().context("no figure")
            }),
        },
    }
}
