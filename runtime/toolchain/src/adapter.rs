//! Modules that want WASI preview 1 become components that want none of it.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::error::Error;
use crate::project::World;

/// The interface, as this version of the tool knows it.
pub(crate) const WIT: &str = include_str!("../wit/operator.wit");
/// What stands in for WASI.
const NULL_ADAPTER: &str = include_str!("null-adapter.wat");
/// The module that preview 1 functions are imported from.
const PREVIEW_1: &str = "wasi_snapshot_preview1";
/// What the adapter itself imports, as a world of its own.
const ADAPTER_WORLD: &str = "package wasmill:adapter; world adapter { import wasmill:operator/log@0.1.0; }";

/// Makes a component of a core module that knows neither its world nor a component's imports: what
/// C and Go compilers make.
///
/// # Errors
/// [`Error::NotAPlugin`] under `name`.
pub(crate) fn encode(name: &str, module: &[u8], world: World) -> Result<Vec<u8>, Error> {
    let refused = |reason: String| Error::NotAPlugin { name: name.to_owned(), reason };
    let encode = || {
        let mut module = module.to_vec();
        let mut resolve = Resolve::default();
        let package = resolve.push_str("operator.wit", WIT)?;
        let id = resolve.select_world(&[package], Some(world.name()))?;
        embed_component_metadata(&mut module, &resolve, id, StringEncoding::UTF8)?;
        let mut encoder = ComponentEncoder::default().validate(true).module(&module)?;
        if imports_preview_1(&module)? {
            // The adapter with the type of its one import.
            let mut adapter = wat::parse_str(NULL_ADAPTER)?;
            let mut resolve = Resolve::default();
            resolve.push_str("operator.wit", WIT)?;
            let package = resolve.push_str("adapter.wit", ADAPTER_WORLD)?;
            let id = resolve.select_world(&[package], Some("adapter"))?;
            embed_component_metadata(&mut adapter, &resolve, id, StringEncoding::UTF8)?;
            encoder = encoder.adapter(PREVIEW_1, &adapter)?;
        }
        encoder.encode()
    };
    let component = encode().map_err(|error| refused(format!("{error:#}")))?;
    crate::component::componentize(name, &component)
}

fn imports_preview_1(module: &[u8]) -> Result<bool, wasmparser::BinaryReaderError> {
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        if let wasmparser::Payload::ImportSection(section) = payload? {
            for import in section.into_imports() {
                if import?.module == PREVIEW_1 {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stateless operator that says something on standard error before it gives up.
    const MODULE: &str = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "wasmill:operator/plugin@0.1.0#describe") (param i32 i32) (result i32)
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 64))) unreachable)
        (func (export "wasmill:operator/plugin@0.1.0#open") (param i32 i32) (result i32) unreachable)
        (func (export "wasmill:operator/operator@0.1.0#process")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
        (func (export "wasmill:operator/operator@0.1.0#flush") (result i32) unreachable))"#;

    #[test]
    fn module_that_wants_wasi_becomes_a_component_that_wants_none() {
        let module = wat::parse_str(MODULE).expect("text");
        let component = encode("c", &module, World::Stateless).expect("encodes");
        let text = String::from_utf8_lossy(&component);
        assert!(text.contains("wasmill:operator/log@0.1.0"));
        // The check of imports has run; the name itself lives on in names of inner instances.
        assert!(crate::component::componentize("c", &component).is_ok());
    }

    #[test]
    fn missing_export_is_named() {
        let module = wat::parse_str("(module (memory (export \"memory\") 1))").expect("text");
        let error = encode("c", &module, World::Windowed).expect_err("no exports");
        let Error::NotAPlugin { reason, .. } = error else { panic!("{error}") };
        assert!(reason.contains("wasmill:operator/"), "{reason}");
    }

    #[test]
    fn interface_is_the_repositorys() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/operator.wit");
        assert_eq!(std::fs::read_to_string(path).expect("reads"), WIT);
    }
}
