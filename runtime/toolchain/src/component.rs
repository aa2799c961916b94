use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use crate::error::Error;

/// The package an operator may import from and exports to.
const PACKAGE: &str = "wasmill:operator/";
/// What every plugin exports.
const PLUGIN: &str = "wasmill:operator/plugin";

/// Makes a component of a core module that carries its own interface types, and checks that it
/// is an operator which asks for nothing but the operator package. A component is only checked.
///
/// # Errors
/// [`Error::NotAPlugin`] under `name`.
pub fn componentize(name: &str, module: &[u8]) -> Result<Vec<u8>, Error> {
    let refused = |reason: String| Error::NotAPlugin { name: name.to_owned(), reason };
    let component = if Parser::is_component(module) {
        module.to_vec()
    } else {
        ComponentEncoder::default()
            .validate(true)
            .module(module)
            .and_then(|mut encoder| encoder.encode())
            .map_err(|error| refused(format!("{error:#}")))?
    };
    check(&component).map_err(refused)?;
    Ok(component)
}

fn check(component: &[u8]) -> Result<(), String> {
    let mut plugin = false;
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| error.to_string())? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let name = import.map_err(|error| error.to_string())?.name.name;
                    if !name.starts_with(PACKAGE) {
                        return Err(format!(
                            "it imports {name}, and an operator may import {PACKAGE}* only; \
                             a dependency that wants a clock, files, randomness or the network does not work here"
                        ));
                    }
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    plugin |= export.map_err(|error| error.to_string())?.name.name.starts_with(PLUGIN);
                }
            }
            _ => {}
        }
    }
    if plugin {
        Ok(())
    } else {
        Err(format!("it does not export {PLUGIN}: register the operator with the SDK's macro"))
    }
}

/// Writes a file in one step, and only if that changes it. Returns whether it did.
///
/// # Errors
/// [`Error::File`].
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool, Error> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let failed = |source| Error::File { act: "write", path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    // A component is for others too: the mode of a temporary file would keep it from them.
    let mode = fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{
        CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, Module,
        TypeSection,
    };
    use wit_component::{StringEncoding, embed_component_metadata};
    use wit_parser::Resolve;

    use super::*;

    const OPERATOR: &str = "package wasmill:operator@0.1.0;
        interface log { mark: func(); }
        interface plugin { open: func(); }
        world w { import log; export plugin; }";

    /// A core module of the world `w` in `wit`, with these functions without parameters.
    fn module(wit: &str, import: Option<(&str, &str)>, export: Option<&str>) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut imports = ImportSection::new();
        if let Some((module, name)) = import {
            imports.import(module, name, EntityType::Function(0));
        }
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut exports = ExportSection::new();
        if let Some(name) = export {
            exports.export(name, ExportKind::Func, imports.len());
        }
        let mut code = CodeSection::new();
        let mut body = Function::new([]);
        body.instructions().end();
        code.function(&body);
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
        let mut bytes = module.finish();

        let mut resolve = Resolve::default();
        let package = resolve.push_str("test.wit", wit).expect("the text is valid");
        let world = resolve.select_world(&[package], Some("w")).expect("the world exists");
        embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).expect("embeds");
        bytes
    }

    fn reason(name: &str, bytes: &[u8]) -> String {
        match componentize(name, bytes) {
            Err(Error::NotAPlugin { reason, .. }) => reason,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn operator_becomes_a_component_and_stays_one() {
        let import = ("wasmill:operator/log@0.1.0", "mark");
        let module = module(OPERATOR, Some(import), Some("wasmill:operator/plugin@0.1.0#open"));
        let component = componentize("w", &module).expect("encodes");
        assert!(Parser::is_component(&component));
        assert_eq!(componentize("w", &component).expect("checks"), component);
    }

    #[test]
    fn foreign_import_is_named() {
        let wit = "package a:b; interface clock { wait: func(); } world w { import clock; }";
        assert!(reason("w", &module(wit, Some(("a:b/clock", "wait")), None)).contains("imports a:b/clock"));
    }

    #[test]
    fn import_out_of_the_world_is_refused() {
        let import = ("wasi_snapshot_preview1", "fd_write");
        let module = module(OPERATOR, Some(import), Some("wasmill:operator/plugin@0.1.0#open"));
        assert!(reason("w", &module).contains("wasi_snapshot_preview1"));
    }

    #[test]
    fn module_without_operator_is_refused() {
        let empty = module("package a:b; world w { }", None, None);
        assert!(reason("w", &empty).contains("does not export wasmill:operator/plugin"));
        assert!(reason("w", &module(OPERATOR, None, None)).contains("wasmill:operator/plugin"));
        assert!(reason("w", b"\0asm\x01\0\0\0").contains("does not export"));
        assert!(!reason("w", b"not wasm").is_empty());
    }

    #[test]
    fn equal_bytes_are_not_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/a.wasm");
        assert!(write_if_changed(&path, b"one").expect("writes"));
        assert!(!write_if_changed(&path, b"one").expect("reads"));
        assert!(write_if_changed(&path, b"two").expect("writes"));
        assert_eq!(fs::read(&path).expect("reads"), b"two");
        let entries = fs::read_dir(folder.path().join("new")).expect("lists").count();
        assert_eq!(entries, 1, "no temporary file is left");
    }
}
