//! NEXMark queries over JSON events: the windows. Fed by `nexmark`.
//!
//! | query | window | result |
//! | --- | --- | --- |
//! | `q5` | sliding 10 s by 2 s, by auction | number of bids: `{"auction","num"}` |
//! | `q5-max` | tumbling 2 s, under the empty key, over the results of `q5` | the auctions with most bids: `{"windowStart","windowEnd","auction","num"}` |
//! | `q7` | tumbling 10 s, under the empty key | the bids of the highest price: `{"auction","bidder","price","dateTime"}` |
//! | `q8` | tumbling 10 s, by person | who is new and sells: `{"id","name","windowStart"}` |
//! | `q11` | sessions with a gap of 10 s, by bidder | number of bids: `{"bidder","count","windowStart","windowEnd"}` |
//! | `q12` | tumbling 10 s, by bidder | number of bids: `{"bidder","count","windowStart","windowEnd"}` |
//! | `q17` | tumbling 1 d, by auction | `{"auction","day","totalBids","rank1Bids","rank2Bids","rank3Bids","minPrice","maxPrice","avgPrice","sumPrice"}`: bids below 10,000, below 1,000,000 and above; `day` is its first millisecond |
//!
//! A result has the last microsecond of its window as its time, so the results of one sliding
//! window fall into one tumbling window of the slide's length that ends with it: `q5-max`.
//!
//! Configuration: `{ query = "q5" }`.

use serde::Deserialize;
use wasmill_sdk::json::Fields;
use wasmill_sdk::prelude::*;
use wasmill_sdk::{Codec, CodecError};

/// Which window this is.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Query {
    Q5,
    Q5Max,
    Q7,
    Q8,
    Q11,
    Q12,
    Q17,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    query: Query,
}

/// The aggregate of this plugin.
struct Nexmark {
    query: Query,
}

/// A number (a count or the highest number so far), and rows that go with it, end to end: of 24
/// bytes for `q7`, each with its length before it for `q5-max`, and for `q8` the name alone. For `q17`
/// the six numbers of [`Prices`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    number: u64,
    rows: Vec<u8>,
}

impl Codec for Known {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.rows);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        match bytes.split_first_chunk() {
            Some((number, rows)) => Ok(Self { number: u64::from_le_bytes(*number), rows: rows.to_vec() }),
            None => Err(CodecError::new(format!("expected 8 bytes or more, found {}", bytes.len()))),
        }
    }
}

impl Known {
    /// Keeps the rows of the highest number.
    fn raise(&mut self, number: u64, rows: &[&[u8]]) {
        if number > self.number {
            self.number = number;
            self.rows.clear();
        }
        if number == self.number {
            rows.iter().for_each(|row| self.rows.extend_from_slice(row));
        }
    }
}

/// Prices of bids: how many are low, middling and high, and what they are.
struct Prices {
    ranks: [u64; 3],
    min: u64,
    max: u64,
    sum: u64,
}

impl Prices {
    /// From 48 bytes; without them, of no bid.
    fn read(bytes: &[u8]) -> Self {
        let number =
            |at: usize| bytes.get(at * 8..).and_then(|rest| rest.first_chunk().copied()).map(u64::from_le_bytes);
        let or_zero = |at| number(at).unwrap_or(0);
        Self {
            ranks: [or_zero(0), or_zero(1), or_zero(2)],
            min: number(3).unwrap_or(u64::MAX),
            max: or_zero(4),
            sum: or_zero(5),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let [low, middling, high] = self.ranks;
        [low, middling, high, self.min, self.max, self.sum].map(u64::to_le_bytes).concat()
    }

    fn add(&mut self, price: u64) {
        let rank = usize::from(price >= 10_000) + usize::from(price >= 1_000_000);
        self.ranks[rank] += 1;
        (self.min, self.max, self.sum) = (self.min.min(price), self.max.max(price), self.sum + price);
    }

    fn merged(&self, other: &Self) -> Self {
        let mut ranks = self.ranks;
        ranks.iter_mut().zip(other.ranks).for_each(|(rank, other)| *rank += other);
        Self { ranks, min: self.min.min(other.min), max: self.max.max(other.max), sum: self.sum + other.sum }
    }
}

/// For `q8`: an auction was opened. A person is new where there is a name.
const SELLS: u64 = 1;
/// Microseconds.
const SLIDING: i64 = 10_000_000;

impl Aggregate for Nexmark {
    type Config = Config;
    type Accumulator = Known;
    const COLUMNS: Columns = Columns::VALUES;

    fn open(config: Config) -> Result<Self, ConfigError> {
        Ok(Self { query: config.query })
    }

