use std::fmt::Write;

use super::Picture;
use crate::NodeKind;

/// How deep lines are indented at most; behind that the tree goes on at this depth.
const DEPTH_MAX: usize = 40;

pub(super) fn draw(picture: &Picture) -> String {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); picture.boxes.len()];
    for (number, arrow) in picture.arrows.iter().enumerate() {
        readers[arrow.from].push(number);
    }
    let mut drawn = vec![false; picture.boxes.len()];
    let mut lines: Vec<(String, String)> = Vec::new();
    for (place, node_box) in picture.boxes.iter().enumerate() {
        if !matches!(node_box.kind, NodeKind::Source { .. }) {
            continue;
        }
        lines.push(line(picture, place, String::new()));
        // Arrows still to follow, with what stands in front of their lines.
        let mut open: Vec<(usize, String, bool)> = Vec::new();
        push_readers(&readers[place], "", &mut open);
        while let Some((number, prefix, last)) = open.pop() {
            let arrow = &picture.arrows[number];
            let shaft = if arrow.exchange { "══" } else { "──" };
            let label = if arrow.label.is_empty() { String::new() } else { format!(" {} {shaft}", arrow.label) };
            let branch = format!("{prefix}{}{shaft}{label}▸ ", if last { "└" } else { "├" });
            if drawn[arrow.to] {
                lines.push((format!("{branch}{} (above)", picture.boxes[arrow.to].name), String::new()));
                continue;
            }
            drawn[arrow.to] = true;
            lines.push(line(picture, arrow.to, branch));
            let deeper = if prefix.chars().count() / 4 >= DEPTH_MAX {
                ""
            } else if last {
                "    "
            } else {
                "│   "
            };
            push_readers(&readers[arrow.to], &format!("{prefix}{deeper}"), &mut open);
        }
    }
    let width = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (left, right) in lines {
        let padding = width - left.chars().count();
        // Writing to a string does not fail.
        let _never = writeln!(out, "{}", format!("{left}{:padding$}  {right}", "").trim_end());
    }
    out
}

fn push_readers(readers: &[usize], prefix: &str, open: &mut Vec<(usize, String, bool)>) {
    for (place, number) in readers.iter().enumerate().rev() {
        open.push((*number, prefix.to_owned(), place + 1 == readers.len()));
    }
}

fn line(picture: &Picture, place: usize, branch: String) -> (String, String) {
    let node_box = &picture.boxes[place];
    let tasks = match picture.tasks(place) {
        1 => String::new(),
        tasks => format!(" ×{tasks}"),
    };
    let facts = std::iter::once(node_box.kind.name()).chain(node_box.lines.iter().map(String::as_str));
    (format!("{branch}{}{tasks}", node_box.name), facts.collect::<Vec<_>>().join(" · "))
}
