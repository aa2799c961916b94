use std::cmp::Reverse;
use std::fmt::Write;

use super::layout::{Block, Cell, place};
use super::{Arrow, NodeBox, Picture, tasks_text};
use crate::NodeKind;

const MARGIN: f32 = 28.0;
const TITLE_HEIGHT: f32 = 38.0;
const BOX_HEIGHT: f32 = 64.0;
const ROW_GAP: f32 = 52.0;
const CHAIN_PADDING: f32 = 12.0;
const CHAIN_TITLE: f32 = 18.0;
const BOX_WIDTH_MIN: f32 = 116.0;
const COLUMN_GAP_MIN: f32 = 56.0;
/// Widths of a character in the fonts below.
const NAME_WIDTH: f32 = 8.2;
const LINE_WIDTH: f32 = 6.4;

const STYLE: &str = "\
text{font-family:ui-sans-serif,system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1c2733}\
.title{font-size:16px;font-weight:600}\
.name{font-size:14px;font-weight:600}\
.line{font-size:11px;fill:#51606f}\
.kind{font-size:9px;font-weight:600;letter-spacing:.8px}\
.chain{fill:#f5f7f9;stroke:#d5dce3}\
.tasks{font-size:10px;fill:#71808f}\
.label{font-size:11px;fill:#3d4b59;paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}\
.local{fill:none;stroke:#8795a3;stroke-width:1.6}\
.exchange{fill:none;stroke:#5b6bb5;stroke-width:1.8;stroke-dasharray:6 4}";

/// Between the ends of two arrows that lead to one box, where there is room.
const ARRIVAL_GAP: f32 = 18.0;
/// How far below the middle of its box a long arrow starts that runs along the box's row: between
/// the ends of those that run along the row to their own box.
const DEPARTURE: f32 = 13.5;
/// What an arrow takes to bend from one row to another.
const BEND: f32 = 44.0;

struct Canvas {
    cells: Vec<Cell>,
    /// Where each arrow ends, below the middle of its box.
    arrivals: Vec<f32>,
    blocks: Vec<Block>,
    /// Left edge and width of each column.
    columns: Vec<(f32, f32)>,
    width: f32,
    height: f32,
}

pub(super) fn draw(picture: &Picture) -> String {
    let canvas = Canvas::new(picture);
    let mut out = String::new();
    // Writing to a string does not fail.
    let _never = canvas.write(picture, &mut out);
    out
}

impl Canvas {
    fn new(picture: &Picture) -> Self {
        let (cells, blocks) = place(picture);
        let count = cells.iter().map(|cell| cell.column + 1).max().unwrap_or(0);
        let rows = cells.iter().map(|cell| cell.row + 1).max().unwrap_or(0);
        let mut widths = vec![BOX_WIDTH_MIN; count];
        for (node_box, cell) in picture.boxes.iter().zip(&cells) {
            widths[cell.column] = widths[cell.column].max(width_of(node_box));
        }
        // The label of an arrow stands in front of the column it leads to.
        let mut gaps = vec![COLUMN_GAP_MIN; count];
        for arrow in &picture.arrows {
            let column = cells[arrow.to].column;
            let label = arrow.label.chars().count() as f32 * LINE_WIDTH;
            let wanted = if arrow.label.is_empty() { 0.0 } else { label + 2.0 * CHAIN_PADDING + BEND };
            gaps[column] = gaps[column].max(wanted);
        }
        let mut columns = Vec::with_capacity(count);
        let mut x = MARGIN + CHAIN_PADDING;
        for (column, width) in widths.into_iter().enumerate() {
            if column > 0 {
                x += gaps[column];
            }
            columns.push((x, width));
            x += width;
        }
        let title = MARGIN * 2.0 + picture.job.chars().count() as f32 * 9.5;
        let height = TITLE_HEIGHT + MARGIN * 2.0 + CHAIN_TITLE + rows as f32 * (BOX_HEIGHT + ROW_GAP) - ROW_GAP;
        let arrivals = arrivals(picture, &cells);
        let width = (x + CHAIN_PADDING + MARGIN).max(title);
        Self { cells, arrivals, blocks, columns, width, height: height + CHAIN_PADDING }
    }

