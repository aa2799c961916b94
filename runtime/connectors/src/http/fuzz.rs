//! Bodies that come by HTTP, out of their minds: rows that are one line each, or a refusal in words.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde::de::IgnoredAny;

use super::decode::{Decode, Refused};
use crate::fuzz_driver::{Random, fuzz, mutated};

/// Headers, a line each, an empty line, and a body.
const CORPUS: &[&str] = &[
    "content-type: application/json\n\n{\"a\":1}",
    "content-type: application/json\n\n[1,{\"a\":\"\\u00e4\"},[null]]",
    "content-type: application/x-ndjson\nidempotency-key: a\n\n1\n{\"a\":2}\r\n\n\"x\"\n",
    "content-type: text/plain\n\nhello",
    "content-type: application/cloudevents+json; charset=utf-8\n\n{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\
     \"type\":\"t\",\"time\":\"2026-01-01T00:00:00Z\",\"partitionkey\":\"k\",\"data\":{\"a\":[1,2]}}",
    "content-type: application/cloudevents+json\n\n{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",\
     \"datacontenttype\":\"text/plain\",\"data_base64\":\"aGk=\"}",
    "content-type: application/cloudevents-batch+json\n\n[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\
     \"type\":\"t\",\"data\":1},{\"specversion\":\"1.0\",\"id\":\"2\",\"source\":\"s\",\"type\":\"t\",\"data\":\"x\"}]",
    "content-type: application/json\nce-specversion: 1.0\nce-id: 1\nce-source: /s\nce-type: t\n\
     ce-time: 2026-01-01T00:00:00.5+02:00\nce-partitionkey: k\n\n{\"a\":1}",
    "content-type: application/octet-stream\nce-specversion: 1.0\nce-id: %20\nce-source: s\nce-type: t\n\n\u{0}\u{1}",
];

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\n",
    "\r\n",
    "\n\n",
    "\\ud800",
    "\\u0000",
    "1e400",
    "-0",
    "null",
    "\"id\":",
    "\"data\":",
    "\"data_base64\":\"",
    "\"time\":\"9999-12-31T23:59:60Z\",",
    "\"time\":\"-9999-01-01T00:00:00Z\",",
    "content-type: ",
    "ce-id: ",
    "ce-time: ",
    "; charset=utf-16",
    "[[[[[[[[",
    "{\"a\":{\"a\":",
    "\u{feff}",
    "\u{1b}",
    "application/json",
    "+json",
    "%ff",
    "é",
];

fn request(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut text = mutated(random, corpus, WORDS);
    if random.below(200) == 0 {
        let deep = random.pick(&["[", "{\"a\":", "[{\"a\":"]).repeat(random.below(20_000));
        text.extend_from_slice(deep.as_bytes());
    }
    text
}

/// Headers and body. What is no header is none.
fn split(input: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = input;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Some(colon) = memchr::memchr(b':', line) else { break };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}

#[test]
fn bodies() {
    let corpus: Vec<Vec<u8>> = CORPUS.iter().map(|text| text.as_bytes().to_vec()).collect();
    fuzz(
        "ingest",
        5_000,
        |random| request(random, &corpus),
        |input| {
            let (headers, body) = split(input);
            let mut taken = false;
            for envelope in [false, true] {
                let how = Decode { envelope, events_max: 1_000 };
                match how.rows(&headers, body, 1_700_000_000_000_000) {
                    Ok(rows) => {
                        taken = true;
                        let (batch, ids) = rows.finish(0);
                        assert!(batch.len() <= 1_000);
                        assert!(ids.is_none_or(|ids| ids.len() == batch.len()));
                        for value in batch.values().iter().filter(|_| envelope) {
                            assert!(memchr::memchr2(b'\n', b'\r', value).is_none(), "{value:?}");
                            assert!(serde_json::from_slice::<IgnoredAny>(value).is_ok(), "{value:?}");
                        }
                    }
                    Err(Refused::Malformed(why) | Refused::ContentType(why)) => {
                        assert!(!why.is_empty());
                        assert!(why.len() < 4_096 && !why.contains('\u{1b}'), "{why:?}");
                    }
                }
            }
            taken
        },
    );
}
