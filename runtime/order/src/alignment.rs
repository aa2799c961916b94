use wasmill_model::Epoch;

use crate::OrderError;

/// Barriers over the inputs of a task.
///
/// An input that has sent the barrier of the next epoch is blocked until every other input has
/// sent it or has ended: rows behind it belong to the epoch after.
///
/// # Invariants
/// Epochs align one by one, in order. No input is blocked when one has just aligned.
#[derive(Debug)]
pub struct Alignment {
    inputs: Vec<Input>,
    next: Epoch,
}

#[derive(Debug, Clone, Copy, Default)]
struct Input {
    blocked: bool,
    ended: bool,
}

/// What a barrier leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// Read no more from this input until the epoch is aligned.
    Block,
    /// All inputs are at the barrier: make the cut, then read from all of them again.
    Aligned(Epoch),
}

impl Alignment {
    /// No barrier has come since epoch `last`.
    #[must_use]
    pub fn new(inputs: usize, last: Epoch) -> Self {
        Self { inputs: vec![Input::default(); inputs], next: last.next() }
    }

    /// The barrier of `epoch` came on `input`.
    ///
    /// # Errors
    /// Where the input is blocked, has ended or does not exist, or another epoch is next.
    pub fn on_barrier(&mut self, input: usize, epoch: Epoch) -> Result<Barrier, OrderError> {
        let want = self.next;
        let place = self.open_input(input, "a barrier")?;
        if epoch != want {
            return Err(OrderError::BarrierOrder { input, got: epoch, want });
        }
        place.blocked = true;
        Ok(self.try_align().map_or(Barrier::Block, Barrier::Aligned))
    }

    /// `input` has ended. Gives the epoch that is aligned now because it waited for this input.
    ///
    /// # Errors
    /// Where the input is blocked, has ended before or does not exist.
    pub fn on_end(&mut self, input: usize) -> Result<Option<Epoch>, OrderError> {
        self.open_input(input, "its end")?.ended = true;
        Ok(self.try_align())
    }

    /// Whether nothing may be read from `input`: it waits for the others, or has ended.
    #[must_use]
    pub fn is_blocked(&self, input: usize) -> bool {
        self.inputs.get(input).is_none_or(|input| input.blocked || input.ended)
    }

    /// Whether every input has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.inputs.iter().all(|input| input.ended)
    }

    fn open_input(&mut self, input: usize, what: &'static str) -> Result<&mut Input, OrderError> {
        let inputs = self.inputs.len();
        let place = self.inputs.get_mut(input).ok_or(OrderError::NoSuchInput { input, inputs })?;
        if place.blocked || place.ended {
            let after = if place.ended { "after its end" } else { "while blocked at a barrier" };
            return Err(OrderError::InputClosed { input, what, after });
        }
        Ok(place)
    }

    fn try_align(&mut self) -> Option<Epoch> {
        let waits = self.inputs.iter().any(|input| !input.blocked && !input.ended);
        let has_barrier = self.inputs.iter().any(|input| input.blocked);
        if waits || !has_barrier {
            return None;
        }
        self.inputs.iter_mut().for_each(|input| input.blocked = false);
        let aligned = self.next;
        self.next = aligned.next();
        Some(aligned)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmill_model::ErrorKind;

    use super::*;

    #[test]
    fn an_epoch_is_aligned_when_every_input_is_at_its_barrier() {
        let mut alignment = Alignment::new(2, Epoch(4));
        assert_eq!(alignment.on_barrier(0, Epoch(5)), Ok(Barrier::Block));
        assert!(alignment.is_blocked(0) && !alignment.is_blocked(1));
        assert_eq!(alignment.on_barrier(1, Epoch(5)), Ok(Barrier::Aligned(Epoch(5))));
        assert!(!alignment.is_blocked(0));
        assert_eq!(alignment.on_barrier(1, Epoch(6)), Ok(Barrier::Block));
        assert_eq!(alignment.on_end(0), Ok(Some(Epoch(6))));
        assert_eq!(alignment.on_barrier(1, Epoch(7)), Ok(Barrier::Aligned(Epoch(7))));
        assert_eq!(alignment.on_end(1), Ok(None));
        assert!(alignment.has_ended());
    }

    #[test]
    fn what_breaks_the_order_is_our_bug() {
        let mut alignment = Alignment::new(2, Epoch(0));
        let errors = [
            alignment.on_barrier(0, Epoch(2)).map(|_| ()),
            alignment.on_barrier(9, Epoch(1)).map(|_| ()),
            alignment.on_barrier(0, Epoch(1)).and(alignment.on_barrier(0, Epoch(2))).map(|_| ()),
            alignment.on_end(0).map(|_| ()),
            alignment.on_end(1).and(alignment.on_barrier(1, Epoch(2))).map(|_| ()),
        ];
        for error in errors {
            assert_eq!(error.expect_err("the order is broken").kind(), ErrorKind::Internal);
        }
    }

    proptest! {
        /// Random interleavings of inputs that send barriers 1.. and then end: epochs align in
        /// order, each exactly when the slowest input is there.
        #[test]
        fn any_interleaving_aligns_in_order(barriers in prop::collection::vec(0..6_u64, 1..5), picks in prop::collection::vec(any::<prop::sample::Index>(), 200)) {
            let mut alignment = Alignment::new(barriers.len(), Epoch(0));
            let (mut sent, mut ended) = (vec![0; barriers.len()], vec![false; barriers.len()]);
            let mut aligned = 0;
            for pick in picks {
                let open: Vec<usize> = (0..barriers.len()).filter(|&input| !alignment.is_blocked(input)).collect();
                if open.is_empty() {
                    break;
                }
                let input = open[pick.index(open.len())];
                let now = if sent[input] == barriers[input] {
                    ended[input] = true;
                    alignment.on_end(input).expect("in order")
                } else {
                    sent[input] += 1;
                    match alignment.on_barrier(input, Epoch(sent[input])).expect("in order") {
                        Barrier::Block => None,
                        Barrier::Aligned(epoch) => Some(epoch),
                    }
                };
                let reached = (0..barriers.len()).filter(|&input| !ended[input]).map(|input| sent[input]).min();
                let want = reached.unwrap_or(sent.iter().copied().max().unwrap_or(0));
                prop_assert_eq!(now, (want > aligned).then_some(Epoch(want)));
                aligned = want.max(aligned);
            }
            prop_assert!(alignment.has_ended());
            prop_assert_eq!(Some(&aligned), barriers.iter().max());
        }
    }
}
