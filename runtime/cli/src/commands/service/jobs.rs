//! Jobs of a service.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, value_parser};
use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::{Value, json};
use toml_edit::DocumentMut;
use wasmill_control::beside::Mode;
use wasmill_control::local::Request;
use wasmill_env::{Clock as _, RealClock};
use wasmill_model::{NodeName, Timestamp};
use wasmill_spec::PluginRef;

use super::{LOOK_AGAIN, ask, part, text};
use crate::commands::remote::print_status;
use crate::failure::Failure;
use crate::oci::Reference;
use crate::overrides::{self, Override};
use crate::plugins::named;
use crate::remote::{Body, Client, ServerArgs};
use crate::terminal::{Table, Terminal, bytes, grouped, items};

/// Lines that a service says at once.
const LINES_MAX: u64 = 1_000;

#[derive(Debug, Args)]
#[command(
    after_help = "Files that the job file names as plugins are pushed first, and the job is deployed with their \
                        digests. A job that is there goes on with the new file, from its state; one that runs is \
                        not ended for it where that can be (`wasmill apply --plan` shows it)."
)]
pub(in crate::commands) struct DeployArgs {
    /// The job file
    pub(in crate::commands) job: PathBuf,
    /// Use another value in place of one in the job file; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    pub(in crate::commands) set: Vec<Override>,
    /// Forget the state of stages, and the positions of sources, that the job has no more
    #[arg(long)]
    pub(in crate::commands) allow_dropped: bool,
}

#[derive(Debug, Args)]
pub(in crate::commands) struct JobArgs {
    /// The job
    job: String,
}

#[derive(Debug, Args)]
pub(in crate::commands) struct LogsArgs {
    /// The job
    job: String,
    /// So many lines at most, 1 to 1000
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = value_parser!(u64).range(1..=LINES_MAX))]
    limit: u64,
    /// Go on, and print what comes
    #[arg(short, long)]
    follow: bool,
}

#[derive(Debug, Args)]
pub(in crate::commands) struct RescaleArgs {
    /// The job
    job: String,
    /// The source, stage or sink
    node: String,
    /// How many tasks it has from now on
    parallelism: u16,
}

#[derive(Debug, Args)]
pub(in crate::commands) struct TapArgs {
    /// The job
    job: String,
    /// The source, stage or sink
    node: String,
    /// End after so many rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// What becomes of a job file at a service.
pub(in crate::commands) struct Deployment<'a> {
    pub(in crate::commands) job: &'a Path,
    pub(in crate::commands) set: &'a [Override],
    pub(in crate::commands) allow_dropped: bool,
    /// Only say what it changes.
    pub(in crate::commands) only_plan: bool,
}

pub(in crate::commands) fn deploy(args: &DeployArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let DeployArgs { job, set, allow_dropped } = args;
    let deployed = send(&Deployment { job, set, allow_dropped: *allow_dropped, only_plan: false }, server)?;
    if terminal.json {
        return terminal.print_json(&deployed);
    }
    print_deployed(&deployed, terminal)
}

pub(in crate::commands) fn print_deployed(deployed: &Value, terminal: &Terminal) -> Result<(), Failure> {
    let (phase, revision) = (text(&deployed["phase"]), &deployed["revision"]);
    terminal.print(&format!("{}: {phase}, revision {revision}", terminal.out.bold(text(&deployed["job"]))))
}

/// Sends a job file, and the plugins that it names as files before.
pub(in crate::commands) fn send(deployment: &Deployment<'_>, server: &ServerArgs) -> Result<Value, Failure> {
    let Deployment { job, set, allow_dropped, only_plan } = *deployment;
    let name = job.display().to_string();
    let read = std::fs::read(job).map_err(|error| Failure::file("read the job file", job, &error))?;
    let text_of_job = overrides::apply(&name, read, set)?;
    // What is wrong is shown with the lines of the file, before anything is sent.
    let spec = wasmill_spec::parse(&name, &text_of_job).map_err(Failure::Job)?;
    let client = server.client()?;
    crate::commands::small_runtime()?.block_on(async {
        let mut document: DocumentMut = String::from_utf8_lossy(&text_of_job)
            .parse()
            .map_err(|error| Failure::wrong(format!("{name}: {error}")))?;
        for (stage, part) in &spec.stages {
            let PluginRef::Path(path) = &part.plugin else { continue };
            if Reference::is_meant(path) {
                let pulled = client.ask(Method::POST, "/v1/pulls", Body::Json(json!({"reference": path}))).await?;
                document["stage"][stage.as_str()]["plugin"] = toml_edit::value(text(&pulled["digest"]));
                continue;
            }
            let file = spec.resolve(path);
            // Other names are those of the service.
            if !path.contains('/') && !path.ends_with(".wasm") && !file.is_file() {
                continue;
            }
            let digest = push(&client, &file, None).await?;
            document["stage"][stage.as_str()]["plugin"] = toml_edit::value(text(&digest["digest"]));
        }
        let body = Body::Bytes(document.to_string().into_bytes(), "application/toml");
        let (method, verb) = if only_plan { (Method::POST, "/plan") } else { (Method::PUT, "") };
        client.ask(method, &format!("/v1/jobs/{}{verb}?allow_dropped={allow_dropped}", spec.name), body).await
    })
}

