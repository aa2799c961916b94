//! Plugins and results out of their minds: errors, never a panic, and the host goes on.

#[path = "../../../../tests/support/fuzz.rs"]
mod driver;

use driver::{Random, fuzz, mutated};
use tokio::runtime::Builder;
use wasmill_contract::Operator;
use wasmill_wasm::CompileMode;

use crate::support::{Guest, Host, batch, call};

/// A guest whose result is what it is given: the value of the first row becomes its memory from 1024 on.
fn puppet() -> Guest {
    let body = "(memory.copy (i32.const 1200) (local.get 9)
          (select (local.get 10) (i32.const 60000) (i32.lt_u (local.get 10) (i32.const 60000))))
        (i32.const 1200)";
    Guest::doing("stateless", "process", body)
}

fn word(image: &mut [u8], at: usize, word: i64) {
    if let Some(place) = image.get_mut(at - 1200..at - 1200 + 4) {
        place.copy_from_slice(&word.to_le_bytes()[..4]);
    }
}

/// An outcome in memory, as the canonical ABI lays it out: one emission to start with, and odd numbers.
fn image(random: &mut Random) -> Vec<u8> {
    let mut image = vec![0; 4_000];
    // result: ok; emissions at 1300.
    image[0] = if random.below(16) == 0 { random.below(4) as u8 } else { 0 };
    let emissions = random.below(4) as i64;
    word(&mut image, 1204, 1300);
    word(&mut image, 1208, if random.below(12) == 0 { random.number() } else { emissions });
    for emission in 0..emissions as usize {
        let at = 1300 + emission * 56;
        word(&mut image, at, if random.below(6) == 0 { random.number() } else { 0 });
        image[at + 4 - 1200] = random.below(5) as u8;
        // Up to six lists: where they are, and how long.
        for list in 0..6 {
            let (pointer, length) = (at + 8 + list * 8, at + 12 + list * 8);
            let place = 2_000 + random.below(400) as i64 * 8;
            word(&mut image, pointer, if random.below(10) == 0 { random.number() } else { place });
            word(&mut image, length, if random.below(10) == 0 { random.number() } else { random.below(5) as i64 });
        }
    }
    if random.below(3) == 0 {
        word(&mut image, 1212, 1600);
        word(&mut image, 1216, if random.below(8) == 0 { random.number() } else { random.below(3) as i64 });
        for rejected in 0..3 {
            let at = 1600 + rejected * 12;
            word(&mut image, at, random.below(5) as i64);
            word(&mut image, at + 4, 2_000);
            word(&mut image, at + 8, if random.below(8) == 0 { random.number() } else { random.below(9) as i64 });
        }
    }
    // What the lists hold: ends that rise, times, words of bitmaps.
    let mut end = 0;
    for at in (2_000..4_400).step_by(4) {
        end = if random.below(4) == 0 { random.below(8) as i64 } else { end + random.below(2) as i64 };
        word(&mut image, at, if random.below(40) == 0 { random.number() } else { end });
    }
    for _ in 0..random.below(4) {
        let at = random.below(image.len());
        image[at] ^= 1 << random.below(8);
    }
    image
}

#[test]
fn results() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let host = Host::shared();
    let factory = runtime.block_on(host.factory(&puppet())).expect("describes itself");
    let open = || runtime.block_on(factory.open(crate::support::context(&[]))).expect("opens");
    let mut operator = Some(open());
    fuzz("values", 4_000, image, |image| {
        let mut live = operator.take().unwrap_or_else(open);
        let value = String::from_utf8_lossy(b"x");
        let mut rows = wasmill_model::BatchBuilder::default();
        rows.push(wasmill_model::Timestamp(0), b"key", image);
        rows.push(wasmill_model::Timestamp(1), b"key", value.as_bytes());
        rows.push(wasmill_model::Timestamp(2), b"key", value.as_bytes());
        let outcome = runtime.block_on(call(&mut *live, &rows.finish(0)));
        let good = outcome.is_ok();
        if let Ok(outcome) = outcome {
            // What the host lets through is shaped as it should be.
            for emission in &outcome.emissions {
                drop(format!("{emission:?}"));
            }
            operator = Some(live);
        }
        good
    });
    runtime.block_on(host.works());
}

