//! Guests that take room.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::json;

use super::super::guest::{Guest, guests_dir};
use super::super::lab::{Lab, until};
use super::{Case, case, letters, refused};

const MEMORY: &str = "(memory (export \"memory\") 2)";

fn declaring(memory: &str) -> Vec<u8> {
    Guest::named("unchanged").module_with(|text| text.replace(MEMORY, memory), |wit| wit)
}

/// The component of `tests/guests/component.wat` with a resource of its own, which `process` uses like this.
fn with_resource(body: &str) -> anyhow::Result<Vec<u8>> {
    let path = guests_dir().join("component.wat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let imports = "(core module $Operator
        (import \"r\" \"new\" (func $new (param i32) (result i32))) (import \"r\" \"drop\" (func $drop (param i32)))";
    let made = "(type $r (resource (rep i32)))
        (core func $rnew (canon resource.new $r)) (core func $rdrop (canon resource.drop $r))
        (core instance $operator (instantiate $Operator
          (with \"r\" (instance (export \"new\" (func $rnew)) (export \"drop\" (func $rdrop))))))";
    let start = "(local $bits i32) (local $words i32) (local $row i32)";
    let changed = text
        .replace("(core module $Operator", imports)
        .replace("(core instance $operator (instantiate $Operator))", made)
        .replace("(local.set $words (i32.shr_u", &format!("{body} (local.set $words (i32.shr_u"));
    ensure!(changed.contains("$rnew") && text.contains(start), "{} is another one by now", path.display());
    wat::parse_str(&changed).context("the component is no text")
}

fn resources(lab: &mut Lab, body: &str) -> anyhow::Result<String> {
    let attacker = lab.attacker()?;
    let digest = attacker.push(&with_resource(body)?)?;
    attacker.deploy("evil", &super::through(&digest, ""))?.is(201)?;
    attacker.produce("{\"value\":1}\n{\"value\":2}\n{\"value\":3}\n")?;
    let letters = attacker.letters(3)?;
    let kind = super::text(&letters[0]["kind"]);
    ensure!(["trap", "limit", "error"].contains(&kind.as_str()), "a letter of kind {kind}");
    Ok(format!("dead letters, {kind}: {}", super::text(&letters[0]["reason"])))
}

pub(super) const CASES: &[Case] = &[
    case(6, "memory is grown until it is refused", |lab| {
        let grow = "(loop $again (br_if $again (i32.ne (i32.const -1) (memory.grow (i32.const 16))))) (unreachable)";
        let guest = Guest::doing("stateless", "process", grow);
        letters(lab, &guest, "limits = { memory = \"16MiB\" }", "limit", "16777216 bytes of memory")
    }),
    case(7, "a memory of 4 GiB from the start", |lab| {
        refused(lab, &declaring("(memory (export \"memory\") 65536)"), "bytes of memory")
    }),
    case(7, "a memory of 64 bits", |lab| refused(lab, &wat::parse_str("(module (memory i64 1))")?, "64-bit memories")),
    case(7, "a shared memory", |lab| {
        refused(lab, &declaring("(memory (export \"memory\") 2 4 shared)"), "shared memories")
    }),
    case(8, "a table of 4,000,000,000 elements", |lab| {
        let memory = format!("{MEMORY} (table 4000000000 funcref)");
        refused(lab, &declaring(&memory), "table elements")
    }),
    case(8, "a table is grown until it is refused", |lab| {
        let grow = "(loop $again (br_if $again (i32.ne (i32.const -1)
            (table.grow $t (ref.null func) (i32.const 1000))))) (unreachable)";
        let guest = Guest::doing("stateless", "process", grow).and("(table $t 1 funcref)");
        letters(lab, &guest, "", "limit", "table elements")
    }),
    case(24, "handles of resources without end", |lab| {
        resources(lab, "(loop $more (drop (call $new (i32.const 7))) (br $more))")
    }),
    case(24, "a handle that is dropped twice, and one that is nobody's", |lab| {
        resources(
            lab,
            "(local.set $words (call $new (i32.const 7))) (call $drop (local.get $words))
            (call $drop (local.get $words))",
        )?;
        resources(lab, "(call $drop (i32.const 12345))")
    }),
    case(34, "memory of others is looked for in that of a fresh instance", |lab| {
        let attacker = lab.attacker()?;
        // Traps where a byte of its memory is not 0, then writes to all of it.
        attacker.employ(&Guest::named("canary"), "parallelism = 8")?;
        for _ in 0..if lab.thorough { 50 } else { 5 } {
            super::goes_on(&attacker, 1)?;
            attacker.post("/v1/jobs/evil/stop", &json!({}))?.is(200)?;
            attacker.post("/v1/jobs/evil/resume", &json!({}))?.is(200)?;
            until("the job runs again", || {
                let (phase, reason) = attacker.evil()?;
                ensure!(phase != "failed", "memory was not new: {reason}");
                Ok((phase == "running").then_some(()))
            })?;
        }
        Ok("nothing there".to_owned())
    }),
];