/// Sends the file of a plugin.
pub(super) async fn push(client: &Client, file: &Path, name: Option<&str>) -> Result<Value, Failure> {
    let bytes = std::fs::read(file).map_err(|error| Failure::file("read the plugin", file, &error))?;
    push_bytes(client, bytes, name).await
}

/// Sends a plugin.
pub(super) async fn push_bytes(client: &Client, bytes: Vec<u8>, name: Option<&str>) -> Result<Value, Failure> {
    let path = match name {
        Some(name) => format!("/v1/plugins?name={}", part(name)),
        None => "/v1/plugins".to_owned(),
    };
    client.ask(Method::POST, &path, Body::Bytes(bytes, "application/wasm")).await
}

pub(in crate::commands) fn ps(server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let jobs = ask(server, Method::GET, "/v1/jobs", Body::Nothing)?;
    if terminal.json {
        return terminal.print_json(&jobs);
    }
    let mut table = Table::new(&["job", "is", "wanted", "revision", "tasks", "why"]);
    for job in jobs.as_array().into_iter().flatten() {
        table.row([
            text(&job["job"]).to_owned(),
            text(&job["phase"]).to_owned(),
            text(&job["desired"]).to_owned(),
            job["revision"].to_string(),
            job["reserved"]["tasks"].to_string(),
            text(&job["reason"]).to_owned(),
        ]);
    }
    terminal.print(&table.render("", terminal.out))
}

/// `status JOB` of a service.
pub(in crate::commands) fn status(job: &str, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let view = ask(server, Method::GET, &format!("/v1/jobs/{}", part(job)), Body::Nothing)?;
    if terminal.json {
        return terminal.print_json(&view);
    }
    if view["status"].is_object() {
        if let Some(why) = view["over_budget"].as_str() {
            terminal.note(why);
        }
        return print_status(&view["status"], terminal);
    }
    let mut said = format!("{}: {}\n", terminal.out.bold(text(&view["job"])), text(&view["phase"]));
    if let Some(reason) = view["reason"].as_str() {
        said.push_str(&format!("  {reason}\n"));
    }
    for hint in view["hints"].as_array().into_iter().flatten() {
        said.push_str(&format!("  hint: {}\n", text(hint)));
    }
    terminal.print(&said)
}

/// `pause`, `resume`, `drain` and `stop` of a service.
pub(in crate::commands) fn tell(
    job: &str,
    verb: &str,
    server: &ServerArgs,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let view = ask(server, Method::POST, &format!("/v1/jobs/{}/{verb}", part(job)), Body::Nothing)?;
    if terminal.json {
        return terminal.print_json(&view);
    }
    terminal.print(&format!("{}: {}, wanted {}", text(&view["job"]), text(&view["phase"]), text(&view["desired"])))
}

pub(in crate::commands) fn rm(args: &JobArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    ask(server, Method::DELETE, &format!("/v1/jobs/{}", part(&args.job)), Body::Nothing)?;
    if terminal.json {
        return terminal.print_json(&json!({"job": args.job, "removed": true}));
    }
    terminal.print(&format!("{}: removed with its state", args.job))
}

pub(in crate::commands) fn logs(args: &LogsArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let (client, clock) = (server.client()?, RealClock::default());
    let logs = format!("/v1/jobs/{}/logs", part(&args.job));
    crate::commands::small_runtime()?.block_on(async {
        let mut path = format!("{logs}?limit={}", args.limit);
        loop {
            let page = client.ask(Method::GET, &path, Body::Nothing).await?;
            if terminal.json && !args.follow {
                return terminal.print_json(&page);
            }
            let lines = items(&page);
            let said: String = lines.iter().map(|line| log_line(line, terminal.json)).collect();
            if !said.is_empty() {
                terminal.print(&said)?;
            }
            if !args.follow {
                return Ok(());
            }
            if let Some(last) = lines.last().and_then(|line| line["number"].as_u64()) {
                path = format!("{logs}?limit={LINES_MAX}&from={}", last + 1);
            }
            clock.sleep(LOOK_AGAIN).await;
        }
    })
}

fn log_line(line: &Value, json: bool) -> String {
    if json {
        return format!("{line}\n");
    }
    let time = Timestamp(line["time"].as_i64().unwrap_or(0));
    let stage = line["stage"].as_str().map_or(String::new(), |stage| format!(" {stage}:"));
    format!("{time} {:<5}{stage} {}\n", text(&line["level"]), text(&line["message"]))
}

