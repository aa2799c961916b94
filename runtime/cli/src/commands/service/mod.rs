//! Commands for a service: the same verbs as for a job of this machine, and those that only a service
//! has.

mod jobs;
mod plugins;
mod tenants;
mod top;
mod usage;

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

pub(super) use jobs::{
    DeployArgs, Deployment, JobArgs, LogsArgs, RescaleArgs, TapArgs, change, deploy, logs, print_deployed, ps, rescale,
    rm, savepoint, send, status, tap, tell, why,
};
pub(super) use plugins::{PluginCommand, plugin};
pub(super) use tenants::{TenantCommand, TokenCommand, tenant, token};
pub(super) use top::{TopArgs, top};
pub(super) use usage::usage;

use crate::failure::Failure;
use crate::remote::{Body, ServerArgs};
use crate::terminal::text;

/// From one look at what a service has to the next, where there was nothing.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Asks a service for one thing.
pub(super) fn ask(server: &ServerArgs, method: Method, path: &str, body: Body) -> Result<Value, Failure> {
    let client = server.client()?;
    super::small_runtime()?.block_on(client.ask(method, path, body))
}

/// A part of a path: what could mean something else in it is written as its number.
pub(super) fn part(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b':' => out.push(char::from(byte)),
            b'.' if text != "." && text != ".." => out.push('.'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_path_stays_one() {
        assert_eq!(part("a-1:2.0"), "a-1:2.0");
        assert_eq!(part(".."), "%2E%2E");
        assert_eq!(part("a/b?c d"), "a%2Fb%3Fc%20d");
    }
}
