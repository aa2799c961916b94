//! Inputs by the thousand, made of good ones and of what is known to be odd, from a seed. Included by the tests
//! that fuzz; `cargo xtask fuzz` runs them with more cases.

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many cases, where a campaign asks for more than a test does.
const CASES_VARIABLE: &str = "WASMILL_FUZZ_CASES";
const SEED_VARIABLE: &str = "WASMILL_FUZZ_SEED";
/// The first case, to try one again.
const FROM_VARIABLE: &str = "WASMILL_FUZZ_FROM";
/// The file that holds the number of the case that is tried, 8 bytes, little-endian.
const PROGRESS_VARIABLE: &str = "WASMILL_FUZZ_PROGRESS";
/// No case may take longer, twice.
const SLOWEST: Duration = Duration::from_secs(2);
/// One that takes longer may have waited for a busy machine, but for no longer than this.
const STALLED: Duration = Duration::from_secs(30);
/// Nor hold more bytes at a time.
const ALLOCATED_MAX: usize = 256 << 20;

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

/// Counts what is allocated by all threads. Memory that is mapped for guests is not: limits hold it.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    // What was freed by others before they counted would be a number below 0.
    if live < usize::MAX / 2 {
        MOST.fetch_max(live, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe to implement; this one hands everything on")]
// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What is wrong with how a case went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Panic,
    TooSlow,
    TooLarge,
}

/// CPU time of this process and of the children it has waited for: what others of a busy machine do is not in it.
fn cpu() -> Option<Duration> {
    /// Of a second, as Linux tells them to every process.
    const TICKS: u32 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks = stat.rsplit(')').next()?.split_whitespace().skip(11).take(4);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(Duration::from_secs(ticks) / TICKS)
}

/// A case that was tried.
struct Tried {
    good: bool,
    finding: Option<Finding>,
    took: Duration,
    allocated: usize,
}

#[expect(clippy::disallowed_methods, reason = "cases are timed by the clock on the wall")]
fn attempt(check: &mut impl FnMut(&[u8]) -> bool, input: &[u8]) -> Tried {
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let checked = catch_unwind(AssertUnwindSafe(|| check(input)));
    let took = start.elapsed();
    let allocated = MOST.load(Ordering::Relaxed).saturating_sub(before);
    let finding = match &checked {
        Err(_) => Some(Finding::Panic),
        Ok(_) if allocated > ALLOCATED_MAX => Some(Finding::TooLarge),
        Ok(_) if took > SLOWEST => Some(Finding::TooSlow),
        Ok(_) => None,
    };
    Tried { good: matches!(checked, Ok(true)), finding, took, allocated }
}

/// Once more where it was too much: other tests may have been busy in this process, and others on the machine.
fn attempt_twice(check: &mut impl FnMut(&[u8]) -> bool, input: &[u8]) -> Tried {
    let tried = attempt(check, input);
    if !matches!(tried.finding, Some(Finding::TooSlow | Finding::TooLarge)) {
        return tried;
    }
    let used = cpu();
    let mut tried = attempt(check, input);
    let has_waited = cpu().zip(used).is_some_and(|(now, used)| now.saturating_sub(used) <= SLOWEST);
    if tried.finding == Some(Finding::TooSlow) && has_waited && tried.took <= STALLED {
        tried.finding = None;
    }
    tried
}

/// The same finding with less input, within so many tries: pieces are left out as long as it stays.
fn smaller(check: &mut impl FnMut(&[u8]) -> bool, input: &[u8], finding: Finding) -> Vec<u8> {
    let mut least = input.to_vec();
    let mut tries = if finding == Finding::TooSlow { 20 } else { 500 };
    let mut piece = least.len().div_ceil(2);
    while piece > 0 && tries > 0 {
        let mut from = 0;
        while from < least.len() && tries > 0 {
            tries -= 1;
            let mut fewer = least.clone();
            fewer.drain(from..(from + piece).min(fewer.len()));
            if attempt(check, &fewer).finding == Some(finding) {
                least = fewer;
            } else {
                from += piece;
            }
        }
        piece /= 2;
    }
    least
}

/// Inputs that were findings once, `tests/fuzz/NAME/*`.
fn kept(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz").join(name);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut kept: Vec<_> = entries.map(|entry| entry.path()).collect();
    kept.sort();
    kept.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("reads"))).collect()
}

/// Gives each case to `check`, which must not panic, take long, nor allocate much. What does not hold is made
/// smaller and written to a file. `check` says whether the case was taken for good.
///
/// What was kept of earlier findings comes first. A case that ends the process is the one whose number stands in the
/// file that a campaign names.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the clock and the result of a campaign")]
pub(crate) fn fuzz(
    name: &str,
    cases: u64,
    mut make: impl FnMut(&mut Random) -> Vec<u8>,
    mut check: impl FnMut(&[u8]) -> bool,
) {
    for (path, input) in kept(name) {
        let finding = attempt_twice(&mut check, &input).finding;
        assert_eq!(finding, None, "{}", path.display());
    }
    let seed = variable(SEED_VARIABLE).unwrap_or(1);
    let campaign = variable(CASES_VARIABLE);
    let cases = campaign.unwrap_or(cases);
    let progress = std::env::var_os(PROGRESS_VARIABLE).map(|path| std::fs::File::create(path).expect("a file"));
    let (mut good, mut slowest, mut largest, mut failed) = (0_u64, (Duration::ZERO, 0), 0, Vec::new());
    let began = Instant::now();
    for case in variable(FROM_VARIABLE).unwrap_or(0)..cases {
        // Each case by itself is made of the seed and its number.
        let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(case));
        let input = make(&mut random);
        if let Some(file) = &progress {
            file.write_all_at(&case.to_le_bytes(), 0).expect("written");
        }
        let tried = attempt_twice(&mut check, &input);
        slowest = slowest.max((tried.took, case));
        largest = largest.max(tried.allocated);
        good += u64::from(tried.good);
        if let Some(finding) = tried.finding {
            let least = smaller(&mut check, &input, finding);
            let file = std::env::temp_dir().join(format!("wasmill-fuzz-{name}-{seed}-{case}"));
            let written = std::fs::write(&file, &least).is_ok();
            let written = if written { "see " } else { "not written: " };
            failed.push(format!("case {case}, {finding:?}: {written}{}", file.display()));
            if failed.len() >= 10 {
                break;
            }
        }
    }
    if campaign.is_some() {
        println!(
            "{{\"target\":\"{name}\",\"cases\":{cases},\"seed\":{seed},\"taken\":{good},\"findings\":{},\
             \"slowest_micros\":{},\"slowest_case\":{},\"largest_bytes\":{largest},\"seconds\":{:.1}}}",
            failed.len(),
            slowest.0.as_micros(),
            slowest.1,
            began.elapsed().as_secs_f64()
        );
    }
    assert!(failed.is_empty(), "{name}, seed {seed}: {}", failed.join("; "));
    assert!(cases < 100 || good > 0, "{name}: not one of {cases} cases is good, so they reach nothing");
}
