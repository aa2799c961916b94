use super::Picture;

/// Where a box goes: a column and a row of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) column: usize,
    pub(super) row: usize,
}

/// Cells `left..=right` by `top..=bottom`, all of one chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) left: usize,
    pub(super) right: usize,
    pub(super) top: usize,
    pub(super) bottom: usize,
}

impl Block {
    fn touches(&self, other: &Self) -> bool {
        self.left <= other.right && other.left <= self.right && self.top <= other.bottom && other.top <= self.bottom
    }
}

/// A cell for every box and a block for every chain; blocks do not overlap.
///
/// A column is the longest way from a source. Inside a chain the first reader of a box stays in its
/// row and the others open rows of their own. Chains are placed one after the other, in the free
/// rows nearest to what they read.
pub(super) fn place(picture: &Picture) -> (Vec<Cell>, Vec<Block>) {
    let mut cells = vec![Cell { column: 0, row: 0 }; picture.boxes.len()];
    let mut arrows: Vec<(usize, usize)> = picture.arrows.iter().map(|arrow| (arrow.from, arrow.to)).collect();
    arrows.sort_unstable_by_key(|(_, to)| *to);
    for (from, to) in &arrows {
        cells[*to].column = cells[*to].column.max(cells[*from].column + 1);
    }
    let mut placed: Vec<Block> = Vec::with_capacity(picture.chains.len());
    for (nodes, _) in &picture.chains {
        let height = rows_inside(nodes, &arrows, &mut cells);
        let columns = || nodes.iter().map(|node| cells[*node].column);
        let (left, right) = (columns().min().unwrap_or(0), columns().max().unwrap_or(0));
        let fed_from: Vec<usize> = (arrows.iter())
            .filter(|(from, to)| nodes.contains(to) && !nodes.contains(from))
            .map(|(from, _)| cells[*from].row)
            .collect();
        let wanted = if fed_from.is_empty() { 0 } else { fed_from.iter().sum::<usize>() / fed_from.len() };
        let block = |top: usize| Block { left, right, top, bottom: top + height - 1 };
        let free = |top: &usize| !placed.iter().any(|other| other.touches(&block(*top)));
        // Rows above the wanted one are as good as those below it.
        let below = (wanted..).find(free).unwrap_or(wanted);
        let above = (0..wanted).rev().find(free);
        let top = above.filter(|above| wanted - above < below - wanted).unwrap_or(below);
        nodes.iter().for_each(|node| cells[*node].row += top);
        placed.push(block(top));
    }
    (cells, placed)
}

/// Gives the nodes of a chain rows from 0 and says how many.
fn rows_inside(nodes: &[usize], arrows: &[(usize, usize)], cells: &mut [Cell]) -> usize {
    let Some(first) = nodes.first() else { return 1 };
    let mut rows = 1;
    let mut open = vec![*first];
    cells[*first].row = 0;
    while let Some(node) = open.pop() {
        let readers = arrows.iter().filter(|(from, to)| *from == node && nodes.contains(to)).map(|(_, to)| *to);
        let readers: Vec<usize> = readers.collect();
        for (place, reader) in readers.iter().enumerate() {
            if place == 0 {
                cells[*reader].row = cells[node].row;
            } else {
                cells[*reader].row = rows;
                rows += 1;
            }
        }
        open.extend(readers);
    }
    rows
}
