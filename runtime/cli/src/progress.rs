//! Standard error: lines that stay, and below them lines that live.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;
use wasmill_engine::NodeSnapshot;
use wasmill_model::Timestamp;

use crate::terminal::{Style, Table, bytes, duration, grouped};

/// Rates are means over this long.
const RATE_NANOS: u64 = 2_000_000_000;
const BAR_CELLS: u64 = 20;

/// Standard error. Whoever writes a line takes the live lines away; the next frame brings them back.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    live: Mutex<usize>,
}

impl Screen {
    /// A line that stays. What cannot be written to standard error is lost: nobody could be told.
    pub(crate) fn line(&self, text: &str) {
        self.write(&format!("{text}\n"), 0);
    }

    /// Puts these lines in place of the live ones.
    pub(crate) fn live(&self, lines: &[String]) {
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        self.write(&text, lines.len());
    }

    fn write(&self, text: &str, live: usize) {
        let mut shown = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        if *shown > 0 {
            out = format!("\x1b[{}A\x1b[J", *shown);
        }
        out.push_str(text);
        *shown = live;
        drop(io::stderr().lock().write_all(out.as_bytes()));
    }
}

/// Log lines, written between frames of the live lines.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter(pub(crate) Arc<Screen>);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.line(String::from_utf8_lossy(line).trim_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a source counts its input in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Events,
}

impl Unit {
    fn show(self, number: u64) -> String {
        match self {
            Self::Bytes => bytes(number),
            Self::Events => grouped(number),
        }
    }
}

/// What a node is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Source { bounded: bool, unit: Unit },
    Stage,
    Sink,
}

impl Role {
    /// As [`wasmill_plan::NodeKind::name`].
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Source { .. } => "source",
            Self::Stage => "stage",
            Self::Sink => "sink",
        }
    }
}

/// The live lines of a running job.
#[derive(Debug)]
pub(crate) struct Progress {
    job: String,
    roles: Vec<Role>,
    /// Monotonic nanoseconds and rows in, within the last [`RATE_NANOS`] and one before.
    samples: VecDeque<(u64, u64)>,
}

/// A moment of a running job.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    /// Nanoseconds since the job started.
    pub(crate) nanos: u64,
    pub(crate) wall: Timestamp,
    /// In the order of the roles.
    pub(crate) nodes: &'a [NodeSnapshot],
    /// Whether the user has asked the job to stop.
    pub(crate) stopping: bool,
}

/// How frames look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) style: Style,
    pub(crate) width: usize,
    /// A table of all nodes.
    pub(crate) nodes: bool,
}

impl Progress {
    pub(crate) fn new(job: &str, roles: Vec<Role>) -> Self {
        Self { job: job.to_owned(), roles, samples: VecDeque::new() }
    }

    /// The next frame.
    pub(crate) fn frame(&mut self, at: &Moment<'_>, look: Look) -> Vec<String> {
        let rows_in = self.sum(at, |role| matches!(role, Role::Source { .. }), |node| node.rows_in);
        let rows_out = self.sum(at, |role| role == Role::Sink, |node| node.rows_in);
        let rate = self.rate(at.nanos, rows_in);
        let mut head = format!(
            "{} {}, {} rows in, {} out, {} a second",
            look.style.bold(&self.job),
            if at.stopping { "stops".to_owned() } else { duration(at.nanos) },
            grouped(rows_in),
            grouped(rows_out),
            grouped(rate),
        );
        let all = |rows: fn(&NodeSnapshot) -> u64| self.sum(at, |_| true, rows);
        for (what, rows) in [
            ("rejected", all(|n| n.rejected)),
            ("late", all(|n| n.late)),
            ("held in order", all(|n| n.ordering.map_or(0, |ordering| ordering.held))),
            ("late for their order", all(|n| n.ordering.map_or(0, |ordering| ordering.late))),
            ("dropped", all(|n| n.counts.dropped)),
            ("spilled", all(|n| n.counts.spilled)),
            ("times held", all(|n| n.counts.held)),
        ] {
            if rows > 0 {
                head.push_str(&look.style.warning(&format!(", {} {what}", grouped(rows))));
            }
        }
        let mut lines = vec![head];
        for (role, node) in self.roles.iter().zip(at.nodes) {
            if let Role::Source { bounded, unit } = role {
                lines.push(format!("  {}", source_line(node, *bounded, *unit, at)));
            }
        }
        if look.nodes {
            lines.extend(node_table(&self.roles, at).render("  ", look.style).lines().map(str::to_owned));
        }
        lines.iter().map(|line| clipped(line, look.width)).collect()
    }

    fn sum(&self, at: &Moment<'_>, which: impl Fn(Role) -> bool, what: impl Fn(&NodeSnapshot) -> u64) -> u64 {
        self.roles.iter().zip(at.nodes).filter(|(role, _)| which(**role)).map(|(_, node)| what(node)).sum()
    }

    fn rate(&mut self, nanos: u64, rows: u64) -> u64 {
        self.samples.push_back((nanos, rows));
        while self.samples.get(1).is_some_and(|second| nanos.saturating_sub(second.0) >= RATE_NANOS) {
            self.samples.pop_front();
        }
        let (since, before) = self.samples.front().copied().unwrap_or((nanos, rows));
        per_second(rows.saturating_sub(before), nanos.saturating_sub(since))
    }
}

/// Rows a second.
pub(crate) fn per_second(rows: u64, nanos: u64) -> u64 {
    if nanos == 0 { 0 } else { (rows as f64 * 1e9 / nanos as f64) as u64 }
}

