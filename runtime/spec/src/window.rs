//! `window` of a stage: which windows, and when they fire.

use wasmill_model::{Firing, PaneMode, Trigger, WindowShape, WindowSpec};

use crate::document::Value;
use crate::keys;
use crate::read::{Problems, Reader};
use crate::{Diagnostic, Document, Period};

const MILLISECOND: Period = Period::from_millis(1);
const CENTURY: Period = Period::from_micros(u64::MAX);
/// Most events that a trigger or a window counts.
const ROWS_MAX: u32 = 100_000_000;
/// Most sliding windows that one event may belong to.
const OVERLAP_MAX: i64 = 1_000;

/// The kinds of windows: a key of `window` for each.
const KINDS: [&str; 5] = ["tumbling", "sliding", "session", "count", "global"];
const ALL_KINDS: &str = "write one of tumbling = \"1m\", sliding = \"10s\" with every = \"2s\", session = \"30s\", count = 100, global = true";

/// What `panes` may say.
pub(crate) const PANES: [(&str, PaneMode); 3] =
    [("discard", PaneMode::Discard), ("accumulate", PaneMode::Accumulate), ("retract", PaneMode::Retract)];

/// The window in the `case.toml` of a plugin's test, where there is one.
///
/// # Errors
/// Everything that is wrong with it, and keys that a case does not have.
pub fn parse_case(name: &str, bytes: &[u8]) -> Result<Option<WindowSpec>, Vec<Diagnostic>> {
    let document = Document::parse(name, bytes)?;
    let mut p = Problems::new(document.source());
    let spec = Reader::new(&mut p, document.root(), "the case".to_owned(), &keys::CASE)
        .and_then(|reader| window(&mut p, &reader));
    let diagnostics = p.into_sorted();
    if diagnostics.is_empty() { Ok(spec) } else { Err(diagnostics) }
}

pub(crate) fn window(p: &mut Problems, stage: &Reader<'_>) -> Option<WindowSpec> {
    let at = stage.get("window")?;
    let table = stage.table(p, "window", &keys::WINDOW)?;
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| table.get(kind).is_some()).collect();
    let shape = match kinds[..] {
        [kind] => shape(p, &table, kind),
        [] if matches!(&at.value, Value::Table(keys) if keys.keys().any(|key| !keys::WINDOW.names().any(|k| k == key))) => {
            None
        }
        [] => {
            p.error(&at.key, "`window` does not say which windows", ALL_KINDS);
            None
        }
        [one, other, ..] => {
            let message = format!("a window is either `{one}` or `{other}`");
            p.error(&at.key, message, "delete one of the two; one stage has one kind of window");
            None
        }
    };
    let firing = firing(p, &table);
    fits(p, &table, shape?, firing).then_some(WindowSpec { shape: shape?, firing })
}

fn shape(p: &mut Problems, table: &Reader<'_>, kind: &str) -> Option<WindowShape> {
    let period = |p: &mut Problems, key| table.period(p, key, MILLISECOND..=CENTURY);
    let slides = matches!(kind, "sliding" | "count");
    if let Some(every) = table.get("every").filter(|_| !slides) {
        let hint = "delete it, or write sliding = \"10s\", every = \"2s\" or count = 100, every = 10";
        p.error(&every.key, "`every` belongs to windows that slide", hint);
        return None;
    }
    match kind {
        "tumbling" => Some(WindowShape::Tumbling { size_micros: period(p, kind)?.micros() }),
        "session" => Some(WindowShape::Session { gap_micros: period(p, kind)?.micros() }),
        "global" => match table.get("global").map(|item| (&item.value, &item.span)) {
            Some((Value::Boolean(true), _)) => Some(WindowShape::Global),
            Some((_, span)) => {
                p.error(span, "`global` is `true` or is left out", "write global = true");
                None
            }
            None => None,
        },
        "count" => {
            let rows: u32 = table.integer(p, "count", 1..=ROWS_MAX)?;
            let every: u32 = match table.get("every") {
                Some(_) => table.integer(p, "every", 1..=ROWS_MAX)?,
                None => rows,
            };
            let fits = slides_fit(p, table, (rows.into(), every.into()), (&rows, &every), "events");
            fits.then_some(WindowShape::Count { rows, every })
        }
        _ => {
            let Some(_) = table.get("every") else {
                let sliding = &table.get("sliding")?.key;
                p.error(sliding, "a sliding window needs `every`", "write sliding = \"10s\", every = \"2s\"");
                return None;
            };
            let (size, slide) = (period(p, "sliding"), period(p, "every"));
            let (size, slide) = (size?, slide?);
            let (size_micros, slide_micros) = (size.micros(), slide.micros());
            let fits = slides_fit(p, table, (size_micros, slide_micros), (&size, &slide), "");
            fits.then_some(WindowShape::Sliding { size_micros, slide_micros })
        }
    }
}

