use hyper::header::HeaderValue;
use proptest::prelude::*;
use wasmill_model::Batch;

use super::*;

const DATA: Decode = Decode { envelope: false, events_max: 10 };
const WHOLE: Decode = Decode { envelope: true, events_max: 10 };
const NOW: i64 = 5;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_str(value).expect("a value")))
        .collect()
}

fn decode(how: Decode, pairs: &[(&'static str, &str)], body: &[u8]) -> Result<(Batch, Option<Vec<EventId>>), Refused> {
    how.rows(&headers(pairs), body, NOW).map(|rows| rows.finish(0))
}

fn values(how: Decode, pairs: &[(&'static str, &str)], body: &str) -> Vec<String> {
    let (batch, _) = decode(how, pairs, body.as_bytes()).expect("taken");
    batch.values().iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

fn reason(content_type: &str, body: &str) -> String {
    match decode(DATA, &[("content-type", content_type)], body.as_bytes()) {
        Err(Refused::Malformed(reason) | Refused::ContentType(reason)) => reason,
        Ok(rows) => panic!("{rows:?}"),
    }
}

#[test]
fn json_is_one_row_or_one_for_each_item() {
    let json = &[("content-type", "application/json; charset=UTF-8")];
    assert_eq!(values(DATA, json, " {\"a\": 1}\n"), ["{\"a\": 1}"]);
    assert_eq!(
        values(DATA, json, "[1, {\"b\":\n [2,\"x \\\" y\"]},\"s\"]"),
        ["1", "{\"b\":[2,\"x \\\" y\"]}", "\"s\""]
    );
    assert!(values(DATA, json, "[]").is_empty());
    assert_eq!(values(DATA, &[("content-type", "application/x-ndjson")], "1\r\n\n{\"a\":2}"), ["1", "{\"a\":2}"]);
}

#[test]
fn cloud_events_come_in_three_modes() {
    let event = r#"{"specversion":"1.0","id":"7","source":"/s","type":"t","time":"1970-01-01T00:00:01Z",
                    "partitionkey":"k","data":{"a":1}}"#;
    let structured = &[("content-type", "application/cloudevents+json")];
    let (batch, ids) = decode(DATA, structured, event.as_bytes()).expect("taken");
    assert_eq!(
        (batch.times()[0], batch.keys().row(0), batch.values().row(0)),
        (1_000_000, &b"k"[..], &br#"{"a":1}"#[..])
    );
    let by_batch =
        decode(DATA, &[("content-type", "application/cloudevents-batch+json")], format!("[{event}]").as_bytes());
    assert_eq!(by_batch.expect("taken"), (batch.clone(), ids.clone()));
    let attributes = &[
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "%37"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-time", "1970-01-01T00:00:01Z"),
        ("ce-partitionkey", "k"),
    ];
    assert_eq!(decode(DATA, attributes, br#"{"a":1}"#).expect("taken"), (batch, ids));
    assert_eq!(
        values(WHOLE, structured, event),
        [String::from_utf8(one_line(event.as_bytes()).into_owned()).expect("text")]
    );
    let whole = values(WHOLE, attributes, r#"{"a":1}"#).remove(0);
    let whole: Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!(
        (&whole["id"], &whole["data"]["a"], &whole["datacontenttype"]),
        (&"7".into(), &1.into(), &"application/json".into())
    );
}

#[test]
fn data_that_is_no_json_is_taken_as_it_is() {
    let event = |data: &str| format!(r#"{{"specversion":"1.0","id":"7","source":"/s","type":"t",{data}}}"#);
    let structured = &[("content-type", "application/cloudevents+json")];
    assert_eq!(values(DATA, structured, &event(r#""datacontenttype":"text/plain","data":"a\"b""#)), ["a\"b"]);
    assert_eq!(values(DATA, structured, &event(r#""data":"a\"b""#)), [r#""a\"b""#]);
    assert_eq!(values(DATA, structured, &event(r#""data_base64":"aGk=""#)), ["hi"]);
    assert_eq!(values(DATA, structured, &event(r#""data":null"#)), ["null"]);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let ndjson = "application/x-ndjson";
    assert_eq!(reason(ndjson, "1\n\n{\"a\" 2}\n"), "line 3: expected `:` at column 6");
    assert_eq!(reason("application/json", "[1,\n2,]"), "expected value at line 2 column 3");
    let cloud = "application/cloudevents+json";
    assert_eq!(reason(cloud, "[]"), "expected a CloudEvent, an object");
    assert_eq!(reason(cloud, "{\"id\":\"\"}"), "attribute `id` is empty");
    assert_eq!(reason(cloud, "{\"id\":1}"), "attribute `id` is no string");
    let batch = r#"[{"specversion":"1.0","id":"7","source":"/s","type":"t"},{"id":"8","source":"/s"}]"#;
    assert_eq!(reason("application/cloudevents-batch+json", batch), "event 1: attribute `type` is missing");
    assert_eq!(
        reason(cloud, r#"{"specversion":"0.3","id":"7","source":"/s","type":"t"}"#),
        "`specversion` is \"0.3\", and 1.0 was expected"
    );
    assert!(
        reason(cloud, r#"{"specversion":"1.0","id":"7","source":"/s","type":"t","time":"soon"}"#)
            .starts_with("attribute `time` \"soon\": ")
    );
    assert!(
        reason("text/csv", "").starts_with("content type \"text/csv\" is none that is taken; send application/json")
    );
    assert!(reason("application/json; charset=latin1", "1").starts_with("charset \"latin1\""));
    assert_eq!(reason(ndjson, &"1\n".repeat(11)), "more than 10 events in one request");
    let bytes = decode(DATA, &[("content-type", ndjson)], b"1\n\"\xff\"").expect_err("no text");
    assert_eq!(bytes, Refused::Malformed("line 2: byte 3 is not UTF-8".to_owned()));
    assert!(matches!(decode(DATA, &[], b"1"), Err(Refused::ContentType(_))));
}

#[test]
fn an_idempotency_key_names_each_row() {
    let with = |key: &str| {
        let pairs = [("content-type", "application/x-ndjson"), ("idempotency-key", key)];
        decode(DATA, &pairs, b"1\n2").expect("taken").1.expect("ids")
    };
    assert_eq!(with("a"), with("a"));
    assert_ne!(with("a")[0], with("b")[0]);
    assert_ne!(with("a")[0], with("a")[1]);
    assert_ne!(with("A")[0], with("%41")[0], "it is taken as it stands");
}

/// Text that is nearly JSON, or CloudEvents.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
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
            " ",
            "\"id\":",
            "\"data\":",
            "\"source\":\"s\",",
            "\"specversion\":\"1.0\",",
            "\"type\":\"t\",",
            "\"id\":\"1\",",
            "\"data_base64\":\"aGk=\"",
            "null",
            "1e5",
            "\"\\u00e4\"",
            "\"time\":\"2026-01-01T00:00:00Z\","
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_comes_is_taken_or_refused_and_rows_are_one_line(
        body in nearly(),
        kind in prop::sample::select(vec![
            "application/json", "application/x-ndjson", "application/cloudevents+json",
            "application/cloudevents-batch+json",
        ]),
        envelope in any::<bool>(),
    ) {
        let how = Decode { envelope, events_max: 10 };
        if let Ok((batch, ids)) = decode(how, &[("content-type", kind)], &body) {
            prop_assert!(batch.len() <= 10);
            if kind.contains("cloudevents") && !batch.is_empty() {
                prop_assert_eq!(ids.map(|ids| ids.len()), Some(batch.len()));
            }
            if envelope || !kind.contains("cloudevents") {
                for value in batch.values().iter() {
                    prop_assert!(memchr::memchr2(b'\n', b'\r', value).is_none());
                    prop_assert!(serde_json::from_slice::<IgnoredAny>(value).is_ok());
                }
            }
        }
    }

    #[test]
    fn lines_are_those_of_a_full_parser(values in prop::collection::vec(0_u32..1000, 0..10), blank in any::<bool>()) {
        let end = if blank { "\n\n" } else { "\n" };
        let body: String = values.iter().map(|value| format!("{{\"v\":{value}}}{end}")).collect();
        let expected: Vec<String> = values.iter().map(|value| format!("{{\"v\":{value}}}")).collect();
        let (batch, _) = decode(DATA, &[("content-type", "application/x-ndjson")], body.as_bytes()).expect("taken");
        let got: Vec<String> = batch.values().iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
        prop_assert_eq!(got, expected);
    }
}
