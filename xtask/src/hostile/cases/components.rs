//! Bytes that are sent as plugins.

use anyhow::ensure;
use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentTypeSection,
    CustomSection, Function, FunctionSection, Instruction, Module, PrimitiveValType, TypeSection, ValType,
};

use super::super::guest::Guest;
use super::super::http::head;
use super::super::lab::Lab;
use super::{Case, case, long, refused};
use crate::crash::Random;

/// A core module of functions without parameters.
fn module(functions: impl IntoIterator<Item = Function>) -> Vec<u8> {
    let (mut kinds, mut declared, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    kinds.ty().function([], []);
    for function in functions {
        declared.function(0);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&kinds).section(&declared).section(&code);
    module.finish()
}

/// A plugin with one more function, which nobody calls.
fn with_function(text: &str) -> Vec<u8> {
    Guest::named("unchanged").and(text).module()
}

/// What a plugin is answered that takes the compiler long: taken in after a moment, or refused.
fn compiled_or_refused(lab: &mut Lab, plugin: &[u8]) -> anyhow::Result<String> {
    let attacker = lab.attacker()?;
    let answer = attacker.send("POST", "/v1/plugins", plugin)?;
    ensure!([200, 201, 422].contains(&answer.status), "answered {}: {}", answer.status, answer.text);
    Ok(match answer.status {
        422 => format!("422: {}", super::text(&answer.body["detail"])),
        _ => "compiled beside, within its limits".to_owned(),
    })
}

/// One block after the other, each with a branch and a use of every local.
pub(super) fn heavy(blocks: usize) -> Vec<u8> {
    let locals = "(local i64) ".repeat(400);
    let step: String =
        (0..40).map(|at| format!("(local.set {at} (i64.add (local.get {at}) (local.get {})))", at + 1)).collect();
    let body: String = (0..blocks)
        .map(|block| {
            let at = block % 300;
            format!("(if (i64.eqz (local.get {at})) (then {step}) (else (local.set {at} (i64.const {block}))))")
        })
        .collect();
    with_function(&format!("(func (export \"heavy\") {locals} {body})"))
}

pub(super) const CASES: &[Case] = &[
    case(27, "a plugin of 200 MB, of which 11 MiB come", |lab| {
        let attacker = lab.attacker()?;
        let mut connection = attacker.connect()?;
        connection.write(head("POST", "/v1/plugins", &attacker.token, 200 << 20, "").as_bytes());
        connection.write(&vec![0; 11 << 20]);
        connection.answer()?.says(413, "at most 10485760 bytes")
    }),
    case(27, "a section that says it has 1 GiB", |lab| {
        let mut bytes = b"\0asm\x0d\0\x01\0\0".to_vec();
        bytes.extend([0x80, 0x80, 0x80, 0x80, 0x04]);
        refused(lab, &bytes, "the plugin")
    }),
    case(28, "500 functions of 50,000 locals, in a few KiB", |lab| {
        refused(lab, &module((0..500).map(|_| Function::new([(50_000, ValType::I32)]).ended())), "local variables")
    }),
    case(28, "100,000 blocks in one another", |lab| {
        let mut function = Function::new([]);
        for _ in 0..100_000 {
            function.instruction(&Instruction::Block(BlockType::Empty));
        }
        for _ in 0..100_001 {
            function.instruction(&Instruction::End);
        }
        refused(lab, &module([function]), "")
    }),
    case(28, "tables of branches with 60,000 arms, in blocks", |lab| {
        let arms = "0 ".repeat(60_000);
        let table = format!("(block (br_table {arms} (i32.const 1)))").repeat(20);
        compiled_or_refused(lab, &with_function(&format!("(func (export \"arms\") {table})")))
    }),
    case(28, "types of a component that double with each line", |lab| {
        let mut types = ComponentTypeSection::new();
        types.defined_type().primitive(PrimitiveValType::U64);
        for before in 0..60 {
            let twice = [wasm_encoder::ComponentValType::Type(before); 2];
            types.defined_type().tuple(twice);
        }
        let mut component = Component::new();
        component.section(&types);
        refused(lab, &component.finish(), "")
    }),
    long(28, "a function that takes the compiler more than its time", |lab| compiled_or_refused(lab, &heavy(6_000))),
    case(29, "bytes that are no plugin", |lab| {
        let attacker = lab.attacker()?;
        let good = Guest::named("unchanged").component();
        let mut random = Random::new(29);
        let noise: Vec<u8> = (0..5_000).map(|_| random.below(256) as u8).collect();
        for (bytes, words) in [
            (&b""[..], "an empty file"),
            (b"(module)", "WebAssembly text"),
            (b"\x7fELF\x02\x01\x01", "never run as uploaded"),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"\0asm\x01\0\0\0", "the plugin"),
            (&good[..good.len() / 2], "the plugin"),
            (&good[..good.len() - 1], "the plugin"),
            (&noise, "not a WebAssembly plugin"),
            (&[b"\0asm\x0d\0\x01\0", &noise[..]].concat(), "the plugin"),
        ] {
            attacker.send("POST", "/v1/plugins", bytes)?.says(422, words)?;
        }
        Ok("422 wrong-content, with what it is instead".to_owned())
    }),
    case(29, "a plugin with one byte changed, at 100 places", |lab| {
        let attacker = lab.attacker()?;
        let good = Guest::named("unchanged").component();
        for place in (8..good.len()).step_by(good.len() / 100) {
            let mut bad = good.clone();
            bad[place] ^= 0x55;
            let answer = attacker.send("POST", "/v1/plugins", &bad)?;
            ensure!([200, 201, 422].contains(&answer.status), "byte {place}: {} {}", answer.status, answer.text);
        }
        Ok("422, or a plugin that is another one".to_owned())
    }),
    case(30, "a module that imports files", |lab| {
        let wasi =
            r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#;
        refused(lab, &wat::parse_str(wasi)?, "wasi_snapshot_preview1::fd_write")
    }),
    case(30, "a component that imports the environment", |lab| {
        let wasi = "(component (import \"wasi:cli/environment@0.2.0\" (instance)))";
        refused(lab, &wat::parse_str(wasi)?, "wasi:cli/environment")
    }),
    case(31, "a component that imports sockets", |lab| {
        let wasi = "(component (import \"wasi:sockets/tcp@0.2.0\" (instance)))";
        refused(lab, &wat::parse_str(wasi)?, "wasi:sockets/tcp")
    }),
    case(32, "100,000 exports", |lab| {
        let mut types = ComponentTypeSection::new();
        types.defined_type().primitive(PrimitiveValType::U64);
        let mut exports = ComponentExportSection::new();
        for place in 0..100_000 {
            exports.export(format!("export-{place}"), ComponentExportKind::Type, 0, None);
        }
        let mut component = Component::new();
        component.section(&types).section(&exports);
        refused(lab, &component.finish(), "does not export")
    }),
    case(59, "the world of a core module is noise", |lab| {
        let attacker = lab.attacker()?;
        let mut random = Random::new(59);
        for length in [0, 1, 10, 1_000, 100_000] {
            let noise: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            let mut module = module([]);
            let section = CustomSection { name: "component-type:x".into(), data: noise.into() };
            let mut custom = Module::new();
            custom.section(&section);
            module.extend(&custom.finish()[8..]);
            attacker.send("POST", "/v1/plugins", &module)?.is(422)?;
        }
        Ok("422 wrong-content".to_owned())
    }),
];

/// A body that ends.
trait Ended {
    fn ended(self) -> Self;
}

impl Ended for Function {
    fn ended(mut self) -> Self {
        self.instruction(&Instruction::End);
        self
    }
}
