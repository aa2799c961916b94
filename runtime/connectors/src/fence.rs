//! What a job of a tenant may reach: files below one folder, hosts that were granted, no port of this
//! machine unless that was granted, too, and nothing of the process it runs in.
//!
//! Names are held against the grant when the job is checked. Addresses are held against what is public
//! each time a connection is opened, by the resolver that the connection is opened with: it connects to
//! the address that was looked at, whatever the name stands for a moment later.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

use crate::options::ConfigError;

/// What a job may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    /// Names of hosts, `*.example.org` for all below one, `*` for all that are public.
    pub hosts: Vec<String>,
    /// Whether sources may listen on ports.
    pub listen: bool,
}

impl Fence {
    /// Holds the options of a source against the fence.
    pub(crate) fn source(&self, connector: &str, options: &toml::Table) -> Result<(), ConfigError> {
        match connector {
            "generator" | "topic" => Ok(()),
            "file" => path(options, "path"),
            "http" | "tcp" | "udp" if self.listen => Ok(()),
            "http" | "tcp" | "udp" => {
                let refused = ConfigError::of("connector", "sources of this tenant may not listen on ports");
                Err(refused.hint("produce to a topic, and read that; or have the operator grant `listen`"))
            }
            other => Err(refused(other)),
        }
    }

    /// Holds the options of a sink against the fence.
    pub(crate) fn sink(&self, connector: &str, options: &toml::Table) -> Result<(), ConfigError> {
        match connector {
            "blackhole" | "topic" => Ok(()),
            "file" => path(options, "path"),
            "http" => {
                path(options, "authorities")?;
                headers(options)?;
                self.url(options.get("url").and_then(toml::Value::as_str).unwrap_or_default())
            }
            other => Err(refused(other)),
        }
    }

    fn url(&self, url: &str) -> Result<(), ConfigError> {
        // What is no URL is told by the connector.
        url.parse::<Uri>().ok().map_or(Ok(()), |url| self.permits(&url))
    }

    /// Holds a URL against the fence. What a name in it stands for is held against it by [`outgoing`](crate::outgoing).
    ///
    /// # Errors
    /// Where its host is no public one, or was not granted.
    pub fn permits(&self, url: &Uri) -> Result<(), ConfigError> {
        let Some(host) = url.host() else { return Ok(()) };
        let refused = |message: String| Err(ConfigError::of("url", message));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>()
            && !is_public(address)
        {
            return refused(format!("{host} is no public address"));
        }
        if bare.parse::<IpAddr>().is_err() && is_number(bare) {
            return refused(format!("{host} is an address in another notation"));
        }
        if self.hosts.iter().any(|allowed| matches(allowed, bare)) {
            return Ok(());
        }
        Err(ConfigError::of("url", format!("jobs of this tenant may not connect to {host}"))
            .hint("have the operator grant this host"))
    }
}

fn refused(connector: &str) -> ConfigError {
    ConfigError::of("connector", format!("connector {connector:?} is not to be had in the service"))
}

/// Whether a grant covers a host.
fn matches(allowed: &str, host: &str) -> bool {
    let (allowed, host) = (allowed.to_ascii_lowercase(), host.to_ascii_lowercase());
    let host = host.trim_end_matches('.');
    match allowed.strip_prefix("*.") {
        Some(above) => host.strip_suffix(above).is_some_and(|below| below.ends_with('.')),
        None => allowed == "*" || allowed == host,
    }
}

/// Whether a host is a number where a name ends: libraries read `127.1`, `0x7f.1` and `2130706433` as addresses.
fn is_number(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// A path that stays below its folder: relative, and no part of it begins with a point, so that it is
/// not the folder above, nor a pattern that finds it.
fn path(options: &toml::Table, key: &str) -> Result<(), ConfigError> {
    let Some(text) = options.get(key).and_then(toml::Value::as_str) else { return Ok(()) };
    stays_below(text).map_err(|message| {
        ConfigError::of(key, message).hint("write a path below the folder of the tenant, such as \"out/rows.jsonl\"")
    })
}

fn stays_below(text: &str) -> Result<(), String> {
    for component in Path::new(text).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) if !part.as_encoded_bytes().starts_with(b".") => {}
            _ => return Err(format!("{text:?} leads out of the folder of the tenant")),
        }
    }
    if text.contains('\0') { Err(format!("{text:?} names no file")) } else { Ok(()) }
}

