//! What a plugin's bytes declare, read without compiling anything.

use std::collections::BTreeSet;

use wasmparser::{Encoding, Imports, Instance, KnownCustom, Parser, Payload, TypeRef};

use crate::{InstanceLimits, PluginError, ScanLimits, text};

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Component,
    /// A core module that says which world it implements.
    CoreModule,
}

/// What the bytes declare.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) form: Form,
    /// Imports and exports of a component; of a core module they are known once it is one.
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    pub(crate) languages: Vec<String>,
    pub(crate) tools: Vec<String>,
}

/// Names and versions of tools and languages, kept of what a plugin claims.
const PRODUCERS_MAX: usize = 32;
const PRODUCER_BYTES_MAX: usize = 64;

struct Totals {
    memory_bytes: u64,
    table_elements: u64,
    locals: u64,
    functions: u64,
    modules: u64,
    core_instances: u64,
}

/// Reads `bytes` and holds them against the limits.
pub(crate) fn scan(bytes: &[u8], limits: &ScanLimits, instance: &InstanceLimits) -> Result<Scan, PluginError> {
    within("bytes", bytes.len() as u64, limits.plugin_bytes)?;
    recognize(bytes)?;
    let mut totals =
        Totals { memory_bytes: 0, table_elements: 0, locals: 0, functions: 0, modules: 0, core_instances: 0 };
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let (mut languages, mut tools) = (BTreeSet::new(), BTreeSet::new());
    let mut depth = 0usize;
    let mut form = None;
    let mut has_type = false;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } => {
                depth += 1;
                form.get_or_insert(encoding);
            }
            Payload::End(_) => depth -= 1,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                totals.modules += 1;
                within("core modules and nested components", totals.modules, limits.modules)?;
            }
            Payload::ImportSection(section) => {
                for import in section {
                    core_import(import.map_err(malformed)?, depth, &mut totals, instance)?;
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    totals.memory(memory.map_err(malformed)?, instance)?;
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    totals.table(table.map_err(malformed)?.ty, instance)?;
                }
            }
            Payload::CodeSectionStart { count, .. } => {
                totals.functions += u64::from(count);
                within("functions", totals.functions, limits.functions)?;
            }
            Payload::CodeSectionEntry(body) => {
                for run in body.get_locals_reader().map_err(malformed)? {
                    totals.locals += u64::from(run.map_err(malformed)?.0);
                }
                within("local variables", totals.locals, limits.locals)?;
            }
            Payload::InstanceSection(section) => {
                for made in section {
                    if let Instance::Instantiate { .. } = made.map_err(malformed)? {
                        totals.core_instances += 1;
                    }
                }
                within("core instances", totals.core_instances, limits.core_instances)?;
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.push(text::clean(import.map_err(malformed)?.name.name.to_owned(), 256));
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.push(text::clean(export.map_err(malformed)?.name.name.to_owned(), 256));
                }
            }
            Payload::CustomSection(section) => {
                has_type |= depth == 1 && section.name().starts_with("component-type");
                if let KnownCustom::Producers(fields) = section.as_known() {
                    producers(fields, &mut languages, &mut tools);
                }
            }
            _ => {}
        }
    }
    let form = match form {
        Some(Encoding::Component) => Form::Component,
        Some(Encoding::Module) if has_type => Form::CoreModule,
        _ => return Err(PluginError::CoreModule),
    };
    Ok(Scan { form, imports, exports, languages: languages.into_iter().collect(), tools: tools.into_iter().collect() })
}

impl Totals {
    fn memory(&mut self, memory: wasmparser::MemoryType, limits: &InstanceLimits) -> Result<(), PluginError> {
        if memory.memory64 {
            return Err(PluginError::Feature { what: "64-bit memories" });
        }
        if memory.shared {
            return Err(PluginError::Feature { what: "shared memories" });
        }
        let page = 1u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
        self.memory_bytes = self.memory_bytes.saturating_add(memory.initial.saturating_mul(page));
        within("bytes of memory at the start", self.memory_bytes, limits.memory_bytes)
    }

    fn table(&mut self, table: wasmparser::TableType, limits: &InstanceLimits) -> Result<(), PluginError> {
        if table.table64 {
            return Err(PluginError::Feature { what: "64-bit tables" });
        }
        if table.shared {
            return Err(PluginError::Feature { what: "shared tables" });
        }
        self.table_elements = self.table_elements.saturating_add(table.initial);
        within("table elements at the start", self.table_elements, limits.table_elements)
    }
}

/// An import of a core module. Only the modules inside a component get theirs from one another.
fn core_import(
    imports: Imports<'_>,
    depth: usize,
    totals: &mut Totals,
    limits: &InstanceLimits,
) -> Result<(), PluginError> {
    let (module, name, kind) = match &imports {
        Imports::Single(_, import) => (import.module, import.name, Some(import.ty)),
        Imports::Compact1 { module, .. } => (*module, "", None),
        Imports::Compact2 { module, ty, .. } => (*module, "", Some(*ty)),
    };
    if depth == 1 && module.starts_with("wasi") {
        return Err(PluginError::Import {
            import: text::clean(format!("{module}::{name}"), 256),
            granted: "interfaces of `wasmill:operator` only: no file, clock, network or environment".into(),
        });
    }
    // An imported memory or table is one that another module of the component declares; what is
    // odd about it would be odd there too, but for a core module that stands alone.
    match kind {
        Some(TypeRef::Memory(memory)) if depth == 1 => totals.memory(memory, limits),
        Some(TypeRef::Table(table)) if depth == 1 => totals.table(table, limits),
        _ => Ok(()),
    }
}

fn producers(
    fields: wasmparser::ProducersSectionReader<'_>,
    languages: &mut BTreeSet<String>,
    tools: &mut BTreeSet<String>,
) {
    // A claim of the author's tools, for people only: a broken one is passed over.
    for field in fields.into_iter().flatten() {
        let into = if field.name == "language" { &mut *languages } else { &mut *tools };
        for value in field.values.into_iter().flatten() {
            if into.len() < PRODUCERS_MAX {
                let claim = format!("{} {}", value.name, value.version);
                into.insert(text::clean(claim.trim_end().to_owned(), PRODUCER_BYTES_MAX));
            }
        }
    }
}

/// Refuses what is not binary WebAssembly, naming what it is.
fn recognize(bytes: &[u8]) -> Result<(), PluginError> {
    let found = match bytes {
        [b'\0', b'a', b's', b'm', ..] => return Ok(()),
        [] => "an empty file",
        [0x7f, b'E', b'L', b'F', ..] => {
            "an ELF file (a native program, or a compiled .cwasm, which is never run as uploaded)"
        }
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [0x1f, 0x8b, ..] => "a gzip file",
        [b'M', b'Z', ..] => "a Windows program",
        _ if bytes.trim_ascii_start().starts_with(b"(") => "WebAssembly text (.wat)",
        _ if std::str::from_utf8(&bytes[..bytes.len().min(64)]).is_ok_and(|text| !text.contains('\0')) => "a text file",
        _ => "some other binary file",
    };
    Err(PluginError::NotWasm { found })
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<(), PluginError> {
    if found > limit { Err(PluginError::TooLarge { what, found, limit }) } else { Ok(()) }
}

fn malformed(error: wasmparser::BinaryReaderError) -> PluginError {
    PluginError::Malformed { offset: error.offset() as u64, reason: text::clean(error.message().to_owned(), 512) }
}
