//! Guests that take time.

use super::super::guest::Guest;
use super::{Case, LEFT, case, letters, repeat, undeployable};

const SPIN: &str = "(loop $again (br $again)) (unreachable)";
const SHORT: &str = "limits = { call = \"50ms\" }";

fn doing(export: &str, body: &str) -> Guest {
    Guest::doing("stateless", export, body)
}

pub(super) const CASES: &[Case] = &[
    case(1, "a loop without end in process", |lab| {
        letters(lab, &doing("process", SPIN), SHORT, "timeout", "within 50 ms")
    }),
    case(1, "a loop without end in describe", |lab| {
        undeployable(lab, &doing("describe", SPIN), "describe did not return within 1000 ms")
    }),
    case(2, "a loop without end in the start function", |lab| {
        let guest = Guest::named("unchanged").and("(func $spins (loop $again (br $again))) (start $spins)");
        undeployable(lab, &guest, "did not return within")
    }),
    case(3, "a loop without end in cabi_realloc", |lab| {
        let body = "(if (local.get 3) (then (loop $again (br $again)))) (i32.const 65536)";
        letters(lab, &doing("cabi_realloc", body), SHORT, "timeout", "within 50 ms")
    }),
    case(4, "every call takes most of its time", |lab| {
        let body = repeat(10_000_000, "");
        let attacker = lab.attacker()?;
        attacker.employ(&doing("process", &body).and(LEFT), "limits = { call = \"2s\" }")?;
        for row in 0..20 {
            attacker.produce(&format!("{{\"key\":\"k\",\"value\":{row}}}\n"))?;
        }
        super::goes_on(&attacker, 23)?;
        Ok("its rows come late".to_owned())
    }),
    case(5, "memory is filled without end", |lab| {
        let fill = "(drop (memory.grow (i32.const 900)))
            (loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 58000000)) (br $again)) (unreachable)";
        letters(lab, &doing("process", fill), SHORT, "timeout", "within 50 ms")
    }),
    case(9, "recursion without end", |lab| {
        let guest = doing("process", "(call $deep)").and("(func $deep (result i32) (call $deep))");
        letters(lab, &guest, "", "trap", "call stack exhausted")
    }),
    case(18, "host calls without end", |lab| {
        let ask = "(loop $again (drop (call $now (i32.const 0))) (br $again)) (unreachable)";
        letters(
            lab,
            &Guest::doing("stateful", "process", ask),
            "limits = { call = \"20s\" }",
            "limit",
            "host calls in one call",
        )
    }),
    case(56, "parentheses without end in the configuration of a standard plugin", |lab| {
        let attacker = lab.attacker()?;
        let filter = |condition: &str| super::through("std:filter", &format!("config = {{ where = \"{condition}\" }}"));
        for condition in ["(".repeat(100_000), "!".repeat(100_000), "-".repeat(100_000), "1+".repeat(100_000)] {
            attacker.deploy("evil", &filter(&condition))?.is(422)?;
        }
        Ok("422 wrong-job".to_owned())
    }),
];