fn source_line(node: &NodeSnapshot, bounded: bool, unit: Unit, at: &Moment<'_>) -> String {
    let name = node.name.as_str();
    if bounded && node.read_total > 0 {
        let (read, total) = (node.read.min(node.read_total), node.read_total);
        let cells = (u128::from(read) * u128::from(BAR_CELLS) / u128::from(total)) as usize;
        let percent = u128::from(read) * 100 / u128::from(total);
        let bar = format!("{:-<width$}", "#".repeat(cells), width = BAR_CELLS as usize);
        let mut line = format!("{name} [{bar}] {percent} %, {} of {}", unit.show(read), unit.show(total));
        if read > 0 && read < total {
            let left = u128::from(at.nanos) * u128::from(total - read) / u128::from(read);
            line.push_str(&format!(", {} to go", duration(u64::try_from(left).unwrap_or(u64::MAX))));
        }
        return line;
    }
    match node.watermark {
        Timestamp::MIN => format!("{name}: no event yet"),
        Timestamp::MAX => format!("{name}: at its end"),
        watermark => {
            let behind = at.wall.0.saturating_sub(watermark.0).max(0).unsigned_abs().saturating_mul(1_000);
            format!("{name}: watermark {watermark}, {} behind the clock", duration(behind))
        }
    }
}

/// All nodes with their counters.
pub(crate) fn node_table(roles: &[Role], at: &Moment<'_>) -> Table {
    let mut table = Table::new(&["node", "in", "out", "a second", "batch", "busy", "rejected", "late", "watermark"]);
    for (role, node) in roles.iter().zip(at.nodes) {
        let is_sink = *role == Role::Sink;
        table.row([
            node.name.to_string(),
            grouped(node.rows_in),
            if is_sink { String::new() } else { grouped(node.rows_out) },
            grouped(per_second(node.rows_in, at.nanos)),
            grouped(node.rows_in.checked_div(node.batches).unwrap_or(0)),
            format!("{} %", u128::from(node.busy_nanos) * 100 / u128::from(at.nanos.max(1))),
            grouped(node.rejected),
            grouped(node.late),
            node.watermark.to_string(),
        ]);
    }
    table
}

/// The line, cut to `width` visible characters.
fn clipped(line: &str, width: usize) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut seen, mut escape) = (0, false);
    for c in line.chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, _) => {
                seen += 1;
                if seen > width {
                    continue;
                }
            }
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmill_model::NodeName;

    fn node(name: &str, rows_in: u64, rows_out: u64) -> NodeSnapshot {
        NodeSnapshot {
            name: NodeName::new(name).expect("a name"),
            rows_in,
            rows_out,
            bytes_in: 0,
            batches: rows_in / 10,
            rejected: 0,
            late: 0,
            splits: 0,
            counts: Default::default(),
            busy_nanos: 0,
            guest_cpu_nanos: 0,
            read: 0,
            read_total: 0,
            watermark: Timestamp::MIN,
            guest: Default::default(),
            ordering: None,
            skewed: 0,
            calls: Default::default(),
            batch_rows: Default::default(),
            blocked_nanos: 0,
            traps: 0,
            timeouts: 0,
            faults: 0,
            swaps: 0,
            memory_bytes: 0,
            opened: 1,
        }
    }

    const LOOK: Look = Look { style: Style::PLAIN, width: 120, nodes: false };

    #[test]
    fn bounded_input_shows_how_far_it_is() {
        let mut progress = Progress::new("j", vec![Role::Source { bounded: true, unit: Unit::Bytes }, Role::Sink]);
        let source = NodeSnapshot { read: 1 << 20, read_total: 4 << 20, rejected: 7, ..node("a", 1_000, 1_000) };
        let nodes = [source, node("b", 900, 0)];
        let moment = |nanos| Moment { nanos, wall: Timestamp(0), nodes: &nodes, stopping: false };
        progress.frame(&moment(0), LOOK);
        let frame = progress.frame(&moment(1_000_000_000), LOOK);
        assert_eq!(frame[0], "j 1.00 s, 1,000 rows in, 900 out, 0 a second, 7 rejected");
        assert_eq!(frame[1], "  a [#####---------------] 25 %, 1.0 MiB of 4.0 MiB, 3.00 s to go");
    }

    #[test]
    fn endless_input_shows_its_watermark() {
        let mut progress = Progress::new("j", vec![Role::Source { bounded: false, unit: Unit::Bytes }]);
        let nodes = [NodeSnapshot { watermark: Timestamp(1_000_000), ..node("a", 10, 10) }];
        let moment = Moment { nanos: 1, wall: Timestamp(3_500_000), nodes: &nodes, stopping: true };
        let frame = progress.frame(&moment, LOOK);
        assert_eq!(frame[0], "j stops, 10 rows in, 0 out, 0 a second");
        assert_eq!(frame[1], "  a: watermark 1970-01-01T00:00:01.000Z, 2.50 s behind the clock");
        let narrow = progress.frame(&moment, Look { width: 5, ..LOOK });
        assert_eq!(narrow, ["j sto", "  a: "]);
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut progress = Progress::new("j", vec![]);
        let second = 1_000_000_000;
        assert_eq!(progress.rate(0, 0), 0);
        assert_eq!(progress.rate(second, 100), 100);
        assert_eq!(progress.rate(2 * second, 200), 100);
        assert_eq!(progress.rate(3 * second, 200), 50);
        assert_eq!(progress.rate(5 * second, 200), 0);
        assert!(progress.samples.len() <= 4);
    }

    #[test]
    fn colours_take_no_width() {
        assert_eq!(clipped("\x1b[1mabc\x1b[0md", 3), "\x1b[1mabc\x1b[0m");
    }
}
