//! Keyed counting as a plain native program, and the data for it.
//!
//!   count make --events N --keys K --out FILE     lines {"key":"k123","pad":"..."} of 100 bytes, zipf
//!   count make ... --spread even                  the same, every key as often as every other
//!   count run --in FILE --out FILE                one line a line: the key's count so far
//!
//! `run` parses with serde, counts in one hash map by key and writes in large blocks.
use rustc_hash::FxHashMap;
use serde::Deserialize;
use std::fs::File;
use std::io::{BufWriter, Read, Write};

#[derive(Deserialize)]
struct Line<'a> {
    key: &'a str,
}

fn mix64(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
    z ^ (z >> 31)
}

/// Keys with a share of about 1/rank, by inverting the logarithm of the rank; or, `even`, every key
/// once in every `keys` events.
fn make(events: u64, keys: u64, even: bool, out: &str) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(out).unwrap());
    for i in 0..events {
        let u = (mix64(i) >> 11) as f64 / (1u64 << 53) as f64;
        let rank = if even { i % keys + 1 } else { ((keys as f64 + 1.0).powf(u) as u64).clamp(1, keys) };
        let key = format!("k{}", mix64(rank) % 1_000_000_000);
        let pad = 100 - 1 - 18 - key.len();
        writeln!(out, "{{\"key\":\"{key}\",\"pad\":\"{:x>pad$}\"}}", i % 1_000).unwrap();
    }
    out.flush().unwrap();
}

fn run(input: &str, output: &str) {
    let mut file = File::open(input).unwrap();
    let mut out = File::create(output).unwrap();
    let mut counts: FxHashMap<String, u64> = FxHashMap::default();
    let (mut text, mut buf, mut have) = (Vec::with_capacity(1 << 19), vec![0u8; 1 << 20], 0);
    loop {
        let read = file.read(&mut buf[have..]).unwrap();
        if read == 0 {
            break;
        }
        let (end, mut start) = (have + read, 0);
        while let Some(k) = memchr::memchr(b'\n', &buf[start..end]) {
            let line: Line = serde_json::from_slice(&buf[start..start + k]).expect("bad line");
            let count = match counts.get_mut(line.key) {
                Some(count) => {
                    *count += 1;
                    *count
                }
                None => {
                    counts.insert(line.key.to_owned(), 1);
                    1
                }
            };
            text.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
            text.push(b'\n');
            if text.len() > 1 << 18 {
                out.write_all(&text).unwrap();
                text.clear();
            }
            start += k + 1;
        }
        buf.copy_within(start..end, 0);
        have = end - start;
    }
    out.write_all(&text).unwrap();
}

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let find = |k: &str| a.iter().position(|x| x == k).map(|i| a[i + 1].clone());
    let get = |k: &str| find(k).expect(k);
    match a[1].as_str() {
        "make" => {
            let even = find("--spread").is_some_and(|spread| spread == "even");
            make(get("--events").parse().unwrap(), get("--keys").parse().unwrap(), even, &get("--out"));
        }
        "run" => run(&get("--in"), &get("--out")),
        other => panic!("{other}"),
    }
}