    fn top(row: usize) -> f32 {
        MARGIN + TITLE_HEIGHT + CHAIN_TITLE + row as f32 * (BOX_HEIGHT + ROW_GAP)
    }

    fn write(&self, picture: &Picture, out: &mut String) -> std::fmt::Result {
        let (width, height) = (self.width.ceil(), self.height.ceil());
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"job {}\">",
            escaped(&picture.job)
        )?;
        writeln!(out, "<style>{STYLE}</style>")?;
        for (id, colour) in [("local", "#8795a3"), ("exchange", "#5b6bb5")] {
            writeln!(
                out,
                "<marker id=\"{id}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
                 markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"{colour}\"/></marker>"
            )?;
        }
        writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>")?;
        let job = escaped(&picture.job);
        writeln!(out, "<text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{job}</text>", MARGIN + 8.0)?;
        if picture.arrows.iter().any(|arrow| arrow.exchange) {
            let legend = "solid: within a task, dashed: from task to task";
            writeln!(out, "<text class=\"tasks\" x=\"{MARGIN}\" y=\"{}\">{legend}</text>", MARGIN + 25.0)?;
        }
        for (block, (_, tasks)) in self.blocks.iter().zip(&picture.chains) {
            self.write_chain(block, *tasks, out)?;
        }
        for (arrow, arrival) in picture.arrows.iter().zip(&self.arrivals) {
            let class = if arrow.exchange { "exchange" } else { "local" };
            let curve = self.curve(arrow, *arrival);
            writeln!(out, "<path class=\"{class}\" marker-end=\"url(#{class})\" d=\"{curve}\"/>")?;
        }
        for (node_box, cell) in picture.boxes.iter().zip(&self.cells) {
            self.write_box(node_box, *cell, out)?;
        }
        for (arrow, arrival) in picture.arrows.iter().zip(&self.arrivals).filter(|(arrow, _)| !arrow.label.is_empty()) {
            let to = self.cells[arrow.to];
            let (x, y) = (self.columns[to.column].0 - CHAIN_PADDING - 2.0, middle(to.row) + arrival - 4.0);
            let label = escaped(&arrow.label);
            writeln!(out, "<text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>")?;
        }
        writeln!(out, "</svg>")
    }

    fn write_chain(&self, block: &Block, tasks: u16, out: &mut String) -> std::fmt::Result {
        let (left, _) = self.columns[block.left];
        let (right, right_width) = self.columns[block.right];
        let (top, bottom) = (Self::top(block.top), Self::top(block.bottom) + BOX_HEIGHT);
        let (x, y) = (left - CHAIN_PADDING, top - CHAIN_TITLE);
        let (width, height) = (right + right_width + CHAIN_PADDING - x, bottom + CHAIN_PADDING - y);
        writeln!(out, "<rect class=\"chain\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"14\"/>")?;
        writeln!(out, "<text class=\"tasks\" x=\"{left}\" y=\"{}\">{}</text>", y + 12.5, tasks_text(tasks))
    }

    fn write_box(&self, node_box: &NodeBox, cell: Cell, out: &mut String) -> std::fmt::Result {
        let (x, width) = self.columns[cell.column];
        let y = Self::top(cell.row);
        let (fill, stroke) = match node_box.kind {
            NodeKind::Source { .. } => ("#e3f4ee", "#1f8a6d"),
            NodeKind::Stage { .. } => ("#e8edfb", "#3b5bbf"),
            NodeKind::Sink => ("#fbeedd", "#b8731d"),
        };
        writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"9\" fill=\"{fill}\" \
             stroke=\"{stroke}\" stroke-width=\"1.4\"/>"
        )?;
        let text = x + 12.0;
        let kind = node_box.kind.name().to_uppercase();
        // Three lines at most: kind and name, then what runs, then the window.
        let offset = if node_box.lines.len() > 1 { 0.0 } else { 5.0 };
        writeln!(
            out,
            "<text class=\"kind\" x=\"{text}\" y=\"{}\" style=\"fill:{stroke}\">{kind}</text>",
            y + 14.0 + offset
        )?;
        writeln!(
            out,
            "<text class=\"name\" x=\"{text}\" y=\"{}\">{}</text>",
            y + 29.0 + offset,
            escaped(&node_box.name)
        )?;
        for (number, line) in node_box.lines.iter().take(2).enumerate() {
            let y = y + 43.0 + offset + 13.0 * number as f32;
            writeln!(out, "<text class=\"line\" x=\"{text}\" y=\"{y}\">{}</text>", escaped(line))?;
        }
        Ok(())
    }

    /// From the right of one box to the left of another, straight where its label stands. A long
    /// arrow runs along a row that is free, or else in the gap above one.
    fn curve(&self, arrow: &Arrow, arrival: f32) -> String {
        let (from, to) = (self.cells[arrow.from], self.cells[arrow.to]);
        let right_of = |column: usize| self.columns[column].0 + self.columns[column].1;
        let (x0, mut y0) = (right_of(from.column), middle(from.row));
        let (x1, y1) = (self.columns[to.column].0 - 2.0, middle(to.row) + arrival);
        let label = arrow.label.chars().count() as f32 * LINE_WIDTH;
        let straight = if arrow.label.is_empty() { x1 - 8.0 } else { x1 - label - CHAIN_PADDING - 6.0 };
        let is_free = |row: usize| {
            !self.cells.iter().any(|cell| cell.row == row && cell.column > from.column && cell.column < to.column)
        };
        let bend = |x0: f32, y0: f32, x1: f32, y1: f32| {
            let middle = (x0 + x1) / 2.0;
            format!("L{x0:.1} {y0:.1}C{middle:.1} {y0:.1} {middle:.1} {y1:.1} {x1:.1} {y1:.1}")
        };
        let (first_gap_end, last_gap_start) =
            (self.columns[from.column + 1].0 - CHAIN_PADDING, right_of(to.column - 1));
        let way = if to.column == from.column + 1 {
            bend(x0, y0, straight, y1)
        } else if is_free(to.row) {
            bend(x0, y0, first_gap_end, y1)
        } else if is_free(from.row) {
            y0 += DEPARTURE;
            bend(last_gap_start, y0, straight, y1)
        } else {
            let lane = Self::top(to.row.max(from.row)) - CHAIN_TITLE - 11.0;
            bend(x0, y0, first_gap_end, lane) + &bend(last_gap_start, lane, straight, y1)
        };
        format!("M{x0:.1} {y0:.1}{way}L{x1:.1} {y1:.1}")
    }
}

