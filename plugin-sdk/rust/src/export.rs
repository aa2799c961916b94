//! From an author's type to the exports of a component.
//!
//! `wit-bindgen` gives a macro for each exported interface; a world is some of these and its
//! component type, which lies encoded in `worlds/` (a test holds it to `wit/operator.wit`).

use std::cell::RefCell;
use std::thread::LocalKey;

use crate::aggregate;
#[doc(hidden)]
pub use crate::aggregate::AggregateDriver;
use crate::bindings::exports::wasmill::operator::{aggregate as aggregate_export, migration, operator, plugin, timed};
use crate::bindings::wasmill::operator::types::{Batch, Clock, Column, Failure, Outcome};
use crate::driver;
#[doc(hidden)]
pub use crate::driver::Driver;
use crate::host::{Host, StatefulHost, StatelessHost};
use crate::{Aggregate, Operator, log};

/// The component type of the world `stateless`.
#[doc(hidden)]
pub const STATELESS: &[u8; include_bytes!("../worlds/stateless").len()] = include_bytes!("../worlds/stateless");
/// The component type of the world `stateful`.
#[doc(hidden)]
pub const STATEFUL: &[u8; include_bytes!("../worlds/stateful").len()] = include_bytes!("../worlds/stateful");
/// The component type of the world `windowed`.
#[doc(hidden)]
pub const WINDOWED: &[u8; include_bytes!("../worlds/windowed").len()] = include_bytes!("../worlds/windowed");

/// A plugin, as its macro makes it. Not for authors.
#[doc(hidden)]
pub trait Plugin {
    const NAME: &'static str;
    const VERSION: &'static str;
    fn describe(config: &[u8]) -> Result<plugin::Descriptor, Failure>;
    fn open(config: &[u8]) -> Result<(), Failure>;
}

/// The part of a plugin that is an operator.
#[doc(hidden)]
pub trait OperatorPlugin {
    type Operator: Operator;
    const STATEFUL: bool;
    fn slot() -> &'static LocalKey<RefCell<Option<Driver<Self::Operator>>>>;
}

/// The part of a plugin that is an aggregate.
#[doc(hidden)]
pub trait AggregatePlugin {
    type Aggregate: Aggregate<Accumulator: Default>;
    fn slot() -> &'static LocalKey<RefCell<Option<AggregateDriver<Self::Aggregate>>>>;
}

impl<P: Plugin> plugin::Guest for P {
    fn describe(config: Vec<u8>) -> Result<plugin::Descriptor, Failure> {
        log::install_panic_hook();
        P::describe(&config)
    }

    fn open(config: Vec<u8>) -> Result<(), Failure> {
        log::install_panic_hook();
        P::open(&config)
    }
}

fn host<P: OperatorPlugin>() -> Box<dyn Host> {
    if P::STATEFUL { Box::new(StatefulHost) } else { Box::new(StatelessHost) }
}

#[doc(hidden)]
pub fn describe_operator<P: Plugin + OperatorPlugin>(config: &[u8]) -> Result<plugin::Descriptor, Failure> {
    match Driver::<P::Operator>::open(config, host::<P>()) {
        Ok(driver) => Ok(driver.describe(P::NAME, P::VERSION)),
        // Without a configuration there is nothing wrong with one.
        Err(_) if config.is_empty() => Ok(driver::blank::<P::Operator>(P::NAME, P::VERSION)),
        Err(error) => Err(Failure::Fatal(error.to_string())),
    }
}

#[doc(hidden)]
pub fn open_operator<P: OperatorPlugin>(config: &[u8]) -> Result<(), Failure> {
    let driver = Driver::open(config, host::<P>()).map_err(|error| Failure::Fatal(error.to_string()))?;
    P::slot().set(Some(driver));
    Ok(())
}

#[doc(hidden)]
pub fn describe_aggregate<P: Plugin + AggregatePlugin>(config: &[u8]) -> Result<plugin::Descriptor, Failure> {
    match AggregateDriver::<P::Aggregate>::open(config) {
        Err(error) if !config.is_empty() => Err(Failure::Fatal(error.to_string())),
        _ => Ok(aggregate::describe::<P::Aggregate>(P::NAME, P::VERSION)),
    }
}

#[doc(hidden)]
pub fn open_aggregate<P: AggregatePlugin>(config: &[u8]) -> Result<(), Failure> {
    let driver = AggregateDriver::open(config).map_err(|error| Failure::Fatal(error.to_string()))?;
    P::slot().set(Some(driver));
    Ok(())
}

fn not_open() -> Failure {
    Failure::Fatal("the plugin is not open".to_owned())
}

fn with<P: OperatorPlugin, R>(call: impl FnOnce(&mut Driver<P::Operator>) -> Result<R, Failure>) -> Result<R, Failure> {
    P::slot().with_borrow_mut(|driver| driver.as_mut().map_or_else(|| Err(not_open()), call))
}

impl<P: OperatorPlugin> operator::Guest for P {
    fn process(port: u16, input: Batch) -> Result<Outcome, Failure> {
        with::<P, _>(|driver| driver.process(port, &input))
    }

    fn flush() -> Result<(), Failure> {
        with::<P, _>(|driver| {
            driver.flush();
            Ok(())
        })
    }
}

impl<P: OperatorPlugin> timed::Guest for P {
    fn on_timers(clock: Clock, fired: timed::Firings) -> Result<Outcome, Failure> {
        with::<P, _>(|driver| driver.on_timers(clock, &fired))
    }

    fn on_watermark(watermark: i64) -> Result<Outcome, Failure> {
        with::<P, _>(|driver| driver.on_watermark(watermark))
    }
}