/// Secrets of the process, and files, are not for tenants.
fn headers(options: &toml::Table) -> Result<(), ConfigError> {
    let headers = options.get("headers").and_then(toml::Value::as_table);
    for (name, value) in headers.into_iter().flatten() {
        let Some(table) = value.as_table() else { continue };
        let key = format!("headers.{name}");
        if table.contains_key("env") {
            return Err(ConfigError::of(&key, "the environment of the service is not for jobs of tenants"));
        }
        path(table, "file").map_err(|error| ConfigError { key: Some(key), ..error })?;
    }
    Ok(())
}

/// Whether an address is one of the public network, for single hosts.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// After the IANA registry of IPv4 special-purpose addresses (RFC 6890).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b)))
}

/// Global unicast addresses (RFC 4291), without those that stand for IPv4 addresses in another way and
/// those that are for documentation (RFC 6890).
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let [a, b, ..] = address.segments();
    let global = a & 0xe000 == 0x2000;
    let teredo_or_orchid = a == 0x2001 && b < 0x200;
    let documentation = (a == 0x2001 && b == 0xdb8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    global && !teredo_or_orchid && !documentation && !six_to_four
}

/// Finds addresses; behind a fence, public ones only.
#[derive(Debug, Clone)]
pub struct Resolver {
    inner: GaiResolver,
    fenced: bool,
}

impl Resolver {
    pub(crate) fn new(fenced: bool) -> Self {
        Self { inner: GaiResolver::new(), fenced }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolving, fenced) = (self.inner.call(name), self.fenced);
        Box::pin(async move {
            let found = resolving.await?;
            let usable: Vec<SocketAddr> = found.filter(|found| !fenced || is_public(found.ip())).collect();
            if usable.is_empty() && fenced {
                let message = "the name stands for no public address";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
            Ok(usable.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_of_single_hosts_are_public() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "203.0.113.5",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "100::1",
        ] {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn paths_stay_below_their_folder() {
        for text in ["a", "./a/b.jsonl", "in/*.csv", "a..b/c", "{date}/x"] {
            assert_eq!(stays_below(text), Ok(()), "{text}");
        }
        // `.*` and `.?` are patterns that find the folder above.
        for text in ["/etc/passwd", "../x", "a/../../x", ".*/x", ".?/.?/x", "a/.[.]/x", ".hidden", "a\0"] {
            assert!(stays_below(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_grant_covers_its_hosts_and_no_others() {
        let fence = Fence { hosts: vec!["api.example.org".into(), "*.example.net".into()], listen: false };
        for url in ["https://api.example.org/x", "https://API.example.org./", "http://a.b.example.net:81/"] {
            assert_eq!(fence.url(url), Ok(()), "{url}");
        }
        for url in ["https://example.org", "https://example.net", "https://xexample.net", "https://1.1.1.1"] {
            assert!(fence.url(url).is_err(), "{url}");
        }
        let all = Fence { hosts: vec!["*".into()], listen: true };
        assert_eq!(all.url("https://1.1.1.1"), Ok(()));
        for url in ["http://127.1/", "http://0x7f.1", "http://2130706433", "http://0177.0.0.1", "http://0x7f000001./"] {
            assert!(all.url(url).is_err(), "{url}");
        }
        for url in ["http://127.0.0.1", "http://[::1]:80/", "http://[::ffff:10.0.0.1]/", "http://169.254.169.254/"] {
            assert!(all.url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn connectors_and_options_that_reach_the_process_are_refused() {
        let fence = Fence { hosts: vec!["*".into()], listen: true };
        let options = |text: &str| text.parse::<toml::Table>().expect("TOML");
        assert!(fence.source("stdin", &options("")).is_err());
        assert!(fence.sink("stdout", &options("")).is_err());
        assert!(fence.source("brand-new", &options("")).is_err(), "what is not known to be harmless");
        assert!(fence.source("tcp", &options("")).is_ok());
        assert!(Fence::default().source("tcp", &options("")).is_err());
        let url = "url = 'https://example.org'\n";
        let key = |more: &str| fence.sink("http", &options(&format!("{url}{more}"))).err().and_then(|e| e.key);
        assert_eq!(key(""), None);
        assert_eq!(key("headers = { a = { env = 'HOME' } }").as_deref(), Some("headers.a"));
        assert_eq!(key("headers = { a = { file = '/etc/shadow' } }").as_deref(), Some("headers.a"));
        assert_eq!(key("authorities = '../ca.pem'").as_deref(), Some("authorities"));
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_found_only_without_a_fence() {
        let find = |fenced| Resolver::new(fenced).call("localhost".parse().expect("a name"));
        let error = find(true).await.expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(find(false).await.expect("found").count() > 0);
    }
}
