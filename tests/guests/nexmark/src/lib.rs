//! NEXMark queries over JSON events: the part that sees every event.
//!
//! | query | emits |
//! | --- | --- |
//! | `q0` | every bid: `{"auction","bidder","price","dateTime","extra"}` |
//! | `q1` | as `q0`, with price * 908 / 1000 |
//! | `q2` | bids on every 123rd auction: `{"auction","price"}` |
//! | `q5` | bids, by auction, without a value |
//! | `q7` | bids under the key they came with: price, auction, bidder and time of the bid in ms, each 8 bytes, little-endian |
//! | `q8` | people by their id, with `P` and their name in quotes; auctions by their seller, with `A` |
//! | `q11`, `q12` | bids, by bidder, without a value |
//! | `q17` | bids, by auction: the price, 8 bytes, little-endian |
//!
//! Those from `q5` on feed `nexmark-window`. Keys are numbers as they stand in the JSON. Fields are
//! found without parsing the rest, and copied where they do not change.
//!
//! Configuration: `{ query = "q0" }`.

use serde::Deserialize;
use wasmill_sdk::json::{Fields, Raw};
use wasmill_sdk::prelude::*;

/// Which query this is a part of.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Query {
    Q0,
    Q1,
    Q2,
    Q5,
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

/// The operator of this plugin.
struct Nexmark {
    query: Query,
}

const KIND: Fields<1> = Fields::new(["type"]);
const PERSON: &[u8] = b"\"person\"";
const AUCTION: &[u8] = b"\"auction\"";
const BID: &[u8] = b"\"bid\"";

impl Operator for Nexmark {
    type Config = Config;
    const COLUMNS: Columns = Columns::VALUES;

    fn open(config: Config, _: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self { query: config.query })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let json = event.value();
        match self.query {
            Query::Q0 => emit_bid(json, ctx, false),
            Query::Q1 => emit_bid(json, ctx, true),
            Query::Q2 => every_123rd(json, ctx),
            Query::Q5 => emit_by("auction", BID, json, b"", ctx),
            Query::Q7 => emit_price(json, ctx),
            // Most events are bids, and most of a bid is not worth a look.
            Query::Q8 => match KIND.find(json)?[0].map(|kind| kind.bytes()) {
                Some(PERSON) => emit_person(json, ctx),
                Some(AUCTION) => emit_by("seller", AUCTION, json, b"A", ctx),
                _ => Ok(()),
            },
            Query::Q11 | Query::Q12 => emit_by("bidder", BID, json, b"", ctx),
            Query::Q17 => emit_price_by_auction(json, ctx),
        }
    }
}

wasmill_sdk::operator!(Nexmark);

/// Some fields of events of one kind, found in one pass over the event. The first of them is `type`.
/// `None` for an event of another kind; a field that one of this kind lacks is an error.
#[inline(always)]
fn of_kind<'a, const N: usize>(
    kind: &[u8],
    fields: &Fields<'_, N>,
    json: &'a [u8],
) -> Result<Option<[Raw<'a>; N]>, Reject> {
    let found = fields.find(json)?;
    let Some(first) = found.first().copied().flatten().filter(|first| first.bytes() == kind) else { return Ok(None) };
    let mut all = [first; N];
    for (field, found) in all.iter_mut().zip(found) {
        *field = found.ok_or_else(missing)?;
    }
    Ok(Some(all))
}

#[cold]
fn missing() -> Reject {
    Reject::new("a field of the event is missing")
}

fn number(raw: Raw<'_>) -> Result<u64, Reject> {
    raw.as_u64().ok_or_else(|| Reject::new("a field of the event is no unsigned integer"))
}

fn emit_bid(json: &[u8], ctx: &mut Context<'_>, in_euro: bool) -> Result<(), Reject> {
    const FIELDS: Fields<6> = Fields::new(["type", "auction", "bidder", "price", "dateTime", "extra"]);
    let Some([_, auction, bidder, price, time, extra]) = of_kind(BID, &FIELDS, json)? else { return Ok(()) };
    let mut digits = itoa::Buffer::new();
    let price = if in_euro { digits.format(number(price)? * 908 / 1000).as_bytes() } else { price.bytes() };
    ctx.emit_with(|out| {
        write(
            out,
            &[
                b"{\"auction\":",
                auction.bytes(),
                b",\"bidder\":",
                bidder.bytes(),
                b",\"price\":",
                price,
                b",\"dateTime\":",
                time.bytes(),
                b",\"extra\":",
                extra.bytes(),
                b"}",
            ],
        );
    });
    Ok(())
}

fn every_123rd(json: &[u8], ctx: &mut Context<'_>) -> Result<(), Reject> {
    const FIELDS: Fields<3> = Fields::new(["type", "auction", "price"]);
    let Some([_, auction, price]) = of_kind(BID, &FIELDS, json)? else { return Ok(()) };
    if number(auction)? % 123 == 0 {
        ctx.emit_with(|out| write(out, &[b"{\"auction\":", auction.bytes(), b",\"price\":", price.bytes(), b"}"]));
    }
    Ok(())
}

