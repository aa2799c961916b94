//! The command line: what there is to type, and which function answers it.

mod apply;
mod build;
mod check;
mod dlq;
mod doctor;
mod explain;
mod graph;
mod inspect;
mod new;
mod remote;
mod run;
mod savepoint;
mod schema;
mod serve;
mod service;
mod swap;
mod test;
mod topic;
mod why;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};
use wasmill_control::local::Request;
use wasmill_control::service::JobLogs;
use wasmill_env::{RealClock, RealDisk};
use wasmill_store::Topics;

use crate::data_dir::{DATA_DEFAULT, DATA_VARIABLE};
use crate::failure::Failure;
use crate::progress::LogWriter;
use crate::remote::ServerArgs;
use crate::serve::JobLogLayer;
use crate::serve::otlp::{self, SpanLayer};
use crate::terminal::Terminal;

/// Stream processing with WebAssembly operators.
#[derive(Debug, Parser)]
#[command(name = "wasmill", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How log lines look on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a plugin project that builds, with a test
    New(new::NewArgs),
    /// Compile a plugin project to a component
    Build(build::BuildArgs),
    /// Show what a plugin is and what it asks for
    Inspect(inspect::InspectArgs),
    /// Say whether a plugin can take the place of another
    Diff(swap::DiffArgs),
    /// Run golden cases of a plugin on the real host, in virtual time
    Test(test::TestArgs),
    /// Find everything that is wrong with a job file
    Check(check::CheckArgs),
    /// Show how a job will run, and what each path guarantees
    Explain(explain::ExplainArgs),
    /// Draw a job
    Graph(graph::GraphArgs),
    /// Run a job in the foreground; ends when bounded input ends
    Run(run::RunArgs),
    /// Run jobs of many tenants, and answer HTTP
    Serve(serve::ServeArgs),
    /// Say how a running job is doing
    Status(remote::RemoteArgs),
    /// Say why windows of a running job are open, partitions lag, and rows were late
    Why(why::WhyArgs),
    /// Have a running job read nothing more until it is resumed
    Pause(remote::RemoteArgs),
    /// Have a paused job read on
    Resume(remote::RemoteArgs),
    /// Have a running job end at an epoch
    Stop(remote::RemoteArgs),
    /// Have a running job end as though its input had ended: every window and timer fires
    Drain(remote::RemoteArgs),
    /// Have a running job go on with another plugin in a stage
    Swap(swap::SwapArgs),
    /// Have a running job go on with another job file
    Apply(apply::ApplyArgs),
    /// Make, fill, read and remove topics
    Topic(topic::TopicArgs),
    /// Look at what a job could not process; process it again, or drop it
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Write a job's committed state to one file, look at it, and go on from it
    Savepoint(savepoint::SavepointArgs),
    /// Deploy a job to a service
    Deploy(service::DeployArgs),
    /// List jobs of a service
    Ps,
    /// Show jobs of a service and their nodes as they go: rates, lag, backpressure, memory
    Top(service::TopArgs),
    /// Show what a job of a service and its plugins said
    Logs(service::LogsArgs),
    /// Remove a job of a service with its state
    Rm(service::JobArgs),
    /// Have a node of a job of a service run with another parallelism
    Rescale(service::RescaleArgs),
    /// Show rows of a node of a job of a service as they come
    Tap(service::TapArgs),
    /// Send plugins to a service, list and sign them
    #[command(subcommand)]
    Plugin(service::PluginCommand),
    /// Make, list, change and remove tenants of a service
    #[command(subcommand)]
    Tenant(service::TenantCommand),
    /// Make, list and revoke tokens of a tenant of a service
    #[command(subcommand)]
    Token(service::TokenCommand),
    /// Say what the tenant has used, has and may have
    Usage,
    /// Look at what this machine has and lacks
    Doctor,
    /// Print the JSON Schema of the job file
    Schema(schema::SchemaArgs),
    /// Compile a component from standard input to native code on standard output
    #[command(hide = true)]
    CompileWorker,
}

