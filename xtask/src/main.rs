//! The repository's own commands, `cargo xtask --help`: build the plugins, run every test, show an
//! example, measure. It sits outside of the layers and knows only the crate that compiles plugins.

mod bench;
mod bindings;
mod busy;
mod conformance;
mod control_load;
mod crash;
mod demo;
mod density;
mod document;
mod figures;
mod flights;
mod fuzz;
mod hostile;
mod neighbours;
mod nexmark;
mod planted;
mod plugins;
mod sdks;
mod steps;
mod swaps;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, test, show and measure Wasmill")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the standard plugins and the test guests
    Plugins {
        /// Use no network
        #[arg(long)]
        offline: bool,
    },
    /// Make the bindings of the C and Go SDKs from `wit/operator.wit`
    Bindings {
        /// Change nothing; fail where they are not current
        #[arg(long)]
        check: bool,
    },
    /// Test the SDKs of other languages and their templates, as their users would
    Sdks {
        /// Only this language
        language: Option<String>,
        /// The binary that makes, builds and runs projects
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Hold every SDK to the same cases; fails where a language differs
    Conformance {
        /// Only this language
        language: Option<String>,
        /// Print one JSON object a case
        #[arg(long)]
        json: bool,
        /// Measure, and write the table of docs/languages.md
        #[arg(long)]
        table: bool,
        /// Install no tools
        #[arg(long)]
        offline: bool,
        /// The binary that plays the cases
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Build the plugins and run every test
    Test {
        /// Leave out end-to-end and documentation tests
        #[arg(long)]
        fast: bool,
    },
    /// Build everything and run an example job on real input
    Demo,
    /// Fetch the departures of `examples/flights`, in the order in which they happened
    Flights {
        /// Write the sample of the repository too
        #[arg(long)]
        sample: bool,
    },
    /// Draw the figures of docs/ordering.md; fails where adaptive ordering misses its quality
    Figures,
    /// Run NEXMark queries as jobs and hold their results to the native floor
    Nexmark {
        /// Only this query
        query: Option<String>,
        /// Events to run them over
        #[arg(long, default_value_t = 100_000)]
        events: u64,
        /// The binary that runs the jobs
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Kill a running job again and again, and hold what it shows to an oracle
    Crash {
        /// How often
        #[arg(long, default_value_t = 100)]
        kills: u64,
        /// Decides about the input and the kills
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// What the job promises; without it, each mode in turn
        #[arg(long)]
        mode: Option<crash::Mode>,
        /// Print the result as a JSON object
        #[arg(long)]
        json: bool,
        /// The binary that runs the jobs
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Swap the plugin of a running job again and again, and hold what it shows to an oracle
    Swaps {
        /// How often
        #[arg(long, default_value_t = 100)]
        n: u64,
        /// Decides about the versions and the kills
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print the result as a JSON object
        #[arg(long)]
        json: bool,
        /// The binary that runs the jobs
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Measure what one tenant of a service feels of another one that wants everything
    Neighbours {
        /// How often it is measured alone and beside the other
        #[arg(long, default_value_t = 5)]
        pairs: usize,
        /// How long each measurement takes, in seconds
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Print the result as a JSON object
        #[arg(long)]
        json: bool,
        /// The binary that serves
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Attack a service with plugins, requests and files that mean harm, beside a tenant who works
    Hostile {
        /// Only these rows of docs/hostile.md
        rows: Vec<u16>,
        /// Leave out what takes long, time nobody, and weigh nothing
        #[arg(long)]
        quick: bool,
        /// Print one JSON object an attack
        #[arg(long)]
        json: bool,
        /// The binary that serves
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Give readers of what comes from outside what is out of its mind
    Fuzz {
        /// One of the targets of docs/hostile.md; all of them without it
        target: Option<String>,
        /// Cases of each target; without it, as many as docs/hostile.md says
        #[arg(long)]
        cases: Option<u64>,
        /// Decides about the cases
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print one JSON object a target
        #[arg(long)]
        json: bool,
    },
    /// Run very many jobs in one service, with traffic and hibernating, and measure what they take
    Density {
        /// Jobs with traffic
        #[arg(long, default_value_t = 1_000)]
        live: usize,
        /// Jobs that have nothing to do
        #[arg(long, default_value_t = 10_000)]
        idle: usize,
        /// Print the result as a JSON object
        #[arg(long)]
        json: bool,
        /// The binary that serves
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Deploy and connect beside a job, and see that its latency stays
    ControlLoad {
        /// Pairs of measurements to take the median of
        #[arg(long, default_value_t = 3)]
        pairs: usize,
        /// How long each measurement takes
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Events a second of the job
        #[arg(long, default_value_t = 20_000)]
        rate: u64,
        /// Print the result as a JSON object
        #[arg(long)]
        json: bool,
        /// The binary that serves
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Let bugs in, one after the other, and see that each is caught
    Planted {
        /// A part of the names of those to let in
        filter: Option<String>,
        /// Print one JSON object a bug
        #[arg(long)]
        json: bool,
        /// The binary that runs the jobs
        #[arg(long, default_value = "target/debug/wasmill")]
        wasmill: PathBuf,
    },
    /// Measure, compare, and update docs/benchmarks.md; fails where a target is not met
    Bench {
        /// A part of the names of those to run
        filter: Option<String>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
        /// Pairs to take the median of
        #[arg(long, default_value_t = 5)]
        pairs: usize,
    },
    /// What continuous integration runs: formatting, lints, licences, every test
    Ci,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Plugins { offline } => plugins::plugins(offline),
        Task::Bindings { check } => bindings::bindings(check),
        Task::Sdks { language, wasmill } => sdks::sdks(language.as_deref(), &wasmill),
        Task::Conformance { language, json, table, offline, wasmill } => {
            conformance::conformance(&conformance::Options { language, json, table, offline, wasmill })
        }
        Task::Test { fast } => test::test(fast),
        Task::Demo => demo::demo(),
        Task::Flights { sample } => flights::flights(sample),
        Task::Figures => figures::figures(),
        Task::Nexmark { query, events, wasmill } => nexmark::check(query.as_deref(), events, &wasmill),
        Task::Crash { kills, seed, mode, json, wasmill } => crash::crash(kills, seed, mode.as_slice(), &wasmill, json),
        Task::Swaps { n, seed, json, wasmill } => swaps::swaps(n, seed, &wasmill, json),
        Task::Neighbours { pairs, seconds, json, wasmill } => neighbours::neighbours(pairs, seconds, &wasmill, json),
        Task::Hostile { rows, quick, json, wasmill } => {
            hostile::hostile(&hostile::Options { rows, quick, json, wasmill })
        }
        Task::Fuzz { target, cases, seed, json } => fuzz::fuzz(target.as_deref(), cases, seed, json),
        Task::Density { live, idle, json, wasmill } => density::density(live, idle, &wasmill, json),
        Task::ControlLoad { pairs, seconds, rate, json, wasmill } => {
            control_load::control_load(pairs, seconds, rate, &wasmill, json)
        }
        Task::Planted { filter, json, wasmill } => planted::planted(filter.as_deref(), &wasmill, json),
        Task::Bench { filter, json, pairs } => bench::bench(filter.as_deref(), pairs, json),
        Task::Ci => test::ci(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            steps::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?;
    Ok(root.to_owned())
}

/// Where cargo builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}
