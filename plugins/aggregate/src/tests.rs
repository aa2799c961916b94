use wasmill_sdk::testing::WindowTester;

use super::Standard;

const ALL: &str = r#"{
    "count": true,
    "sum": {"miles": "/distance"},
    "mean": {"delay": "/delay"},
    "min": {"first": "/at"},
    "max": {"last": "/at"},
    "distinct": {"planes": "/tail"},
    "top": {"routes": {"field": "/route", "limit": 2}},
    "quantile": {"delays": {"field": "/delay", "at": [0.5, 0.99]}}
}"#;

const EVENTS: [(i64, &str, &str); 4] = [
    (1_000_000, "AA", r#"{"distance":100,"delay":5,"at":"b","tail":"N1","route":"JFK-LAX"}"#),
    (2_000_000, "AA", r#"{"distance":50,"delay":-1.5,"at":"a","tail":"N2","route":"JFK-SFO"}"#),
    (3_000_000, "AA", r#"{"distance":1,"delay":null,"at":"c","tail":"N1","route":"JFK-SFO"}"#),
    (4_000_000, "AA", r#"{"distance":9223372036854775807,"route":7}"#),
];

#[test]
fn a_window_is_one_object() {
    let mut test = WindowTester::<Standard>::tumbling(ALL, 60_000_000);
    test.send_all(EVENTS);
    test.send(70_000_000, "UA", "{}");
    test.watermark(200_000_000);
    assert_eq!(
        test.values(),
        [
            "{\"key\":\"AA\",\"start\":0,\"end\":60000,\"count\":4,\"miles\":9223372036854775958,\"delay\":1.75,\
             \"first\":\"a\",\"last\":\"c\",\"planes\":2,\
             \"routes\":[{\"value\":\"JFK-SFO\",\"count\":2},{\"value\":\"JFK-LAX\",\"count\":1}],\
             \"delays\":{\"0.5\":-1.5,\"0.99\":5.0}}",
            "{\"key\":\"UA\",\"start\":60000,\"end\":120000,\"count\":1,\"miles\":0,\"delay\":null,\
             \"first\":null,\"last\":null,\"planes\":0,\"routes\":[],\"delays\":{\"0.5\":null,\"0.99\":null}}",
        ]
    );
}

#[test]
fn no_configuration_counts() {
    let mut test = WindowTester::<Standard>::tumbling("", 10);
    test.send_all([(1, "k", "not looked at"), (2, "k", "")]);
    test.watermark(10);
    assert_eq!(test.values(), [r#"{"key":"k","start":0,"end":0,"count":2}"#]);
}

#[test]
fn halves_merge_into_the_whole() {
    let test = WindowTester::<Standard>::tumbling(ALL, 60_000_000);
    let whole = test.merged(&EVENTS, &[]);
    for at in 0..=EVENTS.len() {
        let (first, second) = EVENTS.split_at(at);
        assert_eq!(test.merged(first, second), whole, "{at}");
    }
}

#[test]
fn events_of_another_kind_are_rejected_and_leave_nothing() {
    let mut test = WindowTester::<Standard>::tumbling(ALL, 60_000_000);
    test.send_all([(1, "k", r#"{"distance":5,"delay":"late"}"#), (2, "k", r#"{"distance":1}"#), (3, "k", "nope")]);
    test.watermark(60_000_000);
    assert!(test.values()[0].contains("\"count\":1,\"miles\":1,"), "{:?}", test.values());
    let reasons: Vec<_> = test.rejected().iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(reasons[0], "`/delay` is \"late\", expected a number for `delay`");
    assert!(reasons[1].starts_with("not JSON"), "{reasons:?}");
}

#[test]
fn wrong_configurations_name_the_place() {
    let error = |config: &str| {
        WindowTester::<Standard>::open(config, 1, 1).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(error(r#"{"sum": {"a": "price"}}"#).starts_with("config: `sum.a`: \"price\" is not a JSON pointer"));
    assert_eq!(error(r#"{"sum": {"a": 7}}"#), "config: `sum.a`: expected a JSON pointer such as \"/price\", found 7");
    assert_eq!(error(r#"{"count": false}"#), "config: nothing to compute; try count = true");
    assert_eq!(error(r#"{"sum": {"a": "/x"}, "mean": {"a": "/x"}}"#), "config: two results are called `a`");
    assert_eq!(error(r#"{"sum": {"key": "/x"}}"#), "config: two results are called `key`");
    assert_eq!(
        error(r#"{"quantile": {"q": {"field": "/x", "at": [50]}}}"#),
        "config: `quantile.q.at`: expected numbers from 0 to 1, such as [0.5, 0.99]"
    );
    assert_eq!(
        error(r#"{"top": {"t": {"field": "/x", "limit": 0}}}"#),
        "config: `top.t.limit`: expected 1 to 1000, found 0"
    );
    assert!(error(r#"{"summ": {}}"#).starts_with("config: `summ`: unknown field"), "{}", error(r#"{"summ": {}}"#));
}
