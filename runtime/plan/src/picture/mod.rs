//! A plan as a picture: text, Mermaid, SVG.

mod layout;
mod mermaid;
mod svg;
mod text;

use wasmill_spec::{JobSpec, NodeSpec};

use crate::explain::{port_name, window_text};
use crate::{Facts, NodeKind, Plan, Routing};

/// Longest line inside a box, in characters.
const LINE_LENGTH_MAX: usize = 32;

/// What there is to draw.
#[derive(Debug, Clone)]
pub struct Picture {
    job: String,
    boxes: Vec<NodeBox>,
    arrows: Vec<Arrow>,
    /// Places of the boxes in each chain, with the number of tasks.
    chains: Vec<(Vec<usize>, u16)>,
}

#[derive(Debug, Clone)]
struct NodeBox {
    kind: NodeKind,
    name: String,
    lines: Vec<String>,
    chain: usize,
}

#[derive(Debug, Clone)]
struct Arrow {
    from: usize,
    to: usize,
    /// Crosses from task to task.
    exchange: bool,
    /// Ports where there are several, and a new key.
    label: String,
}

impl Picture {
    /// The picture of a plan.
    #[must_use]
    pub fn new(job: &JobSpec, facts: &Facts, plan: &Plan) -> Self {
        let boxes = plan.nodes.iter().map(|node| {
            let mut lines = match job.node(&node.name) {
                Some(NodeSpec::Source(source)) => vec![source.connector.clone()],
                Some(NodeSpec::Sink(sink)) => vec![sink.connector.clone()],
                Some(NodeSpec::Stage(stage)) => {
                    let mut lines = vec![stage.plugin.to_string()];
                    lines.extend(stage.window.map(window_text));
                    lines
                }
                None => Vec::new(),
            };
            lines.iter_mut().for_each(|line| *line = shortened(line));
            NodeBox { kind: node.kind.clone(), name: shortened(node.name.as_str()), lines, chain: node.chain }
        });
        let arrows = plan.edges.iter().map(|edge| {
            let ports = |node: usize| facts.stages.get(&plan.nodes[node].name);
            let mut label = Vec::new();
            label.extend(port_name(ports(edge.from).map(|plugin| &plugin.outputs), edge.output));
            let input = port_name(ports(edge.to).map(|plugin| &plugin.inputs), edge.input);
            label.extend(input.map(|port| format!("▸ {port}")));
            label.extend(edge.key.as_ref().map(|key| format!("key {key}")));
            Arrow {
                from: edge.from,
                to: edge.to,
                exchange: edge.routing != Routing::Local,
                label: shortened(&label.join(" ")),
            }
        });
        Self {
            job: job.name.to_string(),
            boxes: boxes.collect(),
            arrows: arrows.collect(),
            chains: plan.chains.iter().map(|chain| (chain.nodes.clone(), chain.parallelism)).collect(),
        }
    }

    /// A tree in text, one line a node.
    #[must_use]
    pub fn text(&self) -> String {
        text::draw(self)
    }

    /// A flowchart in Mermaid.
    #[must_use]
    pub fn mermaid(&self) -> String {
        mermaid::draw(self)
    }

    /// A picture in SVG that needs no other file.
    #[must_use]
    pub fn svg(&self) -> String {
        svg::draw(self)
    }

    fn tasks(&self, place: usize) -> u16 {
        self.chains[self.boxes[place].chain].1
    }
}

/// At most [`LINE_LENGTH_MAX`] characters, none of them a control character. The end of a path says
/// more than its beginning.
fn shortened(line: &str) -> String {
    let clean: Vec<char> = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if clean.len() <= LINE_LENGTH_MAX {
        return clean.into_iter().collect();
    }
    std::iter::once('…').chain(clean[clean.len() - LINE_LENGTH_MAX + 1..].iter().copied()).collect()
}

fn tasks_text(tasks: u16) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}