    #[inline]
    fn fold(&self, known: &mut Known, event: Event<'_>) -> Result<(), Reject> {
        let value = event.value();
        match self.query {
            Query::Q5 | Query::Q11 | Query::Q12 => known.number += 1,
            Query::Q17 => {
                let Some(price) = value.first_chunk() else { wasmill_sdk::reject!("too short") };
                known.number += 1;
                let mut prices = Prices::read(&known.rows);
                prices.add(u64::from_le_bytes(*price));
                known.rows = prices.bytes();
            }
            Query::Q5Max => {
                const COUNT: Fields<2> = Fields::new(["auction", "num"]);
                let [Some(auction), Some(num)] = COUNT.find(value)? else { wasmill_sdk::reject!("no result of q5") };
                let Some(num) = num.as_u64() else { wasmill_sdk::reject!("`num` is no unsigned integer") };
                known.raise(num, &[&[u8::try_from(auction.bytes().len())?], auction.bytes()]);
            }
            Query::Q7 => {
                let Some((price, bid)) = value.split_first_chunk() else { wasmill_sdk::reject!("too short") };
                if bid.len() != 24 {
                    wasmill_sdk::reject!("32 bytes expected, found {}", value.len());
                }
                known.raise(u64::from_le_bytes(*price), &[bid]);
            }
            Query::Q8 => match value {
                [b'P', name @ ..] => known.rows = name.to_vec(),
                _ => known.number = SELLS,
            },
        }
        Ok(())
    }

    fn merge(&self, into: &mut Known, from: Known) {
        match self.query {
            Query::Q5 | Query::Q11 | Query::Q12 => into.number += from.number,
            Query::Q17 => {
                into.number += from.number;
                into.rows = Prices::read(&into.rows).merged(&Prices::read(&from.rows)).bytes();
            }
            Query::Q7 | Query::Q5Max => into.raise(from.number, &[&from.rows]),
            Query::Q8 => {
                into.number |= from.number;
                if !from.rows.is_empty() {
                    into.rows = from.rows;
                }
            }
        }
    }

    fn finish(&self, pane: Pane<'_>, known: Known, out: &mut Results) {
        let (start, end) = (pane.start() / 1000, pane.end() / 1000);
        let mut n = Digits::default();
        match self.query {
            Query::Q5 => out.emit_with(|line| {
                line.extend_from_slice(b"{\"auction\":");
                line.extend_from_slice(pane.key());
                n.field(line, b",\"num\":", known.number as i64);
                line.push(b'}');
            }),
            Query::Q5Max => {
                let mut rows = &known.rows[..];
                while let Some((auction, rest)) =
                    rows.split_first().and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)))
                {
                    rows = rest;
                    out.emit_with(|line| {
                        n.field(line, b"{\"windowStart\":", end - SLIDING / 1000);
                        n.field(line, b",\"windowEnd\":", end);
                        line.extend_from_slice(b",\"auction\":");
                        line.extend_from_slice(auction);
                        n.field(line, b",\"num\":", known.number as i64);
                        line.push(b'}');
                    });
                }
            }
            Query::Q7 => {
                let number =
                    |row: &[u8], at: usize| row[at..].first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
                for row in known.rows.chunks_exact(24) {
                    out.emit_with(|line| {
                        n.field(line, b"{\"auction\":", number(row, 0));
                        n.field(line, b",\"bidder\":", number(row, 8));
                        n.field(line, b",\"price\":", known.number as i64);
                        n.field(line, b",\"dateTime\":", number(row, 16));
                        line.push(b'}');
                    });
                }
            }
            Query::Q8 if known.number == SELLS && !known.rows.is_empty() => out.emit_with(|line| {
                line.extend_from_slice(b"{\"id\":");
                line.extend_from_slice(pane.key());
                line.extend_from_slice(b",\"name\":");
                line.extend_from_slice(&known.rows);
                n.field(line, b",\"windowStart\":", start);
                line.push(b'}');
            }),
            Query::Q8 => {}
            Query::Q17 => {
                let Prices { ranks, min, max, sum } = Prices::read(&known.rows);
                let names: [&[u8]; 3] = [b",\"rank1Bids\":", b",\"rank2Bids\":", b",\"rank3Bids\":"];
                out.emit_with(|line| {
                    line.extend_from_slice(b"{\"auction\":");
                    line.extend_from_slice(pane.key());
                    n.field(line, b",\"day\":", start);
                    n.field(line, b",\"totalBids\":", known.number as i64);
                    names.into_iter().zip(ranks).for_each(|(name, rank)| n.field(line, name, rank as i64));
                    n.field(line, b",\"minPrice\":", min as i64);
                    n.field(line, b",\"maxPrice\":", max as i64);
                    n.field(line, b",\"avgPrice\":", (sum / known.number.max(1)) as i64);
                    n.field(line, b",\"sumPrice\":", sum as i64);
                    line.push(b'}');
                });
            }
            Query::Q11 | Query::Q12 => out.emit_with(|line| {
                line.extend_from_slice(b"{\"bidder\":");
                line.extend_from_slice(pane.key());
                n.field(line, b",\"count\":", known.number as i64);
                n.field(line, b",\"windowStart\":", start);
                n.field(line, b",\"windowEnd\":", end);
                line.push(b'}');
            }),
        }
    }
}

