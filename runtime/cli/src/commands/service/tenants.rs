//! Tenants of a service and their tokens.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use wasmill_model::Timestamp;

use super::{ask, part, text};
use crate::failure::Failure;
use crate::remote::{Body, ServerArgs};
use crate::terminal::{Table, Terminal};

#[derive(Debug, Subcommand)]
pub(in crate::commands) enum TenantCommand {
    /// Make a tenant
    Create(CreateArgs),
    /// List tenants
    Ls,
    /// Change where jobs of a tenant may connect to, or what it may use
    Set(CreateArgs),
    /// Have plugins of a tenant need a signature by this key or another one
    Trust {
        /// The tenant
        tenant: String,
        /// What the signer is called
        signer: String,
        /// The ed25519 public key, 64 hexadecimal digits
        key: String,
    },
    /// Remove a tenant with everything it has
    Rm {
        /// The tenant
        tenant: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::commands) struct CreateArgs {
    /// The tenant
    tenant: String,
    /// Jobs may connect to this host, *.NAME or *; may be given more than once
    #[arg(long, value_name = "HOST")]
    egress: Vec<String>,
    /// Sources may listen on ports of the service's machine
    #[arg(long)]
    listen: bool,
    /// What it may use, as JSON; what is left out is as usual
    #[arg(long, value_name = "JSON")]
    budget: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(in crate::commands) enum TokenCommand {
    /// Make a token, which is printed once
    Create(TokenArgs),
    /// List tokens
    Ls {
        /// The tenant; by default that of the token
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Have a token be nothing from now on
    Revoke {
        /// The id of the token, as `token ls` lists it
        id: String,
        /// The tenant; by default that of the token
        #[arg(long)]
        tenant: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(in crate::commands) struct TokenArgs {
    /// What it is for
    name: String,
    /// The tenant; by default that of the token
    #[arg(long)]
    tenant: Option<String>,
    /// What it allows: read, deploy, admin; may be given more than once
    #[arg(long, value_name = "SCOPE", default_value = "read")]
    scope: Vec<String>,
    /// For how many days it holds; by default for good
    #[arg(long, value_name = "N")]
    days: Option<u32>,
    /// Write it to a file that its owner alone can read, rather than to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl CreateArgs {
    fn body(&self, is_new: bool) -> Result<Value, Failure> {
        let mut body = json!({});
        if is_new {
            body["tenant"] = json!(self.tenant);
        }
        if is_new || self.listen || !self.egress.is_empty() {
            body["egress"] = json!({"hosts": self.egress, "listen": self.listen});
        }
        if let Some(budget) = &self.budget {
            body["budget"] =
                serde_json::from_str(budget).map_err(|error| Failure::wrong(format!("--budget: {error}")))?;
        }
        Ok(body)
    }
}

pub(in crate::commands) fn tenant(
    command: &TenantCommand,
    server: &ServerArgs,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let (answer, said) = match command {
        TenantCommand::Create(args) => {
            let made = ask(server, Method::POST, "/v1/tenants", Body::Json(args.body(true)?))?;
            (made, format!("made tenant {}", args.tenant))
        }
        TenantCommand::Set(args) => {
            let path = format!("/v1/tenants/{}", part(&args.tenant));
            let changed = ask(server, Method::PATCH, &path, Body::Json(args.body(false)?))?;
            (changed, format!("changed tenant {}", args.tenant))
        }
        TenantCommand::Trust { tenant, signer, key } => {
            let path = format!("/v1/tenants/{}/signers/{}", part(tenant), part(signer));
            let changed = ask(server, Method::PUT, &path, Body::Json(json!({"key": key})))?;
            (changed, format!("plugins of {tenant} need a signature: {signer} may sign"))
        }
        TenantCommand::Rm { tenant } => {
            ask(server, Method::DELETE, &format!("/v1/tenants/{}", part(tenant)), Body::Nothing)?;
            (json!({"tenant": tenant, "removed": true}), format!("removed tenant {tenant} with everything it had"))
        }
        TenantCommand::Ls => return tenants(server, terminal),
    };
    if terminal.json { terminal.print_json(&answer) } else { terminal.print(&said) }
}

fn tenants(server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let tenants = ask(server, Method::GET, "/v1/tenants", Body::Nothing)?;
    if terminal.json {
        return terminal.print_json(&tenants);
    }
    let mut table = Table::new(&["tenant", "jobs", "plugins", "may connect to", "made"]);
    for tenant in tenants.as_array().into_iter().flatten() {
        let hosts = tenant["egress"]["hosts"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        table.row([
            text(&tenant["tenant"]).to_owned(),
            tenant["jobs"].to_string(),
            tenant["plugins"].to_string(),
            hosts.join(", "),
            time(&tenant["created"]),
        ]);
    }
    terminal.print(&table.render("", terminal.out))
}

fn time(micros: &Value) -> String {
    micros.as_i64().map_or(String::new(), |micros| Timestamp(micros).to_string())
}

/// The path of a tenant's tokens: of the one that is named, or of the token's own.
fn tokens_of(tenant: Option<&str>, server: &ServerArgs) -> Result<String, Failure> {
    let own = match tenant {
        Some(tenant) => tenant.to_owned(),
        None => {
            let who = ask(server, Method::GET, "/v1/whoami", Body::Nothing)?;
            let own = who["tenant"].as_str().map(str::to_owned);
            own.ok_or_else(|| Failure::wrong("this is a token of the operator: name the tenant with --tenant"))?
        }
    };
    Ok(format!("/v1/tenants/{}/tokens", part(&own)))
}

pub(in crate::commands) fn token(
    command: &TokenCommand,
    server: &ServerArgs,
    terminal: &Terminal,
) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => {
            let path = tokens_of(args.tenant.as_deref(), server)?;
            let body = json!({"name": args.name, "scopes": args.scope, "days": args.days});
            let mut made = ask(server, Method::POST, &path, Body::Json(body))?;
            let secret = text(&made["token"]).to_owned();
            if let Some(file) = &args.out {
                keep(file, &secret).map_err(|error| Failure::file("write", file, &error))?;
                made["token"] = Value::Null;
                let said = format!("wrote token {} to {}", text(&made["id"]), file.display());
                return if terminal.json { terminal.print_json(&made) } else { terminal.print(&said) };
            }
            if terminal.json { terminal.print_json(&made) } else { terminal.print(&secret) }
        }
        TokenCommand::Ls { tenant } => {
            let tokens = ask(server, Method::GET, &tokens_of(tenant.as_deref(), server)?, Body::Nothing)?;
            if terminal.json {
                return terminal.print_json(&tokens);
            }
            let mut table = Table::new(&["id", "name", "scopes", "made", "expires"]);
            for token in tokens.as_array().into_iter().flatten() {
                let scopes = token["scopes"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
                table.row([
                    text(&token["id"]).to_owned(),
                    text(&token["name"]).to_owned(),
                    scopes.join(", "),
                    time(&token["created"]),
                    time(&token["expires"]),
                ]);
            }
            terminal.print(&table.render("", terminal.out))
        }
        TokenCommand::Revoke { id, tenant } => {
            let path = format!("{}/{}", tokens_of(tenant.as_deref(), server)?, part(id));
            ask(server, Method::DELETE, &path, Body::Nothing)?;
            if terminal.json {
                return terminal.print_json(&json!({"id": id, "revoked": true}));
            }
            terminal.print(&format!("{id}: revoked"))
        }
    }
}

/// Writes a token to a new file that its owner alone can read.
fn keep(file: &Path, secret: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{secret}")
}
