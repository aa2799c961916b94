use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Bytes `start..end` of a job file.
pub type Span = Range<usize>;

/// A job file, for diagnostics that show its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name as the user gave it.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl SourceFile {
    /// Line and column of a byte, both from 1; the column counts characters.
    #[must_use]
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let byte = floor_boundary(&self.text, byte);
        let before = &self.text[..byte];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The part of `span` that is on its first line, on character boundaries and not empty where
    /// the line has a character to show.
    fn visible(&self, span: &Span) -> Span {
        let start = floor_boundary(&self.text, span.start);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = floor_boundary(&self.text, span.end).clamp(start, line_end);
        let end = start + self.text[start..end].trim_end().len();
        match self.text[start..line_end].chars().next() {
            Some(first) if end == start => start..start + first.len_utf8(),
            _ => start..end,
        }
    }
}

/// The text with spaces in place of white space that is none of ` `, `\t` and `\n`, as many bytes: the renderer takes
/// the widths of such for others than it shows.
fn blank(text: &str) -> Cow<'_, str> {
    let is_odd = |c: char| c.is_whitespace() && !matches!(c, ' ' | '\t' | '\n');
    if !text.replace("\r\n", "").contains(is_odd) {
        return text.into();
    }
    let mut blank = String::with_capacity(text.len());
    for c in text.chars() {
        if is_odd(c) { blank.extend(std::iter::repeat_n(' ', c.len_utf8())) } else { blank.push(c) }
    }
    blank.into()
}

/// A span that lies in the white space before a line, made as long as that: the renderer leaves it out of long lines,
/// and cannot do without what it marks.
fn reach_text(text: &str, span: Span) -> Span {
    let begin = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[begin..].split('\n').next().unwrap_or_default();
    let indent = begin + line.len() - line.trim_start().len();
    span.start..span.end.max(indent)
}

fn floor_boundary(text: &str, byte: usize) -> usize {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}

/// Longest text of a diagnostic, in characters.
const TEXT_LENGTH_MAX: usize = 500;

/// The text without control characters, which a file or a plugin may have put there to steer the
/// terminal, and not longer than anyone reads.
fn inert(text: String) -> String {
    if text.len() <= TEXT_LENGTH_MAX && !text.contains(char::is_control) {
        return text;
    }
    let mut shown = String::new();
    for c in text.chars().take(TEXT_LENGTH_MAX) {
        match c {
            '\n' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    if text.chars().nth(TEXT_LENGTH_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a job can run with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

/// Something about a job file that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with the value.
    pub message: String,
    /// The file.
    pub source: Arc<SourceFile>,
    /// Where, if it is at one place.
    pub span: Option<Span>,
    /// A few words under the marked text.
    pub label: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(source: &Arc<SourceFile>, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: inert(message.into()),
            source: Arc::clone(source),
            span: Some(span),
            label: None,
            hint: None,
        }
    }

    /// A warning at a place.
    #[must_use]
    pub fn warning(source: &Arc<SourceFile>, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(source, span, message) }
    }

    /// The same with a few words under the marked text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(inert(label.into()));
        self
    }

    /// The same with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(inert(hint.into()));
        self
    }

    /// Text for people: message, file, line, the marked text, the hint. Ends with a line break.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let shown = blank(&self.source.text);
        let mut group = match &self.span {
            Some(span) => {
                let span = reach_text(&shown, self.source.visible(span));
                let mark = AnnotationKind::Primary.span(span).label(self.label.as_deref());
                let snippet = Snippet::source(&*shown).path(self.source.name.as_str()).annotation(mark);
                level.primary_title(self.message.as_str()).element(snippet)
            }
            None => Group::with_title(level.primary_title(format!("{}: {}", self.source.name, self.message))),
        };
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = renderer.render(&[group]);
        text.push('\n');
        text
    }

    /// The same for programs; lines and columns count from 1.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let place = self.span.as_ref().map(|span| {
            let ((line, column), (end_line, end_column)) =
                (self.source.position(span.start), self.source.position(span.end));
            let text = &self.source.text[self.source.visible(span)];
            serde_json::json!({
                "line": line, "column": column, "end_line": end_line, "end_column": end_column, "text": text,
            })
        });
        serde_json::json!({
            "severity": self.severity,
            "message": self.message,
            "file": self.source.name,
            "place": place,
            "label": self.label,
            "hint": self.hint,
        })
    }
}

/// The known name that was probably meant.
#[must_use]
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `a`, `b` and `c`, each in backticks.
#[must_use]
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match (quoted.pop(), quoted.len()) {
        (None, _) => "nothing".to_owned(),
        (Some(only), 0) => only,
        (Some(last), _) => format!("{} and {last}", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Arc<SourceFile> {
        Arc::new(SourceFile { name: "job.toml".into(), text: text.into() })
    }

    #[test]
    fn a_span_anywhere_renders_without_a_panic() {
        let source = file("näme = \"ü\"\r\n\n[söurce]\n");
        for start in 0..30 {
            for end in 0..30 {
                let diagnostic = Diagnostic::error(&source, start..end, "wrong").label("here");
                assert!(diagnostic.render(false).contains("job.toml:"));
                assert!(diagnostic.to_json()["place"]["line"].as_u64() >= Some(1));
            }
        }
        assert!(Diagnostic::error(&file(""), 0..0, "empty").render(true).contains("empty"));
    }

    #[test]
    fn texts_cannot_steer_the_terminal() {
        let source = file("a = 1");
        let wrong = Diagnostic::error(&source, 0..1, "\u{1b}[2Jgone").hint("x".repeat(100_000));
        assert_eq!(wrong.message, "\\u{1b}[2Jgone");
        assert_eq!(wrong.hint.map(|hint| hint.chars().count()), Some(TEXT_LENGTH_MAX + 1));
    }

    #[test]
    fn columns_count_characters() {
        let source = file("a\nüö=1\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(6), (2, 3));
        assert_eq!(source.position(99), (3, 1));
    }

    #[test]
    fn the_nearest_name_is_meant() {
        assert_eq!(did_you_mean("conector", ["connector", "key"]), Some("connector"));
        assert_eq!(did_you_mean("sources", ["source", "sink"]), Some("source"));
        assert_eq!(did_you_mean("zebra", ["source", "sink"]), None);
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
