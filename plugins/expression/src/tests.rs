use wasmill_sdk::testing::Tester;

use super::*;
use crate::needs::Needs;

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
fn plain_expressions_see_only_their_fields() {
    let fields = |text: &str| Needs::of(text).fields.map(|fields| fields.join(" "));
    for (text, expected) in [
        (r#".type == "bid" and .price > 100"#, Some("type price")),
        ("{auction, price: (.price * 908 / 1000 | floor), \"x\": .a.b}", Some("auction price a b")),
        ("if .a then .b else 1.5 end", Some("a b")),
        ("$key == .id", Some("id")),
        (".a | not", Some("a")),
        // All of these may look at everything.
        (".", None),
        ("..", None),
        ("length", None),
        (".a, length", None),
        ("select(.a)", None),
        (".a = 1", None),
        (".a |= 1", None),
        (".a += 1", None),
        ("del(.a)", None),
        (".[\"a\"]", None),
        ("keys", None),
        ("{(.a): 1}", Some("a")),
        ("{\"a\"}", None),
        ("{$key}", None),
        (".a as $x | $x", None),
        (".a // .b", None),
        ("\"\\(.)\"", None),
        ("reduce .a as $x (.; 1)", None),
        (".a | map(.)", None),
        (".a[0]", None),
        (".a?", None),
        ("1 as [$a] | .", None),
        ("{a: length}", None),
        ("-.a", Some("a")),
    ] {
        assert_eq!(fields(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn a_field_that_is_not_needed_is_not_parsed() {
    assert_eq!(run(".a == 1", r#"{"a":1,"b":what?"#), "true");
    assert_eq!(run(".a + .b", r#"{"b":2,"a":1,"a":7}"#), "3");
    assert_eq!(run(".a", r#"[1]"#).split(':').next(), Some("the expression fails"));
}
