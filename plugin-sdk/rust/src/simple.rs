//! Operators that are one function.

use crate::{Context, Reject};

/// What a flat map emits into: all that [`Context`] can emit, and nothing else.
#[doc(hidden)]
pub struct Emit;

impl Emit {
    #[doc(hidden)]
    #[inline(always)]
    pub fn keep(ctx: &mut Context<'_>, keep: bool) -> Result<(), Reject> {
        if keep {
            ctx.forward();
        }
        Ok(())
    }

    #[doc(hidden)]
    #[inline(always)]
    pub fn value(ctx: &mut Context<'_>, value: impl AsRef<[u8]>) -> Result<(), Reject> {
        ctx.emit(value);
        Ok(())
    }
}

/// An operator that lets events through for which a function says so.
///
/// ```
/// wasmill_sdk::filter!(Errors, |event| Ok(event.value().starts_with(b"ERROR")));
///
/// let mut test = wasmill_sdk::testing::Tester::<Errors>::new("");
/// test.send_all([("k", "INFO up"), ("k", "ERROR down")]);
/// assert_eq!(test.values(), ["ERROR down"]);
/// ```
#[macro_export]
macro_rules! filter {
    ($name:ident, |$event:pat_param| $keep:expr) => {
        $crate::__simple!($name, |event, ctx| { $crate::Emit::keep(ctx, Self::keeps(event)?) }, {
            #[inline]
            fn batch(&mut self, ctx: &mut $crate::Context<'_>) -> ::core::result::Result<(), $crate::Failure> {
                ctx.filter(Self::keeps);
                Ok(())
            }
        });

        impl $name {
            #[inline(always)]
            fn keeps($event: $crate::Event<'_>) -> ::core::result::Result<bool, $crate::Reject> {
                $keep
            }
        }
    };
}

/// An operator that makes one new value of every event.
///
/// ```
/// wasmill_sdk::map!(Upper, |event| Ok(event.text()?.to_uppercase()));
///
/// let mut test = wasmill_sdk::testing::Tester::<Upper>::new("");
/// test.send_all([("k", "a"), ("k", "b")]);
/// assert_eq!(test.values(), ["A", "B"]);
/// ```
#[macro_export]
macro_rules! map {
    ($name:ident, |$event:pat_param| $value:expr) => {
        $crate::__simple!($name, |event, ctx| {
            let value: ::core::result::Result<_, $crate::Reject> = (|$event: $crate::Event<'_>| $value)(event);
            $crate::Emit::value(ctx, value?)
        });
    };
}

/// An operator that makes any number of rows of every event.
///
/// ```
/// wasmill_sdk::flat_map!(Words, |event, ctx| {
///     event.text()?.split(' ').for_each(|word| ctx.emit(word));
///     Ok(())
/// });
///
/// let mut test = wasmill_sdk::testing::Tester::<Words>::new("");
/// test.send_all([("k", "a b"), ("k", "c")]);
/// assert_eq!(test.values(), ["a", "b", "c"]);
/// ```
#[macro_export]
macro_rules! flat_map {
    ($name:ident, |$event:pat_param, $ctx:ident| $body:expr) => {
        $crate::__simple!($name, |event, $ctx| {
            let $event = event;
            $body
        });
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __simple {
    ($name:ident, |$event:ident, $ctx:ident| $body:expr $(, { $($batch:tt)* })?) => {
        /// The operator of this plugin.
        pub struct $name;

        impl $crate::Operator for $name {
            type Config = ();

            fn open(_: (), _: &mut $crate::Setup) -> ::core::result::Result<Self, $crate::ConfigError> {
                Ok(Self)
            }

            #[inline]
            fn event(
                &mut self,
                $event: $crate::Event<'_>,
                $ctx: &mut $crate::Context<'_>,
            ) -> ::core::result::Result<(), $crate::Reject> {
                $body
            }

            $($($batch)*)?
        }

        $crate::operator!($name);
    };
}
