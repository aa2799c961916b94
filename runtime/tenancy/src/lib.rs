//! What tenants share while their jobs run, and what each may take of it.
//!
//! An [`Account`] is the tenant as the data path sees it: the CPU of its tasks, which a [`Processor`]
//! shares by weight, [`Quota`]s of what it holds, [`Rate`]s of what it does. The engine and the host of
//! plugins ask it once a call or once a batch, never once an event. What a tenant is called, and who may
//! change its budget, is the service's. A job that belongs to nobody has no account, and is asked nothing.

mod account;
mod fair;
mod processor;
mod quota;
mod rate;

pub use account::{Account, Allowance, Spent};
pub use fair::Share;
pub use processor::{Processor, Scheduled, pause, thread_cpu_nanos};
pub use quota::{Held, OVER_BUDGET, Quota};
pub use rate::Rate;