/// Does what the command line asks for.
pub(crate) fn run(cli: Cli, clock: Arc<RealClock>) -> ExitCode {
    if matches!(cli.command, Command::CompileWorker) {
        return wasmill_wasm::compile_worker_main();
    }
    let terminal = Terminal::new(cli.global.json, cli.global.verbose > 0);
    let logs = JobLogs::default();
    let keeps_logs =
        matches!(cli.command, Command::Serve(_)).then(|| JobLogLayer::new(logs.clone(), Arc::clone(&clock)));
    let (heard, spans) = match &cli.command {
        Command::Serve(args) if args.otlp.is_some() => {
            let (layer, spans) = otlp::spans(Arc::clone(&clock));
            (Some(layer), Some(spans))
        }
        _ => (None, None),
    };
    log(&cli.global, &terminal, keeps_logs, heard);
    let server = cli.global.server.clone();
    let done = match cli.command {
        Command::New(args) => new::new(&args, &terminal),
        Command::Build(args) => build::build(&args, &terminal),
        Command::Inspect(args) => inspect::inspect(&args, &terminal),
        Command::Test(args) => test::test(&args, &terminal),
        Command::Check(args) => check::check(&args, &terminal),
        Command::Explain(args) => explain::explain(&args, &terminal),
        Command::Graph(args) => graph::graph(&args, &terminal),
        Command::Run(args) => run::run(args, &terminal, clock),
        Command::Serve(args) => serve::serve(args, &terminal, clock, logs, spans),
        Command::Status(args) => remote::status(&args, &server, &terminal),
        Command::Why(args) => why::why(&args, &server, &terminal),
        Command::Pause(args) => remote::tell(&args, Request::Pause, &server, &terminal),
        Command::Resume(args) => remote::tell(&args, Request::Resume, &server, &terminal),
        Command::Stop(args) => remote::tell(&args, Request::Stop, &server, &terminal),
        Command::Drain(args) => remote::tell(&args, Request::Drain, &server, &terminal),
        Command::Swap(args) => swap::swap(&args, &server, &terminal),
        Command::Apply(args) => apply::apply(&args, &server, &terminal),
        Command::Diff(args) => swap::diff(&args, &terminal),
        Command::Topic(args) => topic::topic(args, &server, &terminal),
        Command::Dlq(command) => dlq::dlq(&command, &server, &terminal),
        Command::Savepoint(args) => savepoint::savepoint(&args, &server, &terminal),
        Command::Deploy(args) => service::deploy(&args, &server, &terminal),
        Command::Ps => service::ps(&server, &terminal),
        Command::Top(args) => service::top(&args, &server, &terminal),
        Command::Logs(args) => service::logs(&args, &server, &terminal),
        Command::Rm(args) => service::rm(&args, &server, &terminal),
        Command::Rescale(args) => service::rescale(&args, &server, &terminal),
        Command::Tap(args) => service::tap(&args, &server, &terminal),
        Command::Plugin(command) => service::plugin(&command, &server, &terminal),
        Command::Tenant(command) => service::tenant(&command, &server, &terminal),
        Command::Token(command) => service::token(&command, &server, &terminal),
        Command::Usage => service::usage(&server, &terminal),
        Command::Doctor => doctor::doctor(&terminal),
        Command::Schema(args) => schema::schema(&args, &terminal),
        Command::CompileWorker => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(&terminal);
            ExitCode::from(failure.code())
        }
    }
}

/// Log lines go to standard error: warnings, with `-v` what plugins and connectors say, with `-vv`
/// everything of ours. `WASMILL_LOG` overrules it.
fn log(global: &Global, terminal: &Terminal, jobs: Option<JobLogLayer>, spans: Option<SpanLayer>) {
    let default = match global.verbose {
        0 => "warn",
        1 => "info",
        _ => "info,plugin=debug,wasmill=debug",
    };
    let filter = EnvFilter::try_from_env("WASMILL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = fmt::layer().with_writer(LogWriter(Arc::clone(&terminal.screen))).with_ansi(terminal.err.colour);
    let lines = match global.log_format {
        LogFormat::Text => lines.with_target(false).without_time().compact().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Of the spans that lines of jobs are found by, and what plugins and we say in them.
    let of_jobs = Targets::new().with_default(LevelFilter::INFO);
    let jobs = jobs.map(|jobs| jobs.with_filter(of_jobs));
    let spans = spans.map(|spans| spans.with_filter(filter_fn(otlp::wants)));
    // Only a second subscriber could fail, and there is one.
    let _set = tracing_subscriber::registry().with(lines.with_filter(filter)).with(jobs).with(spans).try_init();
}

/// A runtime for the tasks of jobs, with a worker for each core.
fn data_runtime(tune: impl FnOnce(&mut tokio::runtime::Builder)) -> Result<tokio::runtime::Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    tune(&mut builder);
    builder
        .worker_threads(cores)
        .thread_name("wasmill-data")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))
}

/// A runtime for commands that need one and move no data.
fn small_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))
}

/// Which job file, and what to change in it.
#[derive(Debug, Args)]
struct JobArgs {
    /// The job file
    job: std::path::PathBuf,
    /// Use another value in place of one in the job file, such as source.sensors.path=other.jsonl;
    /// may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<crate::overrides::Override>,
    /// Keep positions and state in this directory, so that a job that was cut off goes on behind its
    /// last epoch
    #[arg(long, value_name = "DIR")]
    state: Option<std::path::PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

/// Where topics are.
#[derive(Debug, Args)]
struct DataArgs {
    /// Where topics are
    #[arg(long, env = DATA_VARIABLE, default_value = DATA_DEFAULT, value_name = "DIR")]
    data: std::path::PathBuf,
}

impl DataArgs {
    fn topics(&self) -> Topics {
        Topics::new(Arc::new(RealDisk), &self.data.join("topics"), Arc::new(RealClock::default()))
    }
}
