//! `cargo run --release --example bench -- FILE`: nanoseconds a line to find fields in JSON lines.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement, not a program")]

use std::hint::black_box;
use std::time::Instant;

use wasmill_scan::{Fields, Pointer};

fn main() {
    let path = std::env::args().nth(1).expect("a file of JSON lines, such as NEXMark bids");
    let text = std::fs::read(path).unwrap();
    let lines: Vec<&[u8]> =
        text.split(|b| *b == b'\n').filter(|l| l.starts_with(b"{\"type\":\"bid\"")).take(100_000).collect();
    let bytes: usize = lines.iter().map(|l| l.len()).sum();
    println!("{} lines of {} bytes", lines.len(), bytes / lines.len());

    const EARLY: Fields<3> = Fields::new(["type", "auction", "price"]);
    const LATE: Fields<4> = Fields::new(["type", "auction", "price", "dateTime"]);
    const ALL: Fields<5> = Fields::new(["auction", "bidder", "price", "dateTime", "extra"]);
    const ABSENT: Fields<2> = Fields::new(["auction", "missing"]);
    let time: Pointer = "/dateTime".parse().unwrap();
    report("type, auction, price", &lines, |l| EARLY.find(l).unwrap()[2].unwrap().as_u64().unwrap());
    report("type, auction, price, dateTime", &lines, |l| LATE.find(l).unwrap()[3].unwrap().as_u64().unwrap());
    report("q0: five fields, all numbers read", &lines, |l| {
        let [a, b, p, d, e] = ALL.find(l).unwrap().map(Option::unwrap);
        let numbers = [a, b, p, d].iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
        numbers + e.bytes().len() as u64
    });
    report("auction and one that is missing", &lines, |l| ABSENT.find(l).unwrap()[0].unwrap().as_u64().unwrap());
    report("pointer /dateTime", &lines, |l| time.find(l).unwrap().unwrap().as_u64().unwrap());
}

fn report(name: &str, lines: &[&[u8]], find: impl Fn(&[u8]) -> u64) {
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            for line in lines {
                black_box(find(black_box(line)));
            }
            start.elapsed().as_nanos() as f64 / lines.len() as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name:36} {:7.1} ns/line (best {:.1})", times[7], times[0]);
}