/// Whether windows of a size follow each other so that no event is missed, and none is in too many.
fn slides_fit(
    p: &mut Problems,
    table: &Reader<'_>,
    (size, slide): (i64, i64),
    shown: (&dyn std::fmt::Display, &dyn std::fmt::Display),
    unit: &str,
) -> bool {
    let Some(every) = table.get("every") else { return true };
    let windows = format!("windows of {} {unit}", shown.0).trim_end().to_owned();
    if slide > size {
        let message = format!("{windows} every {} would miss events between them", shown.1);
        p.error(&every.span, message, format!("`every` may be at most {}", shown.0));
        return false;
    }
    let overlap = (size + slide - 1) / slide;
    if overlap > OVERLAP_MAX {
        let message = format!("an event would be in {overlap} {windows} every {}", shown.1);
        p.error(&every.span, message, format!("at most {OVERLAP_MAX} windows may overlap: make `every` longer"));
    }
    overlap <= OVERLAP_MAX
}

fn firing(p: &mut Problems, table: &Reader<'_>) -> Firing {
    Firing {
        early: trigger(p, table, "early"),
        lateness_micros: table.period(p, "lateness", MILLISECOND..=CENTURY).map_or(0, Period::micros),
        late: trigger(p, table, "late"),
        panes: table.one_of(p, "panes", &PANES).unwrap_or_default(),
    }
}

fn trigger(p: &mut Problems, window: &Reader<'_>, key: &str) -> Option<Trigger> {
    let item = window.get(key)?;
    let table = window.table(p, key, &keys::TRIGGER)?;
    let micros = |p: &mut Problems, key| table.period(p, key, MILLISECOND..=CENTURY).map(Period::micros);
    let trigger = Trigger {
        rows: table.integer(p, "rows", 1..=ROWS_MAX),
        every_micros: micros(p, "every"),
        wall_micros: micros(p, "wall"),
    };
    if matches!(&item.value, Value::Table(keys) if keys.is_empty()) {
        let message = format!("`{key}` does not say when");
        p.error(&item.key, message, "write rows = 100 (events), every = \"10s\" (event time) or wall = \"10s\"");
    }
    Some(trigger)
}

/// Refuses what makes no sense together.
fn fits(p: &mut Problems, table: &Reader<'_>, shape: WindowShape, firing: Firing) -> bool {
    let (has, at) = (|key| table.get(key).is_some(), |key| table.get(key).map(|item| item.key.clone()));
    let corrects = firing.early.is_some() || has("lateness");
    let refused = match shape {
        WindowShape::Count { .. } => ["early", "lateness", "late"].into_iter().find(|key| has(key)).map(|key| {
            (key, format!("`{key}` does not go with `count`"), "a window that counts fires when it is full: delete it")
        }),
        WindowShape::Global => ["lateness", "late"].into_iter().find(|key| has(key)).map(|key| {
            (key, format!("`{key}` does not go with `global`"), "nothing is late for a window without end: delete it")
        }),
        WindowShape::Session { .. } if corrects && firing.panes == PaneMode::Accumulate => {
            let key = ["panes", "early"].into_iter().find(|key| has(key)).unwrap_or("lateness");
            let message = "a session that grows cannot say which of its results it replaces".to_owned();
            Some((key, message, "write panes = \"retract\", or \"discard\" for what came since the last result"))
        }
        _ => None,
    };
    let refused = refused.or_else(|| match () {
        () if has("late") && !has("lateness") => {
            let message = "`late` needs `lateness`: without it late events are dropped".to_owned();
            Some(("late", message, "add lateness = \"5m\", or delete `late`"))
        }
        () if has("panes") && !corrects => {
            let message = "`panes` is for windows that fire more than once".to_owned();
            Some(("panes", message, "add `early` or `lateness`, or delete `panes`"))
        }
        () => None,
    });
    let Some((key, message, hint)) = refused else { return true };
    if let Some(at) = at(key) {
        p.error(&at, message, hint);
    }
    false
}
