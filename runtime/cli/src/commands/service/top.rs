//! `wasmill top`: jobs and their nodes, as they go.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};
use wasmill_env::{Clock, RealClock};
use wasmill_spec::Period;

use super::{part, text};
use crate::failure::Failure;
use crate::remote::{Body, Client, ServerArgs};
use crate::terminal::{Style, Table, Terminal, bytes, duration, grouped, items};

/// Running jobs that are looked into; of others only the state is shown.
const JOBS_MAX: usize = 32;
/// What a terminal shows that does not say how high it is.
const LINES: usize = 40;

#[derive(Debug, Args)]
pub(in crate::commands) struct TopArgs {
    /// Only this job
    job: Option<String>,
    /// From one look to the next
    #[arg(long, default_value = "2s", value_name = "TIME")]
    every: Period,
    /// Show two looks' difference once, and end
    #[arg(long)]
    once: bool,
}

/// A service at one moment.
#[derive(Debug, Default)]
struct Look {
    /// Monotonic nanoseconds.
    nanos: u64,
    /// As the service lists them; running ones with their status, as far as they were looked into.
    jobs: Vec<Value>,
}

/// Looks again and again, until it is told to end.
pub(in crate::commands) fn top(args: &TopArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let client = server.client()?;
    let clock = RealClock::default();
    let every = args.every.as_duration().max(Duration::from_millis(200));
    let live = std::io::stdout().is_terminal() && terminal.out.colour && !args.once && !terminal.json;
    crate::commands::small_runtime()?.block_on(async {
        let mut before = look(&client, args.job.as_deref(), &clock).await?;
        loop {
            clock.sleep(every).await;
            let now = look(&client, args.job.as_deref(), &clock).await?;
            let wall = clock.wall().0;
            if terminal.json {
                terminal.print(&summary(&before, &now, wall).to_string())?;
            } else {
                let lines = terminal_size::terminal_size().map_or(LINES, |(_, height)| usize::from(height.0));
                let lines = if live { lines.saturating_sub(1) } else { usize::MAX };
                let page = render(&summary(&before, &now, wall), terminal.out, lines);
                // A page takes the place of the one before; what was longer is wiped away.
                terminal.print(&if live { format!("\x1b[H\x1b[2J{page}") } else { page })?;
            }
            if args.once {
                return Ok(());
            }
            before = now;
        }
    })
}

async fn look(client: &Client, only: Option<&str>, clock: &RealClock) -> Result<Look, Failure> {
    let mut jobs = match only {
        Some(job) => vec![client.ask(Method::GET, &format!("/v1/jobs/{}", part(job)), Body::Nothing).await?],
        None => match client.ask(Method::GET, "/v1/jobs", Body::Nothing).await? {
            Value::Array(jobs) => jobs,
            _ => Vec::new(),
        },
    };
    for job in jobs.iter_mut().filter(|job| job["phase"] == "running" && job["status"].is_null()).take(JOBS_MAX) {
        // One that is removed meanwhile is shown as it was.
        if let Ok(view) = client.ask(Method::GET, &format!("/v1/jobs/{}", part(text(&job["job"]))), Body::Nothing).await
        {
            *job = view;
        }
    }
    Ok(Look { nanos: clock.monotonic_nanos(), jobs })
}

fn nodes(look: &Look) -> impl Iterator<Item = ((&str, &str), &Value)> {
    look.jobs.iter().flat_map(|job| {
        let nodes = job["status"]["nodes"].as_array().into_iter().flatten();
        nodes.map(|node| ((text(&job["job"]), text(&node["name"])), node))
    })
}

