//! Which world a plugin implements: its imports against the grants, its exports by name and type.

use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Lower, TypedFunc,
};

use crate::abi::{self, BatchRef, ColumnRef, EntriesRef, FiringsRef, PanesRef, interface};
use crate::guest::Guest;
use crate::{Capability, Grants, PluginError};

/// A function of the contract: parameters, and what it returns where it does not fail.
pub(crate) type Export<P, R> = TypedFunc<P, (Result<R, abi::Failure>,)>;

type Config<'a> = (&'a [u8],);
type Process<'a> = (u16, BatchRef<'a>);
type OnTimers<'a> = (abi::Clock, FiringsRef<'a>);
type Migrate<'a> = (u16, u32, EntriesRef<'a>);
type Fold<'a> = (ColumnRef<'a>, &'a [u32], BatchRef<'a>);
type Merge<'a> = (ColumnRef<'a>, &'a [u32], u32);
type Finish<'a> = (PanesRef<'a>, ColumnRef<'a>);

const PLUGIN: &str = interface!("plugin");
const OPERATOR: &str = interface!("operator");
const AGGREGATE: &str = interface!("aggregate");
const TIMED: &str = interface!("timed");
const MIGRATION: &str = interface!("migration");

/// Refuses an import that no capability serves or no one grants.
pub(crate) fn check_imports<'a>(imports: impl IntoIterator<Item = &'a str>, grants: Grants) -> Result<(), PluginError> {
    let granted = |import: &str| {
        import == interface!("types")
            || Capability::ALL.iter().any(|&it| it.interface() == import && grants.contains(it))
    };
    match imports.into_iter().find(|import| !granted(import)) {
        None => Ok(()),
        Some(import) if is_unknown(import) => Err(PluginError::Version { interface: import.to_owned() }),
        Some(import) => Err(PluginError::Import { import: import.to_owned(), granted: grants.to_string() }),
    }
}

/// Refuses a set of exports that is no world of `wasmill:operator`.
pub(crate) fn check_exports(exports: &[impl AsRef<str>]) -> Result<(), PluginError> {
    let has = |name: &str| exports.iter().any(|export| export.as_ref() == name);
    let missing = |missing| {
        let names: Vec<&str> = exports.iter().map(AsRef::as_ref).take(16).collect();
        let exports = if names.is_empty() { "nothing".to_owned() } else { format!("`{}`", names.join("`, `")) };
        PluginError::Export { missing, exports }
    };
    if let Some(export) = exports.iter().map(AsRef::as_ref).find(|export| is_unknown(export)) {
        return Err(PluginError::Version { interface: export.to_owned() });
    }
    if !has(PLUGIN) {
        return Err(missing(PLUGIN));
    }
    if !has(OPERATOR) && !has(AGGREGATE) {
        return Err(missing(OPERATOR));
    }
    let reject =
        |export: &str, reason: &str| Err(PluginError::World { export: export.to_owned(), reason: reason.to_owned() });
    if has(OPERATOR) && has(AGGREGATE) {
        return reject(AGGREGATE, "a plugin is an operator or an aggregate, not both");
    }
    if has(AGGREGATE) && has(TIMED) {
        return reject(TIMED, "the host keeps the timers of an aggregate");
    }
    if has(AGGREGATE) && has(MIGRATION) {
        return reject(MIGRATION, "an aggregate has no state but its accumulators, which keep their version");
    }
    Ok(())
}

/// Whether an interface is of our package, but of none that this host knows.
fn is_unknown(interface: &str) -> bool {
    const KNOWN: [&str; 6] = [interface!("types"), PLUGIN, OPERATOR, AGGREGATE, TIMED, MIGRATION];
    interface.starts_with("wasmill:operator/")
        && !KNOWN.contains(&interface)
        && !Capability::ALL.iter().any(|capability| capability.interface() == interface)
}

/// Where the functions of a plugin are.
#[derive(Debug, Clone)]
pub(crate) struct World {
    describe: ComponentExportIndex,
    open: ComponentExportIndex,
    pub(crate) kind: WorldKind,
}

#[derive(Debug, Clone)]
pub(crate) enum WorldKind {
    Operator {
        process: ComponentExportIndex,
        flush: ComponentExportIndex,
        timed: Option<(ComponentExportIndex, ComponentExportIndex)>,
        migrate: Option<ComponentExportIndex>,
    },
    Aggregate {
        fold: ComponentExportIndex,
        merge: ComponentExportIndex,
        finish: ComponentExportIndex,
    },
}