wasmill_sdk::aggregate!(Nexmark);

#[derive(Default)]
struct Digits(itoa::Buffer);

impl Digits {
    #[inline]
    fn field(&mut self, line: &mut Vec<u8>, name: &[u8], number: i64) {
        line.extend_from_slice(name);
        line.extend_from_slice(self.0.format(number).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::WindowTester;

    use super::Nexmark;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn q5_counts_and_then_takes_the_largest_with_ties() {
        let mut count = WindowTester::<Nexmark>::sliding(r#"{"query":"q5"}"#, 10 * SECOND, 2 * SECOND);
        count.send_all([(1, "7", ""), (2, "8", ""), (3 * SECOND, "7", ""), (3 * SECOND, "8", ""), (4, "9", "")]);
        let mut max = WindowTester::<Nexmark>::tumbling(r#"{"query":"q5-max"}"#, 2 * SECOND);
        count.watermark(4 * SECOND);
        for row in count.take_rows() {
            max.send(row.end - 1, "", row.value);
        }
        max.watermark(i64::MAX / 2);
        assert_eq!(
            max.values(),
            [
                r#"{"windowStart":-8000,"windowEnd":2000,"auction":7,"num":1}"#,
                r#"{"windowStart":-8000,"windowEnd":2000,"auction":8,"num":1}"#,
                r#"{"windowStart":-8000,"windowEnd":2000,"auction":9,"num":1}"#,
                r#"{"windowStart":-6000,"windowEnd":4000,"auction":7,"num":2}"#,
                r#"{"windowStart":-6000,"windowEnd":4000,"auction":8,"num":2}"#,
            ]
        );
    }

    #[test]
    fn q7_keeps_the_bids_of_the_highest_price() {
        let bid = |numbers: [u64; 4]| numbers.map(u64::to_le_bytes).concat();
        let mut test = WindowTester::<Nexmark>::tumbling(r#"{"query":"q7"}"#, 10 * SECOND);
        test.send_all([
            (1, "", bid([5, 1, 2, 3])),
            (2, "", bid([9, 4, 5, 6])),
            (3, "", bid([9, 7, 8, 9])),
            (4, "", bid([8, 1, 1, 1])),
        ]);
        test.send(5, "", b"short");
        test.watermark(10 * SECOND);
        assert_eq!(
            test.values(),
            [
                r#"{"auction":4,"bidder":5,"price":9,"dateTime":6}"#,
                r#"{"auction":7,"bidder":8,"price":9,"dateTime":9}"#
            ]
        );
        assert_eq!(test.rejected().len(), 1);
    }

    #[test]
    fn q8_joins_people_and_their_auctions() {
        let mut test = WindowTester::<Nexmark>::tumbling(r#"{"query":"q8"}"#, 10 * SECOND);
        test.send_all([(1, "1", "P\"ann\""), (2, "1", "A"), (3, "1", "A"), (4, "2", "A"), (5, "3", "P\"bob\"")]);
        test.watermark(10 * SECOND);
        assert_eq!(test.values(), [r#"{"id":1,"name":"ann","windowStart":0}"#]);
    }

    #[test]
    fn q12_counts_bids() {
        let mut test = WindowTester::<Nexmark>::tumbling(r#"{"query":"q12"}"#, 10 * SECOND);
        test.send_all([(1, "1", ""), (2, "1", ""), (11 * SECOND, "1", "")]);
        test.watermark(20 * SECOND);
        assert_eq!(
            test.values(),
            [
                r#"{"bidder":1,"count":2,"windowStart":0,"windowEnd":10000}"#,
                r#"{"bidder":1,"count":1,"windowStart":10000,"windowEnd":20000}"#
            ]
        );
    }

    #[test]
    fn q17_knows_the_prices_of_a_day() {
        let mut test = WindowTester::<Nexmark>::tumbling(r#"{"query":"q17"}"#, 86_400 * SECOND);
        test.send_all([9_999u64, 10_000, 1_000_000].map(|price| (1, "7", price.to_le_bytes())));
        test.watermark(86_400 * SECOND);
        let want = r#"{"auction":7,"day":0,"totalBids":3,"rank1Bids":1,"rank2Bids":1,"rank3Bids":1,"minPrice":9999,"maxPrice":1000000,"avgPrice":339999,"sumPrice":1019999}"#;
        assert_eq!(test.values(), [want]);
    }

    #[test]
    fn halves_merge_into_the_whole() {
        let test = WindowTester::<Nexmark>::tumbling(r#"{"query":"q12"}"#, 1);
        assert_eq!(test.merged(&[(0, "1", ""), (0, "1", "")], &[(0, "1", "")]), 3u64.to_le_bytes());
    }
}