pub(in crate::commands) fn rescale(
    args: &RescaleArgs,
    server: &ServerArgs,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let body = Body::Json(json!({"node": args.node, "parallelism": args.parallelism}));
    let view = ask(server, Method::POST, &format!("/v1/jobs/{}/rescale", part(&args.job)), body)?;
    if terminal.json {
        return terminal.print_json(&view);
    }
    let (job, phase) = (text(&view["job"]), text(&view["phase"]));
    terminal.print(&format!("{job}: {phase}, {} with parallelism {}", args.node, args.parallelism))
}

/// `why JOB NODE` of a service.
pub(in crate::commands) fn why(job: &str, node: Option<&NodeName>, server: &ServerArgs) -> Result<Value, Failure> {
    let of = node.map(|node| format!("?node={node}")).unwrap_or_default();
    ask(server, Method::GET, &format!("/v1/jobs/{}/why{of}", part(job)), Body::Nothing)
}

/// What `swap` asks of a job of a service. The file of a plugin is pushed first.
pub(in crate::commands) fn change(job: &str, request: &Request, server: &ServerArgs) -> Result<Value, Failure> {
    let client = server.client()?;
    let job = format!("/v1/jobs/{}", part(job));
    crate::commands::small_runtime()?.block_on(async {
        let (verb, body) = match request {
            Request::Swap { stage, plugin, beside } => {
                let plugin = match named(plugin) {
                    PluginRef::Path(path) if Path::new(&path).is_file() => {
                        text(&push(&client, Path::new(&path), None).await?["digest"]).to_owned()
                    }
                    _ => plugin.clone(),
                };
                let mut body = json!({"stage": stage, "plugin": plugin});
                if let Some(asked) = beside {
                    match asked.mode {
                        Mode::Shadow => body["shadow"] = json!(true),
                        Mode::Canary(percent) => body["canary_percent"] = json!(percent),
                    }
                    if let Some(span) = asked.span {
                        body["span"] = json!(span);
                    }
                    body["promote"] = json!(asked.promote);
                }
                ("swap", body)
            }
            Request::Promote { stage } => ("promote", json!({"stage": stage})),
            Request::Rollback { stage } => ("rollback", json!({"stage": stage})),
            Request::Beside { stage } => {
                let path = format!("{job}/beside/{}", part(stage.as_str()));
                return client.ask(Method::GET, &path, Body::Nothing).await;
            }
            other => return Err(Failure::failed(format!("a service is not asked for {other:?} this way"))),
        };
        client.ask(Method::POST, &format!("{job}/{verb}"), Body::Json(body)).await
    })
}

/// Savepoints of a job of a service: `make`, `ls` and `restore`.
pub(in crate::commands) fn savepoint(
    job: &str,
    verb: &str,
    name: Option<&str>,
    server: &ServerArgs,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let path = format!("/v1/jobs/{}", part(job));
    let answer = match verb {
        "create" => ask(server, Method::POST, &format!("{path}/savepoints"), Body::Json(json!({"name": name})))?,
        "restore" => ask(server, Method::POST, &format!("{path}/restore"), Body::Json(json!({"savepoint": name})))?,
        _ => ask(server, Method::GET, &format!("{path}/savepoints"), Body::Nothing)?,
    };
    if terminal.json {
        return terminal.print_json(&answer);
    }
    match verb {
        "create" => terminal.print(&format!(
            "{}: epoch {}, {}",
            text(&answer["name"]),
            answer["epoch"],
            bytes(answer["bytes"].as_u64().unwrap_or(0))
        )),
        "restore" => {
            terminal.print(&format!("{job}: {}, from savepoint {}", text(&answer["phase"]), name.unwrap_or("")))
        }
        _ => {
            let mut table = Table::new(&["savepoint", "epoch", "size"]);
            for found in answer.as_array().into_iter().flatten() {
                let size = bytes(found["bytes"].as_u64().unwrap_or(0));
                table.row([text(&found["name"]).to_owned(), found["epoch"].to_string(), size]);
            }
            terminal.print(&table.render("", terminal.out))
        }
    }
}

/// Prints rows as they come, one JSON object a line.
pub(in crate::commands) fn tap(args: &TapArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let client = server.client()?;
    let mut path = format!("/v1/jobs/{}/tap/{}", part(&args.job), part(&args.node));
    if let Some(limit) = args.limit {
        path.push_str(&format!("?limit={limit}"));
    }
    crate::commands::small_runtime()?.block_on(async {
        let mut body = client.open(Method::GET, &path, Body::Nothing).await?.into_body();
        let (mut rest, mut event) = (Vec::new(), String::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::failed(format!("the rows broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                if let Some(name) = line.strip_prefix("event:") {
                    event = name.trim().to_owned();
                } else if let Some(data) = line.strip_prefix("data:") {
                    tell_row(&event, data.trim(), terminal)?;
                }
            }
        }
        Ok(())
    })
}

fn tell_row(event: &str, data: &str, terminal: &Terminal) -> Result<(), Failure> {
    if event == "lost" {
        let lost: Value = serde_json::from_str(data).unwrap_or_default();
        terminal.say(&format!(
            "lost {} rows: they came faster than they were read",
            grouped(lost["rows"].as_u64().unwrap_or(0))
        ));
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{data}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}