impl World {
    /// Finds the functions and checks their types.
    pub(crate) fn find(pre: &InstancePre<Guest>) -> Result<Self, PluginError> {
        let finder = Finder { component: pre.component(), pre };
        let plugin = finder.interface(PLUGIN)?;
        let kind = if let Some(operator) = finder.component.get_export_index(None, OPERATOR) {
            let timed = match finder.component.get_export_index(None, TIMED) {
                None => None,
                Some(timed) => Some((
                    finder.function::<OnTimers<'_>, abi::Outcome>(TIMED, &timed, "on-timers")?,
                    finder.function::<(i64,), abi::Outcome>(TIMED, &timed, "on-watermark")?,
                )),
            };
            let migrate = match finder.component.get_export_index(None, MIGRATION) {
                None => None,
                Some(migration) => {
                    Some(finder.function::<Migrate<'_>, abi::Migrated>(MIGRATION, &migration, "migrate")?)
                }
            };
            WorldKind::Operator {
                process: finder.function::<Process<'_>, abi::Outcome>(OPERATOR, &operator, "process")?,
                flush: finder.function::<(), ()>(OPERATOR, &operator, "flush")?,
                timed,
                migrate,
            }
        } else {
            let aggregate = finder.interface(AGGREGATE)?;
            WorldKind::Aggregate {
                fold: finder.function::<Fold<'_>, abi::Folded>(AGGREGATE, &aggregate, "fold")?,
                merge: finder.function::<Merge<'_>, abi::Column>(AGGREGATE, &aggregate, "merge")?,
                finish: finder.function::<Finish<'_>, abi::Results>(AGGREGATE, &aggregate, "finish")?,
            }
        };
        Ok(Self {
            describe: finder.function::<Config<'_>, abi::Descriptor>(PLUGIN, &plugin, "describe")?,
            open: finder.function::<Config<'_>, ()>(PLUGIN, &plugin, "open")?,
            kind,
        })
    }

    pub(crate) fn is_aggregate(&self) -> bool {
        matches!(self.kind, WorldKind::Aggregate { .. })
    }

    pub(crate) fn is_timed(&self) -> bool {
        matches!(self.kind, WorldKind::Operator { timed: Some(_), .. })
    }

    pub(crate) fn migrates(&self) -> bool {
        matches!(self.kind, WorldKind::Operator { migrate: Some(_), .. })
    }

    pub(crate) fn describe(&self, bind: &mut Bind<'_>) -> wasmtime::Result<Export<Config<'static>, abi::Descriptor>> {
        bind.function(&self.describe)
    }

    pub(crate) fn open(&self, bind: &mut Bind<'_>) -> wasmtime::Result<Export<Config<'static>, ()>> {
        bind.function(&self.open)
    }
}

/// The functions of an instance that serves one contract.
pub(crate) trait Exports: Sized {
    /// What a plugin is that has none of them.
    const MISSING: &'static str;

    /// `None` where the world is the other one.
    fn of(world: &World, bind: &mut Bind<'_>) -> wasmtime::Result<Option<Self>>;
}

/// The functions of an instance of an operator.
#[derive(Clone, Copy)]
pub(crate) struct OperatorExports {
    pub(crate) process: Export<Process<'static>, abi::Outcome>,
    pub(crate) flush: Export<(), ()>,
    pub(crate) timed: Option<TimedExports>,
    pub(crate) migrate: Option<Export<Migrate<'static>, abi::Migrated>>,
}

#[derive(Clone, Copy)]
pub(crate) struct TimedExports {
    pub(crate) on_timers: Export<OnTimers<'static>, abi::Outcome>,
    pub(crate) on_watermark: Export<(i64,), abi::Outcome>,
}

impl Exports for OperatorExports {
    const MISSING: &'static str = "the plugin is an aggregate, not an operator";

    fn of(world: &World, bind: &mut Bind<'_>) -> wasmtime::Result<Option<Self>> {
        let WorldKind::Operator { process, flush, timed, migrate } = &world.kind else { return Ok(None) };
        let timed = match timed {
            None => None,
            Some((on_timers, on_watermark)) => {
                Some(TimedExports { on_timers: bind.function(on_timers)?, on_watermark: bind.function(on_watermark)? })
            }
        };
        let migrate = migrate.as_ref().map(|migrate| bind.function(migrate)).transpose()?;
        Ok(Some(Self { process: bind.function(process)?, flush: bind.function(flush)?, timed, migrate }))
    }
}

/// The functions of an instance of an aggregate.
#[derive(Clone, Copy)]
pub(crate) struct AggregateExports {
    pub(crate) fold: Export<Fold<'static>, abi::Folded>,
    pub(crate) merge: Export<Merge<'static>, abi::Column>,
    pub(crate) finish: Export<Finish<'static>, abi::Results>,
}

impl Exports for AggregateExports {
    const MISSING: &'static str = "the plugin is an operator, not an aggregate";

    fn of(world: &World, bind: &mut Bind<'_>) -> wasmtime::Result<Option<Self>> {
        let WorldKind::Aggregate { fold, merge, finish } = &world.kind else { return Ok(None) };
        Ok(Some(Self { fold: bind.function(fold)?, merge: bind.function(merge)?, finish: bind.function(finish)? }))
    }
}

/// Binds functions of a fresh instance.
pub(crate) struct Bind<'a> {
    pub(crate) store: &'a mut Store<Guest>,
    pub(crate) instance: Instance,
}

impl Bind<'_> {
    fn function<P, R>(&mut self, index: &ComponentExportIndex) -> wasmtime::Result<Export<P, R>>
    where
        P: ComponentNamedList + Lower,
        R: Lift,
    {
        self.instance.get_typed_func(&mut *self.store, index)
    }
}

struct Finder<'a> {
    component: &'a Component,
    pre: &'a InstancePre<Guest>,
}

impl Finder<'_> {
    fn interface(&self, name: &'static str) -> Result<ComponentExportIndex, PluginError> {
        let missing =
            || PluginError::Export { missing: name, exports: "something of another kind under that name".into() };
        self.component.get_export_index(None, name).ok_or_else(missing)
    }

    fn function<P, R>(
        &self,
        interface: &str,
        index: &ComponentExportIndex,
        name: &str,
    ) -> Result<ComponentExportIndex, PluginError>
    where
        P: ComponentNamedList + Lower,
        R: Lift,
    {
        let wrong = |reason: String| PluginError::World { export: format!("{interface}#{name}"), reason };
        match self.component.get_export(Some(index), name) {
            Some((ComponentItem::ComponentFunc(function), found)) => {
                let checked = function.typecheck::<P, (Result<R, abi::Failure>,)>(&self.pre.instance_type());
                checked.map_err(|error| wrong(format!("its type is not the contract's: {error:#}")))?;
                Ok(found)
            }
            Some(_) => Err(wrong("it is not a function".into())),
            None => Err(wrong("the interface lacks it".into())),
        }
    }
}
