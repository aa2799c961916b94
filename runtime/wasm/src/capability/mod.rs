//! The host functions. Each counts, never blocks, never calls the guest, and cannot panic through
//! it; what a call asks for waits in the context until the call returns `ok`.

pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod state;
mod timers;

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmtime::component::{ComponentNamedList, Lift, Linker, LinkerInstance, Lower};
use wasmtime::{Engine, StoreContextMut};

use crate::abi::interface;
use crate::guest::{Guest, Violation};

/// Event keys, sub-keys and tags.
const KEY_BYTES_MAX: usize = 4 << 10;

/// A linker with every capability. Grants decide at load which of them a plugin may name.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    linker.instance(interface!("types"))?;
    log::add_to(&mut linker)?;
    metrics::add_to(&mut linker)?;
    state::add_to(&mut linker)?;
    timers::add_to(&mut linker)?;
    Ok(linker)
}

/// Defines a host function.
fn define<P, R>(
    instance: &mut LinkerInstance<'_, Guest>,
    name: &'static str,
    function: impl Fn(&mut Guest, P) -> Result<R, Violation> + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + 'static,
    R: 'static,
    (R,): ComponentNamedList + Lower,
{
    instance.func_wrap(name, move |mut store: StoreContextMut<'_, Guest>, params: P| {
        let guest = store.data_mut();
        Ok((guarded(name, || {
            guest.enter()?;
            function(guest, params)
        })?,))
    })
}

/// Defines a host function without a result.
fn define_action<P>(
    instance: &mut LinkerInstance<'_, Guest>,
    name: &'static str,
    function: impl Fn(&mut Guest, P) -> Result<(), Violation> + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + 'static,
{
    instance.func_wrap(name, move |mut store: StoreContextMut<'_, Guest>, params: P| {
        let guest = store.data_mut();
        guarded(name, || {
            guest.enter()?;
            function(guest, params)
        })?;
        Ok(())
    })
}

/// A panic of the host must not unwind through a guest's frames.
fn guarded<R>(name: &'static str, body: impl FnOnce() -> Result<R, Violation>) -> Result<R, Violation> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        tracing::error!(function = name, "a host function panicked");
        Err(Violation::Panicked(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_host_function_becomes_an_error() {
        assert_eq!(guarded::<()>("state.scan", || panic!("our bug")), Err(Violation::Panicked("state.scan")));
    }
}