/// Its id and what is in it.
type Section = (u8, Vec<u8>);

/// A plugin as its first eight bytes and its sections.
fn split(bytes: &[u8]) -> Option<([u8; 8], Vec<Section>)> {
    let (head, mut rest) = bytes.split_first_chunk::<8>()?;
    let mut sections = Vec::new();
    while let Some((id, after)) = rest.split_first() {
        let digits = after.iter().position(|byte| byte & 0x80 == 0)? + 1;
        let length = after[..digits].iter().rev().fold(0_usize, |length, byte| length << 7 | usize::from(byte & 0x7f));
        let section = after.get(digits..digits + length)?;
        sections.push((*id, section.to_vec()));
        rest = &after[digits + length..];
    }
    Some((*head, sections))
}

fn join(head: [u8; 8], sections: &[Section]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    for (id, section) in sections {
        bytes.push(*id);
        let mut length = section.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend(section);
    }
    bytes
}

/// A plugin with sections that are gone, doubled, moved, changed a little, or out of another plugin; or with
/// anything changed.
fn plugin(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let plugin = random.pick(corpus).clone();
    let noise = ["\0asm", "component-type", "\u{1}", "\0", "wasmill:operator/state@0.1.0"];
    let Some((head, mut sections)) = split(&plugin).filter(|_| random.below(8) > 0) else {
        return mutated(random, &[plugin], &noise);
    };
    for _ in 0..1 + random.below(2) {
        let (at, to) = (random.below(sections.len()), random.below(sections.len()));
        match random.below(8) {
            0 => drop(sections.remove(at)),
            1 => sections.insert(to, sections[at].clone()),
            2 => sections.swap(at, to),
            3 => {
                let other: &Vec<u8> = random.pick(corpus);
                let other = split(other).map(|(_, sections)| sections).unwrap_or_default();
                sections.insert(to, random.pick(&other).clone());
            }
            // A module in a component is a plugin of its own.
            4 if sections[at].1.starts_with(b"\0asm") => {
                sections[at].1 = self::plugin(random, &[sections[at].1.clone()])
            }
            _ => {
                let section = &mut sections[at].1;
                let place = random.below(section.len());
                let byte = *random.pick(&[0, 1, 0x7f, 0x80, 0xff, 0x0b, 0x41]);
                let flipped = random.below(8);
                let is_flip = random.below(2) == 0;
                if let Some(there) = section.get_mut(place) {
                    *there = if is_flip { *there ^ (1 << flipped) } else { byte };
                }
            }
        }
        if sections.is_empty() {
            break;
        }
    }
    join(head, &sections)
}

#[test]
fn a_plugin_is_the_sum_of_its_sections() {
    for plugin in [Guest::named("counts").module(), Guest::named("counts").component()] {
        let (head, sections) = split(&plugin).expect("sections");
        assert!(sections.len() > 3 && join(head, &sections) == plugin);
    }
}

#[test]
fn components() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    // In a worker, as in production: what makes components of modules overflows its stack on some of these.
    let host = Host::with(|settings| {
        let program = env!("CARGO_BIN_EXE_wasmill-compile-worker").into();
        settings.compile = CompileMode::Worker { program, arguments: Vec::new() };
    });
    let names = ["unchanged", "canary", "counts", "flags_two", "keeps_marked", "remembers"];
    let guests: Vec<Guest> = names.iter().map(|name| Guest::named(name)).collect();
    let corpus: Vec<Vec<u8>> = guests.iter().flat_map(|guest| [guest.module(), guest.component()]).collect();
    fuzz(
        "components",
        150,
        |random| plugin(random, &corpus),
        |bytes| {
            runtime.block_on(async {
                let Ok(loaded) = host.load(bytes.to_vec()).await else { return false };
                // It may be another one now, and do anything.
                let Ok(factory) = loaded.configure(Vec::new()).await else { return true };
                let Ok(mut operator) = factory.open(crate::support::context(&factory.descriptor().spaces)).await else {
                    return true;
                };
                drop(call(&mut *operator as &mut dyn Operator, &batch(&["one", "two"])).await);
                true
            })
        },
    );
    runtime.block_on(host.works());
}
