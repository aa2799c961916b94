use wasmill_sdk::testing::Tester;

use super::*;

/// The results of an expression for an event, as text, or why there are none.
fn run(expression: &str, json: &str) -> String {
    thread_local! {
        static EXPRESSION: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
    }
    struct Probe(Expression);
    impl wasmill_sdk::Operator for Probe {
        type Config = ();
        fn open(_: (), _: &mut wasmill_sdk::Setup) -> Result<Self, wasmill_sdk::ConfigError> {
            let expression = EXPRESSION.with_borrow(|text| Expression::new(text));
            Ok(Self(expression.map_err(|error| wasmill_sdk::ConfigError::new(error.to_string()))?))
        }
        fn event(&mut self, event: Event<'_>, ctx: &mut wasmill_sdk::Context<'_>) -> Result<(), Reject> {
            self.0.run(&event, &mut |value| {
                ctx.emit_with(|out| write(&value, out));
                Ok(())
            })
        }
    }
    EXPRESSION.set(expression.to_owned());
    let mut test = match Tester::<Probe>::open("") {
        Ok(test) => test,
        Err(error) => return error.to_string(),
    };
    test.send_at(0, [(1_700_000_000_123_456, "the key", json)]);
    match test.rejected().first() {
        Some(rejected) => rejected.reason.clone(),
        None => test.values().join(" "),
    }
}

