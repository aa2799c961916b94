use std::fmt::Write;

use super::layout::{Block, Cell, place};
use super::{Kind, NodeBox, Picture, tasks_text};

const MARGIN: f32 = 28.0;
const TITLE_HEIGHT: f32 = 34.0;
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

struct Canvas {
    cells: Vec<Cell>,
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
            let wanted = if arrow.label.is_empty() { COLUMN_GAP_MIN } else { label + 2.0 * CHAIN_PADDING + 44.0 };
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
        Self { cells, blocks, columns, width: (x + CHAIN_PADDING + MARGIN).max(title), height: height + CHAIN_PADDING }
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
        for (block, (_, tasks)) in self.blocks.iter().zip(&picture.chains) {
            self.write_chain(block, *tasks, out)?;
        }
        for arrow in &picture.arrows {
            let class = if arrow.exchange { "exchange" } else { "local" };
            let curve = self.curve(self.cells[arrow.from], self.cells[arrow.to]);
            writeln!(out, "<path class=\"{class}\" marker-end=\"url(#{class})\" d=\"{curve}\"/>")?;
        }
        for (node_box, cell) in picture.boxes.iter().zip(&self.cells) {
            self.write_box(node_box, *cell, out)?;
        }
        for arrow in picture.arrows.iter().filter(|arrow| !arrow.label.is_empty()) {
            let to = self.cells[arrow.to];
            let (x, y) = (self.columns[to.column].0 - CHAIN_PADDING - 16.0, Self::top(to.row) + BOX_HEIGHT / 2.0 - 8.0);
            let label = escaped(&arrow.label);
            writeln!(out, "<text class=\"label\" x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{label}</text>")?;
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
            Kind::Source => ("#e3f4ee", "#1f8a6d"),
            Kind::Stage => ("#e8edfb", "#3b5bbf"),
            Kind::Sink => ("#fbeedd", "#b8731d"),
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

    /// From the right of one box to the left of another. A long arrow runs in the gap above its
    /// target's row where boxes lie between.
    fn curve(&self, from: Cell, to: Cell) -> String {
        let middle = |row: usize| Self::top(row) + BOX_HEIGHT / 2.0;
        let (start, width) = self.columns[from.column];
        let (x0, y0) = (start + width, middle(from.row));
        let (x1, y1) = (self.columns[to.column].0 - 2.0, middle(to.row));
        let in_the_way = |row: usize| {
            self.cells.iter().any(|cell| cell.row == row && cell.column > from.column && cell.column < to.column)
        };
        let bend = |from: f32, to: f32| (to - from) / 2.0;
        if to.column == from.column + 1 || !in_the_way(to.row) || !in_the_way(from.row) {
            // Straight along the free row of the two, bending next to the other box.
            let far = to.column > from.column + 1;
            let (turn_from, turn_to) = match far {
                true if in_the_way(to.row) => (self.columns[to.column - 1].0 + self.columns[to.column - 1].1, x1),
                true => (x0, self.columns[from.column + 1].0),
                false => (x0, x1),
            };
            let half = bend(turn_from, turn_to);
            let (near, after) = (turn_from + half, turn_to - half);
            return format!(
                "M{x0:.1} {y0:.1}L{turn_from:.1} {y0:.1}C{near:.1} {y0:.1} {after:.1} {y1:.1} {turn_to:.1} {y1:.1}L{x1:.1} {y1:.1}"
            );
        }
        let lane = Self::top(to.row.max(from.row)) - CHAIN_TITLE - 11.0;
        let (enter, leave) =
            (self.columns[from.column + 1].0, self.columns[to.column - 1].0 + self.columns[to.column - 1].1);
        let (a, b) = (x0 + bend(x0, enter), leave + bend(leave, x1));
        format!(
            "M{x0:.1} {y0:.1}C{a:.1} {y0:.1} {a:.1} {lane:.1} {enter:.1} {lane:.1}L{leave:.1} {lane:.1}\
             C{b:.1} {lane:.1} {b:.1} {y1:.1} {x1:.1} {y1:.1}"
        )
    }
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