impl<P: OperatorPlugin> migration::Guest for P {
    fn migrate(space: u16, from_version: u32, entries: migration::Entries) -> Result<migration::Migrated, Failure> {
        with::<P, _>(|driver| driver.migrate(space, from_version, &entries))
    }
}

fn with_aggregate<P: AggregatePlugin, R>(
    call: impl FnOnce(&AggregateDriver<P::Aggregate>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    P::slot().with_borrow(|driver| driver.as_ref().map_or_else(|| Err(not_open()), call))
}

impl<P: AggregatePlugin> aggregate_export::Guest for P {
    fn fold(accumulators: Column, groups: Vec<u32>, input: Batch) -> Result<aggregate_export::Folded, Failure> {
        with_aggregate::<P, _>(|driver| driver.fold(&accumulators, &groups, &input))
    }

    fn merge(accumulators: Column, groups: Vec<u32>, count: u32) -> Result<Column, Failure> {
        with_aggregate::<P, _>(|driver| driver.merge(&accumulators, &groups, count))
    }

    fn finish(panes: aggregate_export::Panes, accumulators: Column) -> Result<aggregate_export::Results, Failure> {
        with_aggregate::<P, _>(|driver| driver.finish(&panes, &accumulators))
    }
}

/// Makes a type the operator of this plugin: `operator!(Type)` in the world `stateless`,
/// `operator!(Type, stateful)` where it uses state, timers or watermarks. Name and version of the
/// plugin are those of its crate.
#[macro_export]
macro_rules! operator {
    ($type:ty) => {
        $crate::__operator!($type, false, {
            $crate::__component_type!("component-type:wasmill:stateless", STATELESS);
        });
    };
    ($type:ty, stateful) => {
        $crate::__operator!($type, true, {
            $crate::__export_wasmill_operator_timed_0_1_0_cabi!(
                __Plugin with_types_in $crate::bindings::exports::wasmill::operator::timed
            );
            $crate::__export_wasmill_operator_migration_0_1_0_cabi!(
                __Plugin with_types_in $crate::bindings::exports::wasmill::operator::migration
            );
            $crate::__component_type!("component-type:wasmill:stateful", STATEFUL);
        });
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __operator {
    ($type:ty, $stateful:literal, { $($exports:tt)* }) => {
        const _: () = {
            struct __Plugin;
            $crate::__plugin!(describe_operator, open_operator);
            impl $crate::export::OperatorPlugin for __Plugin {
                type Operator = $type;
                const STATEFUL: bool = $stateful;
                fn slot() -> &'static ::std::thread::LocalKey<::std::cell::RefCell<Option<$crate::export::Driver<$type>>>> {
                    ::std::thread_local! {
                        static SLOT: ::std::cell::RefCell<Option<$crate::export::Driver<$type>>> =
                            const { ::std::cell::RefCell::new(None) };
                    }
                    &SLOT
                }
            }
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                $crate::__export_wasmill_operator_plugin_0_1_0_cabi!(
                    __Plugin with_types_in $crate::bindings::exports::wasmill::operator::plugin
                );
                $crate::__export_wasmill_operator_operator_0_1_0_cabi!(
                    __Plugin with_types_in $crate::bindings::exports::wasmill::operator::operator
                );
                $($exports)*
            };
        };
    };
}

/// Makes a type the aggregate of this plugin, in the world `windowed`. Name and version of the
/// plugin are those of its crate.
#[macro_export]
macro_rules! aggregate {
    ($type:ty) => {
        const _: () = {
            struct __Plugin;
            $crate::__plugin!(describe_aggregate, open_aggregate);
            impl $crate::export::AggregatePlugin for __Plugin {
                type Aggregate = $type;
                fn slot() -> &'static ::std::thread::LocalKey<
                    ::std::cell::RefCell<Option<$crate::export::AggregateDriver<$type>>>,
                > {
                    ::std::thread_local! {
                        static SLOT: ::std::cell::RefCell<Option<$crate::export::AggregateDriver<$type>>> =
                            const { ::std::cell::RefCell::new(None) };
                    }
                    &SLOT
                }
            }
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                $crate::__export_wasmill_operator_plugin_0_1_0_cabi!(
                    __Plugin with_types_in $crate::bindings::exports::wasmill::operator::plugin
                );
                $crate::__export_wasmill_operator_aggregate_0_1_0_cabi!(
                    __Plugin with_types_in $crate::bindings::exports::wasmill::operator::aggregate
                );
                $crate::__component_type!("component-type:wasmill:windowed", WINDOWED);
            };
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin {
    ($describe:ident, $open:ident) => {
        impl $crate::export::Plugin for __Plugin {
            const NAME: &'static str = env!("CARGO_PKG_NAME");
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            fn describe(
                config: &[u8],
            ) -> Result<$crate::bindings::exports::wasmill::operator::plugin::Descriptor, $crate::Failure> {
                $crate::export::$describe::<Self>(config)
            }
            fn open(config: &[u8]) -> Result<(), $crate::Failure> {
                $crate::export::$open::<Self>(config)
            }
        }
        // Off Wasm nothing is exported, and nothing else would use the author's type.
        const _: fn(&[u8]) -> Result<(), $crate::Failure> = <__Plugin as $crate::export::Plugin>::open;
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __component_type {
    ($section:literal, $world:ident) => {
        #[unsafe(link_section = $section)]
        #[used]
        static __COMPONENT_TYPE: [u8; $crate::export::$world.len()] = *$crate::export::$world;
    };
}
