//! `wasmill serve`: jobs of many tenants.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;
use wasmill_control::service::{JobLogs, Listen, OpenedService, Service, ServiceSettings, Tls, serve as answer};
use wasmill_env::{Clock, RealClock, RealDisk};
use wasmill_spec::Period;

use super::run::stop_signals;
use crate::allocator;
use crate::failure::{self, Failure};
use crate::plugins::Plugins;
use crate::serve::JobHost;
use crate::serve::otlp::{Exporter, Spans};
use crate::supervise::stop_asked;
use crate::terminal::Terminal;

/// Threads that answer requests, and commit: they never move data.
const CONTROL_THREADS: usize = 2;
/// Threads that wait for disks. Each keeps memory of its own, so a storm of requests must not make hundreds.
const BLOCKING_THREADS_MAX: usize = 64;
/// Mappings that an instance takes of those the kernel gives a process, some more than measured.
const MAPPINGS_PER_INSTANCE: u64 = 12;

#[derive(Debug, Args)]
#[command(after_help = "The first start writes a token of the operator to DIR/admin.token, readable by its owner \
                        only. SIGTERM and Ctrl-C end every job at an epoch, then the service; a second one cuts it \
                        off. The service goes on with every job when it is started again, also after a crash.")]
pub(super) struct ServeArgs {
    /// Where everything is kept: tenants, their plugins, topics, jobs and state
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDR")]
    listen: String,
    /// A job that has had nothing to do for so long is taken out of memory until it has; `never` keeps
    /// all of them
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = hibernate_after)]
    hibernate_after: HibernateAfter,
    /// Instances of plugins that may live at once, of all tenants together: each reserves 4 GiB of address
    /// space, and takes memory only as it is used. A job that finds none free waits
    #[arg(long, default_value_t = 4_096, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    instances: u32,
    /// A registry that every tenant may pull plugins from, such as registry.internal:5000, wherever it is; others
    /// only where they may connect to
    #[arg(long = "registry", value_name = "HOST[:PORT]")]
    registries: Vec<String>,
    /// Send traces and metrics to this collector, by OTLP over HTTP, such as http://localhost:4318
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(super) otlp: Option<String>,
    /// The certificate to show, in a PEM file; without one, connections are not encrypted
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
struct HibernateAfter(Option<Duration>);

fn hibernate_after(text: &str) -> Result<HibernateAfter, String> {
    if text == "never" {
        return Ok(HibernateAfter(None));
    }
    let time: Period = text.parse().map_err(|error| format!("{error}; or write `never`"))?;
    match time.as_duration() {
        time if time < Duration::from_millis(100) => Err("at least 100ms, or `never`".to_owned()),
        time => Ok(HibernateAfter(Some(time))),
    }
}

pub(super) fn serve(
    args: ServeArgs,
    terminal: &Terminal,
    clock: Arc<RealClock>,
    logs: JobLogs,
    spans: Option<Spans>,
) -> Result<(), Failure> {
    allocator::frugal();
    raise_file_limit();
    let data = super::data_runtime(|builder| allocator::tune(builder, Arc::clone(&clock) as _))?;
    let mut control = tokio::runtime::Builder::new_multi_thread();
    allocator::tune(&mut control, Arc::clone(&clock) as _);
    let control = control
        .worker_threads(CONTROL_THREADS)
        .thread_name("wasmill-control")
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let done = control.block_on(run(args, terminal, clock, logs, spans, data.handle().clone()));
    // A guest in the middle of a call must not hold up the end.
    data.shutdown_background();
    control.shutdown_background();
    done
}

async fn run(
    args: ServeArgs,
    terminal: &Terminal,
    clock: Arc<RealClock>,
    logs: JobLogs,
    spans: Option<Spans>,
    data: tokio::runtime::Handle,
) -> Result<(), Failure> {
    let mut stops = stop_signals()?;
    let exporter = match args.otlp.as_deref().zip(spans) {
        Some((endpoint, spans)) => Some(Exporter::new(endpoint, spans, Arc::clone(&clock) as _)?),
        None => None,
    };
    let workers = u32::try_from(data.metrics().num_workers()).unwrap_or(u32::MAX);
    let plugins = Plugins::with_instances(terminal, Arc::clone(&clock) as Arc<dyn Clock>, args.instances)?;
    if let Some(warning) = few_mappings(args.instances) {
        tracing::warn!("{warning}");
    }
    let host = Arc::new(JobHost::new(Arc::new(plugins), Arc::clone(&clock), data, args.registries));
    let settings = ServiceSettings { workers, hibernate_after: args.hibernate_after.0 };
    let opened = Service::open(&args.data, Arc::new(RealDisk), Arc::clone(&clock) as _, host, logs, settings);
    let OpenedService { service, token_file } = opened.map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => Failure::wrong(error.to_string()),
        _ => Failure::file("serve", &args.data, &error),
    })?;
    if let Some(file) = token_file {
        let file = file.display();
        terminal.say(&match terminal.json {
            true => json!({"token_file": file.to_string()}).to_string(),
            false => format!("made a token of the operator: {file}"),
        });
    }
    if let Some(exporter) = exporter {
        tokio::spawn(exporter.run(Arc::clone(&service)));
    }
    let tls = args.tls_cert.zip(args.tls_key).map(|(certificate, key)| Tls { certificate, key });
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listen = Listen { address: args.listen, tls };
    let listening = |address| {
        terminal.say(&match terminal.json {
            true => json!({"url": format!("{scheme}://{address}")}).to_string(),
            false => format!("serving {} at {scheme}://{address}", args.data.display()),
        });
    };
    // Requests are answered until the jobs have ended: who asks meanwhile is told that it is not ready.
    let (end, ended) = oneshot::channel();
    let answering = answer(Arc::clone(&service), &listen, Arc::clone(&clock) as _, listening, async move {
        let _cut_off = ended.await;
    });
    let working = async {
        service.start().await;
        tokio::select! {
            () = stop_asked(&mut stops) => {}
            () = service.watch() => {}
            never = allocator::keep_small(&*clock) => match never {},
        }
        terminal.note("every job ends at its next epoch; once more to cut off");
        tokio::select! {
            () = service.stop() => {}
            () = stop_asked(&mut stops) => {
                return Err(Failure::failed("cut off: what was read since the last epochs is not committed"));
            }
        }
        // Who listens has gone where it could not.
        let _gone = end.send(()).is_err();
        Ok(())
    };
    let answering = async { answering.await.map_err(|error| Failure::wrong(failure::chain(&error))) };
    tokio::try_join!(answering, working).map(drop)
}

/// As many open files as this process may have: connections and jobs need them.
fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer it serves fewer.
    let _fewer = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).is_err();
}

/// What to do where the kernel gives the process fewer mappings than so many instances take.
fn few_mappings(instances: u32) -> Option<String> {
    let wanted = u64::from(instances) * MAPPINGS_PER_INSTANCE;
    let allowed: u64 = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()?;
    (wanted > allowed).then(|| {
        format!(
            "{instances} instances take {wanted} mappings of memory, {allowed} are allowed: jobs may fail to \
             start; run: sysctl -w vm.max_map_count={wanted}, or serve --instances with fewer"
        )
    })
}