/// What happened between two looks, for programs and people: rates a second, shares of the time.
fn summary(before: &Look, now: &Look, wall_micros: i64) -> Value {
    let seconds = now.nanos.saturating_sub(before.nanos) as f64 / 1e9;
    let known: BTreeMap<_, _> = nodes(before).collect();
    let node = |job: &str, node: &Value| {
        let old = known.get(&(job, text(&node["name"]))).copied();
        // A job that was started meanwhile counts from nothing.
        let more = |key: &str| {
            let (now, old) = (node[key].as_u64().unwrap_or(0), old.map_or(0, |old| old[key].as_u64().unwrap_or(0)));
            (now.checked_sub(old).unwrap_or(now) as f64 / seconds.max(1e-9) * 1e3).round() / 1e3
        };
        let faults: u64 = ["traps", "timeouts", "faults"].iter().filter_map(|key| node[*key].as_u64()).sum();
        let lag = node["watermark_micros"].as_i64().map(|watermark| wall_micros.saturating_sub(watermark));
        json!({
            "node": node["name"],
            "kind": node["kind"],
            "rows_in_per_second": more("rows_in"),
            "rows_out_per_second": more("rows_out"),
            "busy": more("busy_nanos") / 1e9,
            "blocked": more("blocked_nanos") / 1e9,
            "call_p99_nanos": node["calls"]["p99_nanos"],
            "lag_micros": lag,
            "memory_bytes": node["memory_bytes"],
            "rejected": node["rejected"],
            "faults": faults,
        })
    };
    let jobs = now.jobs.iter().map(|job| {
        let name = text(&job["job"]);
        let status = &job["status"];
        json!({
            "job": name,
            "phase": job["phase"],
            "reason": job["reason"],
            "starts": job["starts"],
            "epoch": status["epoch"],
            "latency_p99_nanos": status["latency"]["p99_nanos"],
            "nodes": status["nodes"].as_array().into_iter().flatten().map(|it| node(name, it)).collect::<Vec<_>>(),
        })
    });
    json!({"seconds": seconds, "jobs": jobs.collect::<Vec<_>>()})
}

