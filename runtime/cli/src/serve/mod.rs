//! What the service needs of plugins and connectors: jobs of tenants, assembled and run here.

mod host;
mod idle;
mod logs;
pub(crate) mod otlp;

pub(crate) use host::JobHost;
pub(crate) use logs::JobLogLayer;