#[test]
fn expressions_compute_on_json() {
    let event = r#"{"type":"bid","price":2000,"big":1700000000000,"exact":1.10,"items":[{"id":1},{"id":2}],"nested":{"a":"b"}}"#;
    for (expression, expected) in [
        (".price * 908 / 1000 | floor", "1816"),
        ("{price, kind: .type}", r#"{"price":2000,"kind":"bid"}"#),
        (".items[] | .id", "1 2"),
        (".items | map(.id) | add", "3"),
        (".big + 1", "1700000000001"),
        (".exact", "1.10"),
        (".missing", "null"),
        (".nested.a", "\"b\""),
        (r#".type == "bid" and .price > 100"#, "true"),
        (r#"if .price > 100 then "dear" else "cheap" end"#, "\"dear\""),
        ("[$key, $time]", r#"["the key",1700000000123]"#),
        ("del(.items, .nested, .exact)", r#"{"type":"bid","price":2000,"big":1700000000000}"#),
        ("select(.price > 5000)", ""),
        (".nested | keys", r#"["a"]"#),
        (r#".type | ascii_upcase + "!""#, "\"BID!\""),
    ] {
        assert_eq!(run(expression, event), expected, "{expression}");
    }
}

#[test]
fn failures_are_reasons() {
    assert!(
        run(".a.b", r#"{"a":1}"#).starts_with("the expression fails: cannot index 1"),
        "{}",
        run(".a.b", r#"{"a":1}"#)
    );
    assert!(run(".", "nope").contains("not JSON"));
    assert!(run(".a", "{").contains("not JSON"));
    assert!(run(".", &"[".repeat(100_000)).contains("nested deeper"));
    assert!(run(".a", &format!("{{\"a\":{}1", "[".repeat(100_000))).contains("nested deeper"));
    assert_eq!(run("range(200000)", "{}"), "the expression yields more than 100000 results");
}

#[test]
fn what_is_no_expression_is_told_apart() {
    assert_eq!(run(".a +", "{}"), "config: at the end: expected term");
    assert_eq!(run(".a | foo", "{}"), "config: there is no filter `foo`");
    assert_eq!(run(".a | $foo", "{}"), "config: there is no variable `$foo`");
    assert!(run("(.a", "{}").contains("closing parenthesis"));
    assert!(run(".a b", "{}").starts_with("config: at character 4"), "{}", run(".a b", "{}"));
    for gone in ["now", "env", "input", "halt", "debug", "halt_error", "test(\"x\")"] {
        assert!(run(gone, "{}").starts_with("config: there is no filter"), "{gone}: {}", run(gone, "{}"));
    }
}

#[test]
fn expressions_see_only_their_fields() {
    let fields = |text: &str| {
        let needs = Expression::new(text).expect("an expression").needs;
        needs.fields.map(|fields| fields.join(" "))
    };
    for (text, expected) in [
        (r#".type == "bid" and .price > 100"#, Some("type price")),
        ("{auction, price: (.price * 908 / 1000 | floor), \"x\": .a.b}", Some("auction price a")),
        ("if .a then .b else 1.5 end", Some("a b")),
        ("$key == .id", Some("id")),
        (".a | not, length", Some("a")),
        (".[\"a\"]", Some("a")),
        ("{(.a): 1}", Some("a")),
        ("{\"a\"}", Some("a")),
        ("{$key}", Some("")),
        (".a as $x | $x + .b", Some("a b")),
        (".a // .b", Some("a b")),
        (".a | map(.)", Some("a")),
        (".a[0], .b[.c:]?", Some("a b c")),
        ("-.a", Some("a")),
        // All of these may look at everything.
        (".", None),
        ("..", None),
        (".[]", None),
        ("length", None),
        (".a, length", None),
        ("select(.a)", None),
        (".a = 1", None),
        (".a |= 1", None),
        (".a += 1", None),
        ("del(.a)", None),
        ("keys", None),
        ("if .a then .b end", None),
        ("\"\\(.)\"", None),
        ("reduce .a as $x (.; 1)", None),
        ("1 as [$a] | .", None),
        ("{a: length}", None),
        (".a[length]", None),
    ] {
        assert_eq!(fields(text).as_deref(), expected, "{text}");
    }
}

/// Results as text, or the reason why there are none.
fn results(expression: &Expression, json: &str) -> String {
    let mut out = Vec::new();
    let result = expression.run_on(json.as_bytes(), b"the key", 1_700_000_000_123_456, &mut |value| {
        write(&value, &mut out);
        assert_eq!(out, value.to_string().as_bytes());
        Ok(())
    });
    match result {
        Ok(()) => String::from_utf8(out).expect("JSON"),
        Err(reject) => format!("{reject:?}"),
    }
}

/// Every operator on every pair of operands, on events of every type: once straight away, once by
/// `jaq` from the fields that are needed, once by `jaq` from the whole event.
#[test]
fn expressions_with_one_value_are_what_jaq_says() {
    let operands = [
        ".a",
        ".b",
        ".c.d",
        ".[\"x\\u0079\"].z",
        "1",
        "-2.5",
        "1e3",
        "7",
        "\"s\\n\"",
        "true",
        "null",
        "$key",
        "$time",
        "{a, k: .b}",
    ];
    let mut expressions = Vec::new();
    for left in operands {
        expressions.extend([
            format!("-{left}"),
            format!("{left} | not"),
            format!("{left} | floor | not"),
            format!("{{\"m\": {left}, $key}}"),
        ]);
        for right in operands {
            for op in ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or", "//"] {
                // A text times a large number is that many texts.
                let large = |operand: &str| operand == "$time" || operand.contains(".z");
                if op != "*" || !(large(left) || large(right)) {
                    expressions.push(format!("{left} {op} {right}"));
                }
            }
            expressions.push(format!("if {left} then {right} elif {right} then 1 else {left} end"));
            expressions.push(format!("{{k: {left}, k: {right}, b}}"));
        }
    }
    let events = [
        r#"{"a":1,"b":2,"c":{"d":3}}"#,
        r#"{"b":"text \u00e9\"","a":"é","c":{"d":[1,{"e":null}]}}"#,
        r#"{"a":0,"b":-0,"c":{},"xy":{"z":12345678901234567890}}"#,
        r#"{"a":1.10,"b":false,"c":5,"xy":"s"}"#,
        r#"{"a":[1,2],"b":[2],"c":null,"xy":{"z":"\u007f\u0000"}}"#,
        r#"{"a":{"k":1},"b":{"k":{"l":2}},"c":{"d":"s\n"}}"#,
        "{}",
        "[1]",
        "7",
    ];
    for function in crate::plain::FUNCTIONS {
        expressions.push(format!("{{x: (.a | {function}), y: (.b | tostring | {function})}}"));
    }
    let mut straight = 0;
    for text in &expressions {
        let mut expression = Expression::new(text).expect("an expression");
        straight += usize::from(expression.plain.is_some());
        let all = |expression: &Expression| events.map(|event| results(expression, event));
        let plain = all(&expression);
        expression.plain = None;
        assert_eq!(plain, all(&expression), "{text}");
        expression.needs.fields = None;
        assert_eq!(plain, all(&expression), "{text}");
    }
    assert!(straight * 10 > expressions.len() * 8, "only {straight} of {} are plain", expressions.len());
}

#[test]
fn a_field_that_is_not_needed_is_not_parsed() {
    assert_eq!(run(".a == 1", r#"{"a":1,"b":what?"#), "true");
    assert_eq!(run(".a + .b", r#"{"b":2,"a":1,"a":7}"#), "3");
    assert_eq!(run(".a", r#"[1]"#).split(':').next(), Some("the expression fails"));
}
