//! Inputs by the thousand, made of good ones and of what is known to be odd, from a seed. Included by the tests
//! that fuzz; `cargo xtask fuzz` runs them with more cases.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How many cases, where a campaign asks for more than a test does.
const CASES_VARIABLE: &str = "WASMILL_FUZZ_CASES";
const SEED_VARIABLE: &str = "WASMILL_FUZZ_SEED";
/// No case may take longer: the machine may be busy, so this is generous.
const SLOWEST: Duration = Duration::from_secs(20);

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A number as attackers choose them: small, at an edge, or anything.
    pub(crate) fn number(&mut self) -> i64 {
        match self.below(4) {
            0 => self.below(16) as i64,
            1 => *self.pick(&[-1, i64::MIN, i64::MAX, 1 << 31, (1 << 32) - 1, 1 << 32, 255, 256, 65_535, 65_536]),
            2 => 1_i64.wrapping_shl(self.below(64) as u32),
            _ => self.next().cast_signed(),
        }
    }
}

/// A text as it was, with up to eight changes: bytes, ranges that are gone, doubled or somewhere else, odd
/// words, pieces of another text.
pub(crate) fn mutated(random: &mut Random, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut text = random.pick(corpus).clone();
    for _ in 0..1 + random.below(8) {
        let (from, length) = (random.below(text.len() + 1), random.below(64));
        let to = (from + length).min(text.len());
        match random.below(8) {
            0 if from < text.len() => text[from] ^= 1 << random.below(8),
            1 => drop(text.drain(from..to)),
            2 => {
                let piece = text[from..to].to_vec();
                let at = random.below(text.len() + 1);
                text.splice(at..at, piece);
            }
            3 => drop(text.splice(from..from, random.pick(words).bytes())),
            4 => {
                let other = random.pick(corpus);
                let start = random.below(other.len() + 1);
                let end = (start + random.below(256)).min(other.len());
                text.splice(from..from, other[start..end].iter().copied());
            }
            5 => {
                // A number in the text becomes another one.
                let digits = text.iter().skip(from).position(u8::is_ascii_digit).map(|found| found + from);
                let number = random.number().to_string();
                if let Some(at) = digits {
                    let end =
                        text[at..].iter().position(|byte| !byte.is_ascii_digit()).map_or(text.len(), |end| at + end);
                    text.splice(at..end, number.bytes());
                }
            }
            6 => drop(text.splice(from..to, random.pick(words).repeat(1 + random.below(50)).bytes())),
            _ if random.below(8) == 0 => text.truncate(from),
            _ => {}
        }
    }
    text
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Gives each case to `check`, which must not panic nor take long. What does not hold is written to a file, with
/// the case that repeats it. `check` says whether the case was taken for good.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the clock and the result of a campaign")]
pub(crate) fn fuzz(
    name: &str,
    cases: u64,
    mut make: impl FnMut(&mut Random) -> Vec<u8>,
    mut check: impl FnMut(&[u8]) -> bool,
) {
    let seed = variable(SEED_VARIABLE).unwrap_or(1);
    let campaign = variable(CASES_VARIABLE);
    let cases = campaign.unwrap_or(cases);
    let (mut good, mut slowest, mut failed) = (0_u64, (Duration::ZERO, 0), Vec::new());
    let began = Instant::now();
    for case in 0..cases {
        // Each case by itself is made of the seed and its number.
        let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(case));
        let input = make(&mut random);
        let start = Instant::now();
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input)));
        let took = start.elapsed();
        slowest = slowest.max((took, case));
        good += u64::from(matches!(checked, Ok(true)));
        if checked.is_err() || took > SLOWEST {
            let file = std::env::temp_dir().join(format!("wasmill-fuzz-{name}-{seed}-{case}"));
            let written = std::fs::write(&file, &input).is_ok();
            failed.push(format!("case {case}: {}{}", if written { "see " } else { "not written: " }, file.display()));
            if failed.len() >= 10 {
                break;
            }
        }
    }
    if campaign.is_some() {
        println!(
            "{{\"target\":\"{name}\",\"cases\":{cases},\"seed\":{seed},\"taken\":{good},\"panics\":{},\
             \"slowest_micros\":{},\"slowest_case\":{},\"seconds\":{:.1}}}",
            failed.len(),
            slowest.0.as_micros(),
            slowest.1,
            began.elapsed().as_secs_f64()
        );
    }
    assert!(failed.is_empty(), "{name}, seed {seed}: {}", failed.join("; "));
    assert!(cases < 100 || good > 0, "{name}: not one of {cases} cases is good, so they reach nothing");
}
