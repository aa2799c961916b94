use wasmill_model::{Timestamp, WindowShape};

use crate::OrderError;

/// How windows cut time into slices: the parts between two neighbouring bounds of any windows.
///
/// An event belongs to exactly one slice, a slice to the same windows as all of its events. Where
/// the length is a multiple of the slide a slice is one slide long; otherwise there are two slices
/// to a slide, however odd the two numbers are:
///
/// ```text
/// size 5, slide 2    0   1   2   3   4   5   6   7
/// window 0           [-------------------)
/// window 1                   [-------------------)
/// window 2                           [------------
/// slices             [ A | B | A | B | A | B | A |    A is size % slide long
/// ```
///
/// Windows are numbered: window `k` begins at `k * slide`. Numbers are 128 bits wide, so that
/// nothing overflows at the ends of time; bounds are held at the ends of the range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slicing {
    size: i64,
    slide: i64,
    /// Whole slides in a window, and what is left.
    slides: i128,
    rest: i64,
}

/// A slice `[start, end)` and the numbers of the windows it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SliceBounds {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) first: i128,
    pub(crate) last: i128,
}

impl Slicing {
    pub(crate) fn new(shape: WindowShape) -> Result<Self, OrderError> {
        let (size, slide) = match shape {
            WindowShape::Tumbling { size_micros } => (size_micros, size_micros),
            WindowShape::Sliding { size_micros, slide_micros } => (size_micros, slide_micros),
            WindowShape::Session { .. } | WindowShape::Count { .. } | WindowShape::Global => {
                let reason = "windows that differ from key to key have no slices";
                return Err(OrderError::Window { size_micros: 0, slide_micros: 0, reason });
            }
        };
        let reason = match () {
            () if size <= 0 => "its length has to be more than 0",
            () if slide <= 0 => "the time from one to the next has to be more than 0",
            () if slide > size => "events between two of them would be lost: the slide may be at most the length",
            () => return Ok(Self { size, slide, slides: i128::from(size / slide), rest: size % slide }),
        };
        Err(OrderError::Window { size_micros: size, slide_micros: slide, reason })
    }

    pub(crate) fn slice_of(self, time: i64) -> SliceBounds {
        let number = time.div_euclid(self.slide);
        let in_slide = time.rem_euclid(self.slide);
        let last = i128::from(number);
        let (from, to, first) = if self.rest == 0 {
            (0, self.slide, last - self.slides + 1)
        } else if in_slide < self.rest {
            (0, self.rest, last - self.slides)
        } else {
            (self.rest, self.slide, last - self.slides + 1)
        };
        let base = last * i128::from(self.slide);
        SliceBounds { start: held(base + i128::from(from)), end: held(base + i128::from(to)), first, last }
    }

    /// The first window that has not fired at `watermark`: a window fires once the watermark is at
    /// its last microsecond.
    pub(crate) fn first_open(self, watermark: Timestamp) -> i128 {
        match watermark {
            Timestamp::MIN => i128::MIN,
            Timestamp::MAX => i128::MAX,
            Timestamp(time) => (i128::from(time) + 1 - i128::from(self.size)).div_euclid(i128::from(self.slide)) + 1,
        }
    }

    /// `[start, end)` of a window.
    pub(crate) fn window(self, number: i128) -> (i64, i64) {
        let start = number * i128::from(self.slide);
        (held(start), held(start + i128::from(self.size)))
    }
}

fn held(time: i128) -> i64 {
    time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slicing(size_micros: i64, slide_micros: i64) -> Slicing {
        Slicing::new(WindowShape::Sliding { size_micros, slide_micros }).expect("a valid window")
    }

    #[test]
    fn windows_that_cannot_be_are_refused() {
        for (size_micros, slide_micros) in [(0, 1), (1, 0), (1, 2), (-5, 1), (5, -1)] {
            assert!(Slicing::new(WindowShape::Sliding { size_micros, slide_micros }).is_err());
        }
        assert!(Slicing::new(WindowShape::Tumbling { size_micros: 0 }).is_err());
    }

    #[test]
    fn the_ends_of_time_hold() {
        for slicing in [slicing(10, 3), slicing(i64::MAX, i64::MAX), slicing(i64::MAX, 2), slicing(1, 1)] {
            for time in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
                let slice = slicing.slice_of(time);
                assert!(slice.start <= time && (time < slice.end || slice.end == i64::MAX));
                assert!(slice.first <= slice.last);
                assert!(slicing.first_open(Timestamp::MIN) <= slice.first);
                assert!(slicing.first_open(Timestamp::MAX) > slice.last);
            }
        }
    }

    proptest! {
        #[test]
        fn a_slice_belongs_to_the_windows_of_each_of_its_events(
            (size, slide) in (1..60_i64).prop_flat_map(|size| (Just(size), 1..=size)), time in -200..200_i64,
        ) {
            let slicing = slicing(size, slide);
            let slice = slicing.slice_of(time);
            prop_assert!((slice.start..slice.end).contains(&time));
            for other in slice.start..slice.end {
                let holds = |number: &i128| {
                    let (start, end) = slicing.window(*number);
                    (start..end).contains(&other)
                };
                let windows: Vec<i128> = (-300..300).filter(holds).collect();
                prop_assert_eq!((windows.first(), windows.last()), (Some(&slice.first), Some(&slice.last)));
            }
            let open = (-300..300).find(|&number| slicing.window(number).1 - 1 > time);
            prop_assert_eq!(Some(slicing.first_open(Timestamp(time))), open);
        }
    }
}
