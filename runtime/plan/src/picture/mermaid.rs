use std::fmt::Write;

use super::{Picture, tasks_text};
use crate::NodeKind;

pub(super) fn draw(picture: &Picture) -> String {
    let mut out = String::from("flowchart LR\n");
    // Writing to a string does not fail.
    let _never = write(picture, &mut out);
    out
}

fn write(picture: &Picture, out: &mut String) -> std::fmt::Result {
    for (number, (nodes, tasks)) in picture.chains.iter().enumerate() {
        writeln!(out, "  subgraph chain{number}[\"{}\"]", tasks_text(*tasks))?;
        for node in nodes {
            let node_box = &picture.boxes[*node];
            let (open, close) = match node_box.kind {
                NodeKind::Source { .. } => ("([", "])"),
                NodeKind::Stage { .. } => ("[", "]"),
                NodeKind::Sink => ("[(", ")]"),
            };
            let mut label = format!("<b>{}</b>", escaped(&node_box.name));
            for line in &node_box.lines {
                write!(label, "<br/>{}", escaped(line))?;
            }
            writeln!(out, "    n{node}{open}\"{label}\"{close}:::{}", node_box.kind.name())?;
        }
        writeln!(out, "  end")?;
    }
    for arrow in &picture.arrows {
        let line = if arrow.exchange { "-.->" } else { "-->" };
        let label = if arrow.label.is_empty() { String::new() } else { format!("|\"{}\"|", escaped(&arrow.label)) };
        writeln!(out, "  n{} {line}{label} n{}", arrow.from, arrow.to)?;
    }
    out.push_str("  classDef source fill:#e3f4ee,stroke:#1f8a6d,color:#123\n");
    out.push_str("  classDef stage fill:#e8edfb,stroke:#3b5bbf,color:#123\n");
    out.push_str("  classDef sink fill:#fbeedd,stroke:#b8731d,color:#123\n");
    Ok(())
}

/// Mermaid reads `#NAME;` as a character.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '#' => out.push_str("#35;"),
            '"' => out.push_str("#quot;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '&' => out.push_str("#amp;"),
            c => out.push(c),
        }
    }
    out
}
