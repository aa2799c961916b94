//! `wasmill usage`: what a tenant has of what it may have.

use hyper::Method;
use serde_json::Value;

use super::ask;
use crate::failure::Failure;
use crate::remote::{Body, ServerArgs};
use crate::terminal::{Style, Table, Terminal, bytes, count, duration, grouped, text};

/// Budgets of things that are held, and what is held of each goes by the same name.
const HELD: &[&str] =
    &["jobs", "tasks", "memory_bytes", "state_bytes", "topic_bytes", "timers", "metric_series", "plugins", "tokens"];

/// What the tenant has used, has and may have.
pub(in crate::commands) fn usage(server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let usage = ask(server, Method::GET, "/v1/usage", Body::Nothing)?;
    if terminal.json {
        return terminal.print_json(&usage);
    }
    if let Some(why) = usage["over_budget"].as_str() {
        terminal.note(why);
    }
    terminal.print(&render(&usage, terminal.out))
}

fn amount(budget: &str, number: u64) -> String {
    if budget.ends_with("_bytes") { bytes(number) } else { grouped(number) }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn render(usage: &Value, style: Style) -> String {
    let (used, has, budget) = (&usage["used"], &usage["has"], &usage["budget"]);
    let mut table = Table::new(&["budget", "has", "may have", "%"]);
    for name in HELD {
        let (held, limit) = (number(&has[name]), number(&budget[name]));
        let part = match limit {
            0 => "-".to_owned(),
            limit => format!("{:.1}", held as f64 * 100.0 / limit as f64),
        };
        table.row([(*name).to_owned(), amount(name, held), amount(name, limit), part]);
    }
    let ceiling = match budget["cpu_ceiling_millicores"].as_u64() {
        Some(ceiling) => format!("at most {ceiling} thousandths of a core"),
        None => "no ceiling".to_owned(),
    };
    format!(
        "{}\n{}CPU: {} of tasks since the service was started, {} waited for; weight {}, {ceiling}\n\
         since it was made: {} read, {} put out, {} rejected, {} of CPU in plugins\n\
         over budget: {} refused, held back {}, {} dropped\n",
        style.bold(text(&usage["tenant"])),
        table.render("  ", style),
        duration(number(&has["cpu_nanos"])),
        duration(number(&has["cpu_waited_nanos"])),
        budget["cpu_share"],
        count(number(&used["rows_in"]), "row"),
        count(number(&used["rows_out"]), "row"),
        grouped(number(&used["rejected"])),
        duration(number(&used["guest_cpu_nanos"])),
        count(number(&has["refused"]), "call"),
        count(number(&has["throttled"]), "time"),
        count(number(&has["log_lines_dropped"]), "log line"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_tenant_has_stands_beside_what_it_may_have() {
        let usage = json!({
            "tenant": "acme",
            "used": {"rows_in": 1_000, "rows_out": 1, "rejected": 0, "guest_cpu_nanos": 1_250_000},
            "has": {
                "jobs": 2, "state_bytes": 3 << 20, "cpu_nanos": 2_000_000_000_u64, "cpu_waited_nanos": 0,
                "refused": 4, "throttled": 1, "log_lines_dropped": 7,
            },
            "budget": {"jobs": 16, "state_bytes": 12 << 20, "cpu_share": 100, "cpu_ceiling_millicores": 500},
        });
        let said = render(&usage, Style::PLAIN);
        let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["acme"]);
        assert_eq!(lines[2], ["jobs", "2", "16", "12.5"]);
        assert!(lines.contains(&vec!["state_bytes", "3.0", "MiB", "12.0", "MiB", "25.0"]), "{said}");
        assert!(lines.contains(&vec!["plugins", "0", "0", "-"]), "{said}");
        assert!(
            said.contains(
                "CPU: 2.00 s of tasks since the service was started, 0 ns waited for; weight 100, at most 500"
            )
        );
        assert!(said.ends_with("over budget: 4 calls refused, held back 1 time, 7 log lines dropped\n"), "{said}");
    }
}
