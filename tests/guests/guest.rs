//! Guests written in WebAssembly text: what each has, an export that does something else, a world. Included by
//! the tests and programs that need them.

use std::path::{Path, PathBuf};

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the guests are.
pub(crate) fn guests_dir() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut found = above.map(|folder| folder.join("tests/guests")).filter(|folder| folder.is_dir());
    found.next().expect("the guests are in the repository")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(guests_dir().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Host functions under the names that guests call them by; a guest imports those it names.
const IMPORTS: &[(&str, &str, &str)] = &[
    ("$log", r#""wasmill:operator/log@0.1.0" "write""#, "(param i32 i32 i32)"),
    ("$add", r#""wasmill:operator/metrics@0.1.0" "add""#, "(param i32 i32 i64)"),
    ("$get_many", r#""wasmill:operator/state@0.1.0" "get-many""#, "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)"),
    (
        "$put_many",
        r#""wasmill:operator/state@0.1.0" "put-many""#,
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)",
    ),
    ("$scan", r#""wasmill:operator/state@0.1.0" "scan""#, "(param i32 i32 i32 i32 i32 i32 i32)"),
    ("$now", r#""wasmill:operator/timers@0.1.0" "now""#, "(param i32) (result i64)"),
    (
        "$set_timers",
        r#""wasmill:operator/timers@0.1.0" "set-many""#,
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)",
    ),
];

/// A guest: the text of its functions, in a world.
pub(crate) struct Guest {
    name: String,
    world: String,
    functions: String,
}

impl Guest {
    /// The guest in `tests/guests/wat/<name>.wat`.
    pub(crate) fn named(name: &str) -> Self {
        let functions = read(&format!("wat/{name}.wat"));
        let world = functions.lines().find_map(|line| line.strip_prefix(";; world: ")).unwrap_or("stateless");
        Self { name: name.into(), world: world.into(), functions }
    }

    /// A guest whose `export` does `body`; parameters are named by place.
    pub(crate) fn doing(world: &str, export: &str, body: &str) -> Self {
        let default = default_of(export);
        let signature = default.rsplit_once("\n  (").expect("signature and body").0;
        let signature = signature.replacen("(func (", "(func $does (", 1);
        Self { name: format!("{export} of {world}"), world: world.into(), functions: format!("{signature}\n  {body})") }
    }

    /// The same with more functions, data or a start.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.functions.push_str(more);
        self
    }

    /// Its text: what every guest has, and a default for each export of its world that it does not
    /// have itself.
    fn text(&self) -> String {
        let wanted = |export: &str| match self.world.as_str() {
            "stateful" => !export.contains("/aggregate@"),
            _ if ["/timed@", "/migration@"].iter().any(|of_state| export.contains(of_state)) => false,
            "stateless" => !export.contains("/aggregate@"),
            "windowed" => !export.contains("/operator@"),
            "both" => true,
            "half" => !export.contains("/operator@") && !export.contains("/aggregate@"),
            other => panic!("{}: no world {other}", self.name),
        };
        let defaults = read("defaults.wat");
        let defaults: String = defaults
            .split("(func (export \"")
            .skip(1)
            .filter(|function| {
                let export = function.split('"').next().unwrap_or_default();
                wanted(export) && !self.functions.contains(&format!("(export \"{export}\")"))
            })
            .map(|function| format!("(func (export \"{function}"))
            .collect();
        let imports: String = IMPORTS
            .iter()
            .filter(|(name, ..)| self.functions.contains(&format!("(call {name} ")))
            .map(|(name, from, kind)| format!("(import {from} (func {name} {kind}))\n"))
            .collect();
        format!("(module {imports}\n{}\n{defaults}\n{})", read("prelude.wat"), self.functions)
    }

    /// A core module that names its world.
    pub(crate) fn module(&self) -> Vec<u8> {
        self.module_with(|text| text, |wit| wit)
    }

    /// The same, with its text and the interface changed first.
    pub(crate) fn module_with(
        &self,
        text: impl FnOnce(String) -> String,
        wit: impl FnOnce(String) -> String,
    ) -> Vec<u8> {
        let text = text(self.text());
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let mut resolve = Resolve::default();
        let odd = "world both { include stateless; export aggregate; }\nworld half { export plugin; }\n";
        let wit = wit(read("../../wit/operator.wit") + odd);
        let package = resolve.push_str("operator.wit", &wit).expect("the WIT package parses");
        let world = resolve.select_world(&[package], Some(&self.world)).expect("the world exists");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("the world embeds");
        module
    }

    /// A component.
    pub(crate) fn component(&self) -> Vec<u8> {
        encode(&self.module())
    }
}

fn default_of(export: &str) -> String {
    let defaults = read("defaults.wat");
    let mut functions = defaults.split("(func (export \"").skip(1);
    let found = functions.find(|function| {
        let name = function.split('"').next().unwrap_or_default();
        name == export || name.ends_with(&format!("#{export}"))
    });
    format!("(func (export \"{}", found.unwrap_or_else(|| panic!("no default for {export}")).trim_end())
}

/// A component out of a core module that names its world.
pub(crate) fn encode(module: &[u8]) -> Vec<u8> {
    let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(module).expect("a core module");
    encoder.encode().expect("the module fits its world")
}
