//! The scanner against a full parser, and against any bytes at all.

use proptest::prelude::*;
use serde_json::{Map, Value};
use wasmill_scan::{Kind, Pointer, Raw, fields};

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-d]{0,3}",
        2 => "[a-z]{6,12}",
        1 => any::<String>(),
        1 => "[\"\\\\/~\u{8}\n\u{0}é𝄞]{0,4}",
        1 => "[0-3]",
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Short enough that the oracle, which rounds roughly, reads them exactly too.
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 64.0)),
        (-1000i64..1000).prop_map(Value::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        any_key().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any_key(), inner), 0..8)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Writes JSON in an unusual but valid way: white space anywhere, needless escapes.
fn write_odd(value: &Value, odd: &mut impl FnMut() -> u8, out: &mut String) {
    let space = |out: &mut String, odd: &mut dyn FnMut() -> u8| {
        for _ in 0..odd() % 3 {
            out.push([' ', '\n', '\t', '\r'][usize::from(odd() % 4)]);
        }
    };
    space(out, odd);
    match value {
        Value::String(text) => write_text(text, odd, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_odd(item, odd, out);
            }
            space(out, odd);
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                space(out, odd);
                write_text(key, odd, out);
                space(out, odd);
                out.push(':');
                write_odd(item, odd, out);
            }
            space(out, odd);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
    space(out, odd);
}

fn write_text(text: &str, odd: &mut impl FnMut() -> u8, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        let escape = odd() % 8 == 0;
        if escape || c < ' ' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else if c == '"' || c == '\\' {
            out.push('\\');
            out.push(c);
        } else {
            out.push(c);
        }
    }
    out.push('"');
}

fn odd_text(value: &Value, mut seed: u64) -> String {
    let mut out = String::new();
    let mut odd = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as u8
    };
    write_odd(value, &mut odd, &mut out);
    out
}

fn assert_same(raw: Raw<'_>, value: &Value) {
    let again: Value = serde_json::from_slice(raw.bytes()).expect("a slice of valid JSON is valid JSON");
    let kind = match value {
        Value::Null => Kind::Null,
        Value::Bool(_) => Kind::Bool,
        Value::Number(_) => Kind::Number,
        Value::String(_) => Kind::String,
        Value::Array(_) => Kind::Array,
        Value::Object(_) => Kind::Object,
    };
    assert_eq!(&again, value);
    assert_eq!(raw.kind(), kind);
    assert_eq!(raw.as_bool(), value.as_bool());
    assert_eq!(raw.as_u64(), value.as_u64());
    assert_eq!(raw.as_i64(), value.as_i64());
    assert_eq!(raw.as_f64(), serde_json::from_slice::<f64>(raw.bytes()).ok());
    assert_eq!(raw.as_str().as_deref(), value.as_str());
    assert_eq!(raw.is_null(), value.is_null());
    if let Some(plain) = raw.as_plain() {
        assert_eq!(Some(plain), value.as_str().map(str::as_bytes));
    }
    let items: Vec<_> = raw.items().collect::<Result<_, _>>().expect("items of valid JSON");
    assert_eq!(items.len(), value.as_array().map_or(0, Vec::len));
    for (raw, value) in items.into_iter().zip(value.as_array().into_iter().flatten()) {
        assert_same(raw, value);
    }
    let entries: Vec<_> = raw.entries().collect::<Result<_, _>>().expect("entries of valid JSON");
    assert_eq!(entries.len(), value.as_object().map_or(0, Map::len));
    for ((name, raw), (key, value)) in entries.into_iter().zip(value.as_object().into_iter().flatten()) {
        assert_eq!(name.as_str().as_deref(), Some(key.as_str()));
        assert_same(raw, value);
    }
}

fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), out)),
        Value::Object(map) => map.iter().for_each(|(key, v)| {
            pointers(v, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
        }),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn fields_are_those_of_a_parser(value in any_json(), seed: u64, name in any_key()) {
        for text in [value.to_string(), odd_text(&value, seed)] {
            let Value::Object(map) = &value else {
                prop_assert!(fields(text.as_bytes(), [&name]).is_err());
                continue;
            };
            let known: Vec<&str> = map.keys().map(String::as_str).collect();
            let names = [known.last().copied().unwrap_or(""), &name, known.first().copied().unwrap_or("")];
            let found = fields(text.as_bytes(), names).expect("valid JSON");
            for (name, raw) in names.iter().zip(found) {
                prop_assert_eq!(raw.is_some(), map.contains_key(*name));
                if let Some(raw) = raw {
                    assert_same(raw, &map[*name]);
                }
            }
        }
    }

    #[test]
    fn pointers_are_those_of_a_parser(value in any_json(), seed: u64, stray in any_key()) {
        let mut all = Vec::new();
        pointers(&value, "", &mut all);
        let strays: Vec<_> = all.iter().map(|p| format!("{p}/{}", stray.replace('~', "~0").replace('/', "~1"))).collect();
        for text in [value.to_string(), odd_text(&value, seed)] {
            for pointer in all.iter().chain(&strays) {
                let found = pointer.parse::<Pointer>().expect("a pointer").find(text.as_bytes()).expect("valid JSON");
                match value.pointer(pointer) {
                    Some(value) => assert_same(found.expect("found"), value),
                    None => prop_assert!(found.is_none()),
                }
            }
        }
    }

    #[test]
    fn floats_are_read_to_the_last_bit(float: f64) {
        prop_assume!(float.is_finite());
        for text in [format!("{float}"), format!("{float:e}"), format!("{float:?}")] {
            let raw = Raw::document(text.as_bytes()).expect("a number");
            prop_assert_eq!(raw.as_f64().map(f64::to_bits), Some(float.to_bits()));
        }
    }

    #[test]
    fn any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        touch(&bytes);
    }

    #[test]
    fn broken_json_does_not_panic(value in any_json(), seed: u64, cut: prop::sample::Index, byte: u8) {
        let mut bytes = odd_text(&value, seed).into_bytes();
        touch(&bytes[..cut.index(bytes.len() + 1)]);
        if !bytes.is_empty() {
            let at = cut.index(bytes.len());
            bytes[at] = byte;
            touch(&bytes);
            bytes.insert(at, b"{}[]\",:\\"[usize::from(byte % 8)]);
            touch(&bytes);
        }
    }
}

/// Uses everything; on valid JSON by chance, checks it.
fn touch(bytes: &[u8]) {
    let parsed: Option<Value> = serde_json::from_slice(bytes).ok();
    let found = fields(bytes, ["a", "bb", "abcdefghi"]);
    for pointer in ["", "/a", "/0", "/a/b/0"] {
        let pointer: Pointer = pointer.parse().expect("a pointer");
        if let Ok(Some(raw)) = pointer.find(bytes) {
            visit(raw, 0);
            assert!(raw.bytes().len() <= bytes.len());
        }
    }
    for raw in found.into_iter().flatten().flatten() {
        visit(raw, 0);
    }
    if let Ok(raw) = Raw::document(bytes) {
        visit(raw, 0);
        // A repeated key is the one thing in which the two differ.
        if let Some(value) = parsed.filter(|v| !v.is_object() && !v.is_array()) {
            assert_same(raw, &value);
        }
    }
}

fn visit(raw: Raw<'_>, depth: usize) {
    let _ = (raw.as_bool(), raw.as_u64(), raw.as_i64(), raw.as_f64(), raw.as_str(), raw.as_plain(), raw.field("a"));
    if depth < 8 {
        raw.items().flatten().for_each(|item| visit(item, depth + 1));
        raw.entries().flatten().for_each(|(key, item)| {
            visit(key, depth + 1);
            visit(item, depth + 1);
        });
    }
}
