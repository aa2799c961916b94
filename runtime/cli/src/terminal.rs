//! What the program prints, and where: results on standard output, everything else on standard
//! error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use serde_json::Value;

use crate::failure::Failure;
use crate::progress::Screen;

/// How this run of the program prints.
#[derive(Debug, Clone)]
pub(crate) struct Terminal {
    /// Results as JSON, nothing for people on standard output.
    pub(crate) json: bool,
    /// More for people.
    pub(crate) verbose: bool,
    /// Whether standard output shows colours.
    pub(crate) out: Style,
    /// Whether standard error shows colours.
    pub(crate) err: Style,
    /// Standard error, shared with log lines and live progress.
    pub(crate) screen: Arc<Screen>,
}

impl Terminal {
    /// Looks at where the output goes and at `NO_COLOR`.
    pub(crate) fn new(json: bool, verbose: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            json,
            verbose,
            out: Style { colour: wanted && io::stdout().is_terminal() },
            err: Style { colour: wanted && io::stderr().is_terminal() },
            screen: Arc::default(),
        }
    }

    /// Writes a result to standard output, a line break behind it.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| if text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") })
            .and_then(|()| out.flush())
            .map_err(|error| Failure::output(&error))
    }

    /// Writes a result as JSON to standard output: one line for programs, indented for people.
    pub(crate) fn print_json(&self, value: &Value) -> Result<(), Failure> {
        self.print(&if io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() })
    }

    /// Tells people something that is not the result.
    pub(crate) fn say(&self, text: &str) {
        self.screen.line(text);
    }

    /// [`Terminal::say`], left out under `--json`.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            self.say(text);
        }
    }
}

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) colour: bool,
}

impl Style {
    /// Text without colours, for tests.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { colour: false };

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.paint("1;33", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }
}

/// Text in columns. Numbers stand to the right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a head.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines of the table, each with `indent` in front.
    pub(crate) fn render(&self, indent: &str, style: Style) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: usize, column: usize| self.rows[row].get(column).map_or("", String::as_str);
        let is_number = |column: usize| {
            (1..self.rows.len()).all(|row| cell(row, column).chars().next().is_none_or(|first| first.is_ascii_digit()))
        };
        let widths: Vec<usize> = (0..columns)
            .map(|column| (0..self.rows.len()).map(|row| cell(row, column).chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in 0..self.rows.len() {
            let mut line = String::new();
            for (column, &width) in widths.iter().enumerate() {
                let text = cell(row, column);
                let gap = if column == 0 { "" } else { "  " };
                // Writing to a string cannot fail.
                let _ok = if is_number(column) {
                    write!(line, "{gap}{text:>width$}")
                } else {
                    write!(line, "{gap}{text:<width$}")
                };
            }
            let line = line.trim_end();
            text.push_str(indent);
            text.push_str(&if row == 0 { style.dim(line) } else { line.to_owned() });
            text.push('\n');
        }
        text
    }
}

/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.2 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A length of time with three digits that matter: `950 us`, `1.25 ms`, `12.3 s`, `4 m 05 s`.
pub(crate) fn duration(nanos: u64) -> String {
    let seconds = nanos as f64 / 1e9;
    let digits = |value: f64| if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.*} us", digits(seconds * 1e6), seconds * 1e6),
        1_000_000..1_000_000_000 => format!("{:.*} ms", digits(seconds * 1e3), seconds * 1e3),
        1_000_000_000..60_000_000_000 => format!("{:.*} s", digits(seconds), seconds),
        _ => {
            let whole = nanos / 1_000_000_000;
            match whole / 60 {
                minutes @ 0..60 => format!("{minutes} m {:02} s", whole % 60),
                minutes => format!("{} h {:02} m", minutes / 60, minutes % 60),
            }
        }
    }
}

/// A digest as people tell it from others: `sha256:0123456789ab`.
pub(crate) fn short_digest(digest: &str) -> &str {
    digest.get(.."sha256:0123456789ab".len()).unwrap_or(digest)
}

/// `1 row`, `2 rows`.
pub(crate) fn count(number: u64, one: &str) -> String {
    format!("{} {one}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A text in an answer; nothing where it holds none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What a list in an answer holds; nothing where it is none.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1_023, 1_536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(
            [17, 1_250, 1_250_000, 12_340_000_000, 125_000_000_000, 7_260_000_000_000].map(duration),
            ["17 ns", "1.25 us", "1.25 ms", "12.3 s", "2 m 05 s", "2 h 01 m"]
        );
        assert_eq!([count(1, "row"), count(2, "row")], ["1 row", "2 rows"]);
    }

    #[test]
    fn columns_of_numbers_stand_to_the_right() {
        let mut table = Table::new(&["node", "rows"]);
        table.row(["a".into(), "1,000".into()]);
        table.row(["longer".into(), "7".into()]);
        assert_eq!(table.render("  ", Style::PLAIN), "  node     rows\n  a       1,000\n  longer      7\n");
    }
}
