use std::ops::Range;

use wasmill_model::{Firing, PaneMode, WindowShape, WindowSpec};

use super::state::{KeyState, Pane, last_before};
use crate::OrderError;
use crate::window::slicing::Slicing;

/// How an event finds its panes, and panes their cells.
///
/// | windows | id of a pane | cells |
/// | --- | --- | --- |
/// | of time | number of the window | slices, by their start |
/// | of time, discarding | number of the window | one for each window, by its number |
/// | sessions | start of the session | by the time of the event that began each |
/// | counts | number of the window | slices of the count |
/// | global | 0 | one |
///
/// Windows that overlap share slices, so that an event is folded once. Those that discard cannot:
/// what one of them has given another has not. There an event is folded once for each window.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frame {
    Time { slicing: Slicing, shared: bool },
    Session { gap: i64 },
    Count { slicing: Slicing, every: u64 },
    Global,
}

/// Where an event goes.
pub(super) struct Placed {
    /// The panes it is counted in, by place.
    pub(super) panes: Range<usize>,
    /// The ids of the cells it is folded into: one, unless each pane has its own.
    pub(super) cells: Vec<i64>,
}

/// What happens to an event.
pub(super) enum Place {
    /// It goes in.
    In(Placed),
    /// Every window it belongs to is closed for good.
    Late,
    /// One of its panes is to fire first.
    AfterFiring,
}

impl Frame {
    pub(super) fn new(WindowSpec { shape, firing }: WindowSpec) -> Result<Self, OrderError> {
        Ok(match shape {
            WindowShape::Tumbling { .. } | WindowShape::Sliding { .. } => {
                Self::Time { slicing: Slicing::new(shape)?, shared: firing.panes != PaneMode::Discard }
            }
            WindowShape::Session { gap_micros } if gap_micros > 0 => Self::Session { gap: gap_micros },
            WindowShape::Session { gap_micros } => {
                let reason = "its gap has to be more than 0";
                return Err(OrderError::Window { size_micros: gap_micros, slide_micros: gap_micros, reason });
            }
            WindowShape::Count { rows, every } => {
                let shape = WindowShape::Sliding { size_micros: rows.into(), slide_micros: every.into() };
                Self::Count { slicing: Slicing::new(shape)?, every: every.into() }
            }
            WindowShape::Global => Self::Global,
        })
    }

    /// So many events from one window to the next, where windows count them.
    pub(super) fn slide(&self) -> u64 {
        match self {
            Self::Count { every, .. } => *every,
            Self::Time { .. } | Self::Session { .. } | Self::Global => 1,
        }
    }

    /// Finds the place of an event of a key, and makes the panes it needs.
    pub(super) fn place(&self, state: &mut KeyState, time: i64, watermark: i64, firing: &Firing) -> Place {
        match *self {
            Self::Time { slicing, shared } => {
                let slice = slicing.slice_of(time);
                let bounds = |number: i128| {
                    let (start, end) = slicing.window(number);
                    let id = id(number);
                    let cells = if shared { (start, last_before(end)) } else { (id, id) };
                    pane(id, start, end, cells)
                };
                let open = |number: &i128| bounds(*number).expires(firing) > watermark;
                let windows = (slice.first..=slice.last).filter(open).map(bounds);
                let placed = insert_all(state, windows, watermark);
                placed.map_or_else(
                    |place| place,
                    |panes| {
                        let cells = match shared {
                            true => vec![slice.start],
                            false => state.panes[panes.clone()].iter().map(|pane| pane.id).collect(),
                        };
                        Place::In(Placed { panes, cells })
                    },
                )
            }
            Self::Session { gap } => session(state, time, gap, watermark, firing),
            Self::Count { slicing, .. } => {
                let number = i64::try_from(state.rows).unwrap_or(i64::MAX);
                let slice = slicing.slice_of(number);
                let windows = (slice.first..=slice.last).map(|number| {
                    let (start, end) = slicing.window(number);
                    pane(id(number), i64::MIN, i64::MAX, (start, last_before(end)))
                });
                // A window that is full gets no other event.
                match insert_all(state, windows, watermark) {
                    Ok(panes) => {
                        state.rows += 1;
                        Place::In(Placed { panes, cells: vec![slice.start] })
                    }
                    Err(place) => place,
                }
            }
            Self::Global => {
                let all = std::iter::once(pane(0, i64::MIN, i64::MAX, (0, 0)));
                match insert_all(state, all, watermark) {
                    Ok(panes) => Place::In(Placed { panes, cells: vec![0] }),
                    Err(place) => place,
                }
            }
        }
    }

    /// Whether a pane holds all the events it can, now that its key has had `rows`.
    pub(super) fn is_full(&self, pane: &Pane, rows: u64) -> bool {
        matches!(self, Self::Count { .. }) && i64::try_from(rows).is_ok_and(|rows| rows > pane.cells.1)
    }
}

fn id(number: i128) -> i64 {
    number.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn pane(id: i64, start: i64, end: i64, cells: (i64, i64)) -> Pane {
    Pane {
        id,
        start,
        end,
        cells,
        rows: 0,
        passed: false,
        was_on_time: false,
        due: None,
        wall_due: None,
        ready: false,
        given: Vec::new(),
    }
}

/// Makes the panes that are not there. They lie side by side.
fn insert_all(
    state: &mut KeyState,
    wanted: impl Iterator<Item = Pane> + Clone,
    watermark: i64,
) -> Result<Range<usize>, Place> {
    let is_ready = |pane: Pane| state.pane(pane.id).is_some_and(|place| state.panes[place].ready);
    if wanted.clone().any(is_ready) {
        return Err(Place::AfterFiring);
    }
    let mut range: Option<Range<usize>> = None;
    for mut pane in wanted {
        let place = match state.panes.binary_search_by_key(&pane.id, |pane| pane.id) {
            Ok(place) => place,
            Err(place) => {
                pane.passed = pane.last() <= watermark;
                state.panes.insert(place, pane);
                place
            }
        };
        range = Some(range.map_or(place..place + 1, |range| range.start..place + 1));
    }
    range.ok_or(Place::Late)
}

/// An event opens a session of its own, and joins those it meets.
fn session(state: &mut KeyState, time: i64, gap: i64, watermark: i64, firing: &Firing) -> Place {
    let end = time.saturating_add(gap);
    // Sessions do not overlap: those that this one meets are side by side.
    let from = state.panes.partition_point(|pane| pane.last() < time);
    let to = from + state.panes[from..].partition_point(|pane| pane.start <= last_before(end));
    if state.panes[from..to].iter().any(|pane| pane.ready) {
        return Place::AfterFiring;
    }
    let mut joined = pane(time, time, end, (time, last_before(end)));
    if from == to && joined.expires(firing) <= watermark {
        return Place::Late;
    }
    for met in state.panes.drain(from..to) {
        joined.start = joined.start.min(met.start);
        joined.end = joined.end.max(met.end);
        joined.rows = joined.rows.saturating_add(met.rows);
        joined.was_on_time |= met.was_on_time;
        joined.due = earlier(joined.due, met.due);
        joined.wall_due = earlier(joined.wall_due, met.wall_due);
        joined.given.extend(met.given);
    }
    joined.id = joined.start;
    joined.cells = (joined.start, joined.last());
    joined.passed = joined.last() <= watermark;
    let first = state.cells.iter().map(|cell| cell.id).find(|&id| joined.has(id));
    state.panes.insert(from, joined);
    Place::In(Placed { panes: from..from + 1, cells: vec![first.unwrap_or(time)] })
}

pub(super) fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