fn middle(row: usize) -> f32 {
    Canvas::top(row) + BOX_HEIGHT / 2.0
}

/// Spreads the arrows into one box over its side, those from above on top.
fn arrivals(picture: &Picture, cells: &[Cell]) -> Vec<f32> {
    let mut into: Vec<Vec<usize>> = vec![Vec::new(); cells.len()];
    for (number, arrow) in picture.arrows.iter().enumerate() {
        into[arrow.to].push(number);
    }
    let mut arrivals = vec![0.0; picture.arrows.len()];
    for mut arrows in into {
        arrows.sort_by_key(|number| {
            let from = cells[picture.arrows[*number].from];
            (from.row, Reverse(from.column))
        });
        let gaps = arrows.len().saturating_sub(1).max(1) as f32;
        let gap = ARRIVAL_GAP.min((BOX_HEIGHT - 20.0) / gaps);
        for (place, number) in arrows.iter().enumerate() {
            arrivals[*number] = (place as f32 - (arrows.len() - 1) as f32 / 2.0) * gap;
        }
    }
    arrivals
}

fn width_of(node_box: &NodeBox) -> f32 {
    let lines = node_box.lines.iter().map(|line| line.chars().count() as f32 * LINE_WIDTH);
    lines.fold(node_box.name.chars().count() as f32 * NAME_WIDTH, f32::max) + 26.0
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