/// An event of a kind under the number in one of its fields.
fn emit_by(field: &'static str, kind: &[u8], json: &[u8], value: &[u8], ctx: &mut Context<'_>) -> Result<(), Reject> {
    if let Some([_, key]) = of_kind(kind, &Fields::new(["type", field]), json)? {
        ctx.row().key(key.bytes()).emit(value);
    }
    Ok(())
}

fn emit_price(json: &[u8], ctx: &mut Context<'_>) -> Result<(), Reject> {
    const FIELDS: Fields<5> = Fields::new(["type", "price", "auction", "bidder", "dateTime"]);
    let Some([_, bid @ ..]) = of_kind(BID, &FIELDS, json)? else { return Ok(()) };
    let mut value = [0; 32];
    for (field, bytes) in bid.into_iter().zip(value.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&number(field)?.to_le_bytes());
    }
    ctx.emit(value);
    Ok(())
}

fn emit_price_by_auction(json: &[u8], ctx: &mut Context<'_>) -> Result<(), Reject> {
    const FIELDS: Fields<3> = Fields::new(["type", "auction", "price"]);
    if let Some([_, auction, price]) = of_kind(BID, &FIELDS, json)? {
        ctx.row().key(auction.bytes()).emit(number(price)?.to_le_bytes());
    }
    Ok(())
}

fn emit_person(json: &[u8], ctx: &mut Context<'_>) -> Result<(), Reject> {
    const FIELDS: Fields<3> = Fields::new(["type", "id", "name"]);
    if let Some([_, id, name]) = of_kind(PERSON, &FIELDS, json)? {
        ctx.row().key(id.bytes()).emit_with(|out| write(out, &[b"P", name.bytes()]));
    }
    Ok(())
}

#[inline(always)]
fn write(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| wasmill_sdk::append(out, part));
}

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Nexmark;

    const PERSON: &str = r#"{"type":"person","id":1000,"name":"vicky noris","dateTime":1700000000000}"#;
    const AUCTION: &str = r#"{"type":"auction","id":1001,"itemName":"x","dateTime":1700000000001,"seller":1000}"#;
    const BID: &str = r#"{"type":"bid","auction":1107,"bidder":1001,"price":2000,"channel":"c","url":"u","dateTime":1700000000002,"extra":"é\n"}"#;

    fn run(query: &str) -> Vec<(String, Vec<u8>)> {
        let mut test = Tester::<Nexmark>::new(&format!(r#"{{"query":"{query}"}}"#));
        test.send_all([("", PERSON), ("", AUCTION), ("", BID)]);
        assert!(test.rejected().is_empty());
        let rows = test.take_rows().into_iter();
        rows.map(|row| (String::from_utf8_lossy(&row.key).into_owned(), row.value)).collect()
    }

    fn row(key: &str, value: &str) -> (String, Vec<u8>) {
        (key.to_owned(), value.as_bytes().to_vec())
    }

    #[test]
    fn bids_are_projected() {
        let q0 = r#"{"auction":1107,"bidder":1001,"price":2000,"dateTime":1700000000002,"extra":"é\n"}"#;
        assert_eq!(run("q0"), [row("", q0)]);
        assert_eq!(run("q1"), [row("", &q0.replace("2000", "1816"))]);
        assert_eq!(run("q2"), [row("", r#"{"auction":1107,"price":2000}"#)]);
    }

    #[test]
    fn events_are_keyed_for_the_windows() {
        assert_eq!(run("q5"), [row("1107", "")]);
        assert_eq!(run("q11"), [row("1001", "")]);
        assert_eq!(run("q12"), [row("1001", "")]);
        assert_eq!(run("q17"), [("1107".to_owned(), 2000u64.to_le_bytes().to_vec())]);
        assert_eq!(run("q8"), [row("1000", r#"P"vicky noris""#), row("1000", "A")]);
        let bid = [2000u64, 1107, 1001, 1_700_000_000_002].map(u64::to_le_bytes).concat();
        assert_eq!(run("q7"), [(String::new(), bid)]);
    }

    #[test]
    fn broken_events_are_rejected() {
        let mut test = Tester::<Nexmark>::new(r#"{"query":"q0"}"#);
        test.send_all([("", "[]"), ("", r#"{"type":"bid"}"#), ("", BID)]);
        assert_eq!((test.rejected().len(), test.values().len()), (2, 1));
    }

    #[test]
    fn unknown_queries_are_refused() {
        let error = Tester::<Nexmark>::open(r#"{"query":"q3"}"#).err().map(|error| error.to_string());
        assert!(
            error.is_some_and(|error| error.starts_with("config: `query`: unknown variant `q3`, expected one of `q0`"))
        );
    }
}
