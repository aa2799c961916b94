//! `wasmill graph`: a job, drawn.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::commands::{JobArgs, check};
use crate::failure::Failure;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
pub(super) struct GraphArgs {
    #[command(flatten)]
    job: JobArgs,
    /// How to draw
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A tree, for a terminal
    #[default]
    Text,
    /// A Mermaid flowchart, for Markdown
    Mermaid,
    /// A picture that needs no other file
    Svg,
}

pub(super) fn graph(args: &GraphArgs, terminal: &Terminal) -> Result<(), Failure> {
    let picture = check::assembled(&args.job, terminal)?.picture();
    let (name, drawn) = match args.format {
        Format::Text => ("text", picture.text()),
        Format::Mermaid => ("mermaid", picture.mermaid()),
        Format::Svg => ("svg", picture.svg()),
    };
    if terminal.json {
        return terminal.print_json(&json!({"format": name, "graph": drawn}));
    }
    terminal.print(&drawn)
}
