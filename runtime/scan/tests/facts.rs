//! Single facts about the scanner.

use wasmill_scan::{DEPTH_MAX, Fault, Kind, Pointer, Raw, fields};

fn first(json: &str, name: &str) -> Option<String> {
    let [found] = fields(json.as_bytes(), [name]).expect("an object");
    found.map(|raw| String::from_utf8_lossy(raw.bytes()).into_owned())
}

#[test]
fn first_of_repeated_keys_counts() {
    assert_eq!(first(r#"{"a":1,"a":2}"#, "a").as_deref(), Some("1"));
    let pointer: Pointer = "/a/b".parse().unwrap();
    assert_eq!(pointer.find(br#"{"a":{},"a":{"b":1}}"#).unwrap(), None);
}

#[test]
fn one_name_may_be_asked_for_twice() {
    let found = fields(br#"{"a":1}"#, ["a", "a"]).unwrap();
    assert_eq!(found[0], found[1]);
    assert!(found[0].is_some());
}

#[test]
fn search_stops_before_a_later_fault() {
    assert_eq!(first(r#"{"a":1, not json"#, "a").as_deref(), Some("1"));
}

#[test]
fn keys_with_escapes_are_compared_decoded() {
    assert_eq!(first(r#"{"\u0061b":1}"#, "ab").as_deref(), Some("1"));
    assert_eq!(
        first(r#"{"a long key with \"quotes\"":[1,{"a":2}]}"#, "a long key with \"quotes\"").as_deref(),
        Some(r#"[1,{"a":2}]"#)
    );
    assert_eq!(first(r#"{"ab\\":1,"ab":2}"#, "ab").as_deref(), Some("2"));
}

#[test]
fn long_and_short_names_differ_by_every_byte() {
    let json = r#"{"abcdefgh":1,"abcdefghi":2,"abcdefghj":3,"":4,"abc\u0000":5,"abc":6}"#;
    for (name, value) in
        [("abcdefgh", "1"), ("abcdefghi", "2"), ("abcdefghj", "3"), ("", "4"), ("abc\0", "5"), ("abc", "6")]
    {
        assert_eq!(first(json, name).as_deref(), Some(value), "{name:?}");
    }
}

#[test]
fn faults_name_the_place() {
    let fault = |json: &str| {
        let error = fields(json.as_bytes(), ["zzz"]).unwrap_err();
        (error.offset(), error.fault())
    };
    assert_eq!(fault("[1]"), (0, Fault::Expected("an object")));
    assert_eq!(fault(""), (0, Fault::Ends));
    assert_eq!(fault("{"), (1, Fault::Ends));
    assert_eq!(fault(r#"{"a" 1}"#), (5, Fault::Expected("a colon")));
    assert_eq!(fault(r#"{"a":1 "b":2}"#), (7, Fault::Expected("a comma or }")));
    assert_eq!(fault(r#"{"a":nul}"#), (5, Fault::Expected("true, false or null")));
    assert_eq!(fault(r#"{"a":"x}"#), (8, Fault::Ends));
    assert_eq!(fault(r#"{"a":1,}"#), (7, Fault::Expected("a key in quotes")));
    let error = fields(b"{\"a\" 1}", ["b"]).unwrap_err();
    assert_eq!(error.to_string(), "not JSON at byte 5: expected a colon");
}

#[test]
fn depth_has_a_bound() {
    let nested = |depth: u32| format!("{{\"a\":{}1{}}}", "[".repeat(depth as usize), "]".repeat(depth as usize));
    assert!(first(&nested(DEPTH_MAX), "a").is_some());
    let error = fields(nested(DEPTH_MAX + 1).as_bytes(), ["a"]).unwrap_err();
    assert_eq!(error.fault(), Fault::TooDeep);
}

#[test]
fn numbers_are_read_exactly_or_not_at_all() {
    let read = |text: &str| {
        let raw = Raw::document(text.as_bytes()).unwrap();
        (raw.as_u64(), raw.as_i64(), raw.as_f64())
    };
    assert_eq!(read("18446744073709551615"), (Some(u64::MAX), None, Some(u64::MAX as f64)));
    assert_eq!(read("18446744073709551616"), (None, None, Some(18_446_744_073_709_551_616.0)));
    assert_eq!(read("-9223372036854775808"), (None, Some(i64::MIN), Some(i64::MIN as f64)));
    assert_eq!(read("-9223372036854775809"), (None, None, Some(-9_223_372_036_854_775_809.0)));
    assert_eq!(read("1.5e2"), (None, None, Some(150.0)));
    for bad in ["01", "-", "1.", "1e", "1e999", "1.e1", "--1", "1a", "0x1", "-01", "1e+"] {
        assert_eq!(read(bad), (None, None, None), "{bad}");
    }
    assert_eq!(read("-0").2.map(f64::to_bits), Some((-0.0f64).to_bits()));
}

#[test]
fn strings_that_json_forbids_are_not_read() {
    let text = |json: &[u8]| Raw::document(json).unwrap().as_str().map(std::borrow::Cow::into_owned);
    assert_eq!(text(br#""a\u00e9\ud834\udd1e\n\/""#).as_deref(), Some("aé𝄞\n/"));
    for bad in [
        &b"\"a\nb\""[..],
        br#""\ud834""#,
        br#""\udd1e""#,
        br#""\x""#,
        br#""\u12""#,
        b"\"\xff\"",
        b"\"a",
        b"\"",
        br#""a"b""#,
        br#""a\""#,
    ] {
        assert_eq!(text(bad), None, "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn document_takes_the_value_without_the_space_around_it() {
    let raw = Raw::document(b" \t{\"a\":1}\r\n ").unwrap();
    assert_eq!((raw.kind(), raw.bytes()), (Kind::Object, &b"{\"a\":1}"[..]));
    assert!(Raw::document(b"  ").is_err());
    assert!(Raw::document(b"tru").is_err());
}

#[test]
fn wrong_pointers_are_refused() {
    for bad in ["a", "a/b", "/~", "/~2", "/a~"] {
        assert!(bad.parse::<Pointer>().is_err(), "{bad}");
    }
    assert_eq!(
        "a".parse::<Pointer>().unwrap_err().to_string(),
        "\"a\" is not a JSON pointer: it starts with a slash, such as \"/user/id\""
    );
    let find = |pointer: &str, json: &str| {
        pointer.parse::<Pointer>().unwrap().find(json.as_bytes()).unwrap().map(|raw| raw.bytes().to_vec())
    };
    assert_eq!(find("/01", "[1,2]"), None);
    assert_eq!(find("/-", "[1,2]"), None);
    assert_eq!(find("/1", "[1,2]"), Some(b"2".to_vec()));
    assert_eq!(find("/1", r#"{"1":5}"#), Some(b"5".to_vec()));
    assert_eq!(find("/~01", r#"{"~1":5}"#), Some(b"5".to_vec()));
    assert_eq!(find("/a/b", r#"{"a":5}"#), None);
}