/// A page of so many lines.
fn render(summary: &Value, style: Style, lines: usize) -> String {
    let jobs = items(&summary["jobs"]);
    let mut phases: BTreeMap<&str, u64> = BTreeMap::new();
    jobs.iter().for_each(|job| *phases.entry(text(&job["phase"])).or_default() += 1);
    let phases: Vec<String> = phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    let head = if jobs.is_empty() { "no jobs".to_owned() } else { phases.join(", ") };
    let mut table = Table::new(&[
        "job", "node", "is", "in/s", "out/s", "p99", "lag", "busy", "blocked", "memory", "rejected", "faults", "starts",
    ]);
    // Those with something to see come first.
    let mut sorted: Vec<&Value> = jobs.iter().collect();
    sorted.sort_by_key(|job| match text(&job["phase"]) {
        "failed" | "waiting" => 0,
        "running" => 1,
        "hibernating" => 3,
        _ => 2,
    });
    for job in sorted {
        let starts = job["starts"].as_u64().map_or_else(String::new, grouped);
        let p99 = job["latency_p99_nanos"].as_u64().filter(|nanos| *nanos > 0).map_or_else(String::new, duration);
        let none = || String::new();
        table.row([
            text(&job["job"]).to_owned(),
            none(),
            text(&job["phase"]).to_owned(),
            none(),
            none(),
            p99,
            none(),
            none(),
            none(),
            none(),
            none(),
            none(),
            starts,
        ]);
        for node in job["nodes"].as_array().into_iter().flatten() {
            let rate = |key: &str| grouped(node[key].as_f64().unwrap_or(0.0).round() as u64);
            let share = |key: &str| format!("{:.0}%", node[key].as_f64().unwrap_or(0.0) * 100.0);
            let some = |key: &str, show: fn(u64) -> String| {
                node[key].as_u64().filter(|number| *number > 0).map_or_else(String::new, show)
            };
            let lag = node["lag_micros"].as_i64().map(|micros| duration(micros.max(0).unsigned_abs() * 1_000));
            let is_sink = node["kind"] == "sink";
            table.row([
                none(),
                text(&node["node"]).to_owned(),
                text(&node["kind"]).to_owned(),
                rate("rows_in_per_second"),
                if is_sink { none() } else { rate("rows_out_per_second") },
                some("call_p99_nanos", duration),
                lag.unwrap_or_default(),
                share("busy"),
                share("blocked"),
                some("memory_bytes", bytes),
                some("rejected", grouped),
                some("faults", grouped),
                none(),
            ]);
        }
    }
    let mut page = format!("{}\n\n", style.bold(&head));
    if !jobs.is_empty() {
        page.push_str(&table.render("", style));
    }
    let all = page.lines().count();
    if all <= lines {
        return page;
    }
    let kept: Vec<&str> = page.lines().take(lines.saturating_sub(1)).collect();
    format!("{}\n{}\n", kept.join("\n"), style.dim(&format!("… {} more lines: name a job", all - kept.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, rows: u64, running: bool) -> Look {
        let node = |name: &str, kind: &str| {
            json!({
                "name": name, "kind": kind, "rows_in": rows, "rows_out": rows / 2, "busy_nanos": rows * 100_000,
                "blocked_nanos": rows * 250_000, "calls": {"p99_nanos": 4_096_000}, "watermark_micros": 7_000_000,
                "memory_bytes": 1 << 20, "rejected": 3, "traps": 1, "timeouts": 0, "faults": 1,
            })
        };
        let status = json!({"epoch": 9, "latency": {"p99_nanos": 2_500_000}, "nodes": [
            node("in", "source"), node("out", "sink"),
        ]});
        let job = json!({"job": "orders", "phase": "running", "starts": 2, "reason": null, "status": status});
        let rests = json!({"job": "quiet", "phase": "hibernating", "starts": 1, "reason": null});
        let jobs = if running { vec![rests, job] } else { vec![rests] };
        Look { nanos: seconds * 1_000_000_000, jobs }
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let summary = summary(&at(10, 1_000, true), &at(12, 3_000, true), 9_000_000);
        let node = &summary["jobs"][1]["nodes"][0];
        assert_eq!((&node["rows_in_per_second"], &node["rows_out_per_second"]), (&json!(1_000.0), &json!(500.0)));
        assert_eq!((&node["busy"], &node["blocked"]), (&json!(0.1), &json!(0.25)));
        assert_eq!((&node["lag_micros"], &node["faults"]), (&json!(2_000_000), &json!(2)));
    }

    #[test]
    fn a_job_that_was_started_anew_counts_from_nothing() {
        for before in [at(10, 5_000, true), at(10, 0, false)] {
            let summary = summary(&before, &at(12, 1_000, true), 0);
            assert_eq!(summary["jobs"][1]["nodes"][0]["rows_in_per_second"], 500.0);
        }
    }

    #[test]
    fn a_page_shows_what_runs_first_and_fits() {
        let summary = summary(&at(10, 1_000, true), &at(12, 3_000, true), 9_000_000);
        let page = render(&summary, Style::PLAIN, usize::MAX);
        let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "1 hibernating, 1 running");
        assert!(lines[2].starts_with("job ") && lines[2].ends_with("starts"), "{page}");
        assert!(lines[3].starts_with("orders") && lines[3].contains("2.50 ms") && lines[3].ends_with('2'), "{page}");
        for part in ["in", "source", "1,000", "500", "4.10 ms", "2.00 s", "10%", "25%", "1.0 MiB"] {
            assert!(lines[4].contains(part), "{part}: {page}");
        }
        assert!(lines[6].starts_with("quiet") && lines[6].contains("hibernating"), "{page}");
        let page = render(&summary, Style::PLAIN, 5);
        assert_eq!(page.lines().count(), 5);
        assert!(page.ends_with("more lines: name a job\n"), "{page}");
        assert_eq!(render(&json!({"jobs": []}), Style::PLAIN, 10), "no jobs\n\n");
    }
}
