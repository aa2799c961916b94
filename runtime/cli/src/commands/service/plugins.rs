//! Plugins of a service.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};
use wasmill_env::RealClock;
use wasmill_wasm::InstanceLimits;

use super::jobs::push;
use super::{ask, part, text};
use crate::failure::Failure;
use crate::oci;
use crate::plugins::{self, Plugins};
use crate::remote::{Body, ServerArgs};
use crate::terminal::{Table, Terminal, bytes};

#[derive(Debug, Subcommand)]
pub(in crate::commands) enum PluginCommand {
    /// Send a plugin to the service
    Push {
        /// The .wasm file
        file: PathBuf,
        /// A NAME or NAME:TAG that stands for it from now on
        #[arg(long)]
        name: Option<String>,
    },
    /// List plugins
    Ls,
    /// Show what a plugin is
    Show {
        /// Its digest, or a NAME:TAG
        plugin: String,
    },
    /// Get the bytes of a plugin
    Pull {
        /// Its digest, or a NAME:TAG
        plugin: String,
        /// The file to write
        file: PathBuf,
    },
    /// Put a plugin into an OCI image layout, for a registry or another service
    Export {
        /// Its digest or a NAME:TAG; or a .wasm file here, which needs no service
        plugin: String,
        /// The folder of the layout, made where there is none
        #[arg(long, value_name = "DIR")]
        oci: PathBuf,
    },
    /// Send a plugin out of an OCI image layout to the service
    Import {
        /// A name in the layout, or a digest of the plugin or of its manifest; without it, the only one
        plugin: Option<String>,
        /// The folder of the layout
        #[arg(long, value_name = "DIR")]
        oci: PathBuf,
        /// A NAME or NAME:TAG that stands for it from now on; without it, its name in the layout
        #[arg(long)]
        name: Option<String>,
    },
    /// Add a signature of a signer of the tenant: ed25519 over the text of the digest
    Sign {
        /// Its digest, or a NAME:TAG
        plugin: String,
        /// The signature, 128 hexadecimal digits
        signature: String,
    },
    /// Remove a plugin that no job needs
    Rm {
        /// Its digest, or a NAME:TAG
        plugin: String,
    },
}

pub(in crate::commands) fn plugin(
    command: &PluginCommand,
    server: &ServerArgs,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let at = |plugin: &str| format!("/v1/plugins/{}", part(plugin));
    match command {
        PluginCommand::Push { file, name } => {
            let client = server.client()?;
            let pushed = crate::commands::small_runtime()?.block_on(push(&client, file, name.as_deref()))?;
            one(&pushed, terminal)
        }
        PluginCommand::Ls => ls(server, terminal),
        PluginCommand::Show { plugin } => one(&ask(server, Method::GET, &at(plugin), Body::Nothing)?, terminal),
        PluginCommand::Pull { plugin, file } => {
            let client = server.client()?;
            let path = format!("{}/content", at(plugin));
            let content = crate::commands::small_runtime()?.block_on(client.fetch(&path))?;
            std::fs::write(file, &content).map_err(|error| Failure::file("write", file, &error))?;
            let (shown, length) = (file.display(), content.len() as u64);
            if terminal.json {
                return terminal.print_json(&json!({"file": shown.to_string(), "bytes": length}));
            }
            terminal.print(&format!("{shown}: {}", bytes(length)))
        }
        PluginCommand::Export { plugin, oci } => export(plugin, oci, server, terminal),
        PluginCommand::Import { plugin, oci, name } => {
            let found = oci::read(oci, plugin.as_deref())?;
            let path = match name.as_ref().or(found.name.as_ref()) {
                Some(name) => format!("/v1/plugins?name={}", part(name)),
                None => "/v1/plugins".to_owned(),
            };
            let body = Body::Bytes(found.bytes, "application/wasm");
            one(&ask(server, Method::POST, &path, body)?, terminal)
        }
        PluginCommand::Sign { plugin, signature } => {
            let body = Body::Json(json!({"signature": signature}));
            one(&ask(server, Method::POST, &format!("{}/signatures", at(plugin)), body)?, terminal)
        }
        PluginCommand::Rm { plugin } => {
            ask(server, Method::DELETE, &at(plugin), Body::Nothing)?;
            if terminal.json {
                return terminal.print_json(&json!({"plugin": plugin, "removed": true}));
            }
            terminal.print(&format!("{plugin}: removed"))
        }
    }
}

fn export(plugin: &str, oci: &Path, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let runtime = crate::commands::small_runtime()?;
    let (content, name) = if Path::new(plugin).is_file() {
        let content = std::fs::read(plugin).map_err(|error| Failure::file("read", Path::new(plugin), &error))?;
        (content.into(), None)
    } else {
        let client = server.client()?;
        let content = runtime.block_on(client.fetch(&format!("/v1/plugins/{}/content", part(plugin))))?;
        let is_digest = plugin.starts_with("sha256:");
        (content, (!is_digest).then_some(plugin))
    };
    // What it imports and exports is part of the layout, and only a plugin has its place there.
    let info = runtime.block_on(async {
        let plugins = Plugins::new(terminal, Arc::new(RealClock::default()))?;
        let bytes = Arc::from(content.as_ref());
        let loaded = plugins.load_bytes(&plugins::named(plugin), bytes, InstanceLimits::default()).await?;
        Ok::<_, Failure>(loaded.info().clone())
    })?;
    let manifest = oci::write(oci, &content, name, &info.imports, &info.exports)?;
    let (shown, plugin) = (oci.display(), info.digest);
    if terminal.json {
        let manifest = manifest.to_string();
        return terminal.print_json(&json!({
            "oci": shown.to_string(), "plugin": plugin.to_string(), "manifest": manifest, "name": name,
        }));
    }
    terminal.print(&format!("{shown}: {plugin}, with the manifest {manifest}"))
}

fn tags(plugin: &Value) -> String {
    plugin["tags"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ")
}

fn one(plugin: &Value, terminal: &Terminal) -> Result<(), Failure> {
    if terminal.json {
        return terminal.print_json(plugin);
    }
    let mut said = format!("{}\n", text(&plugin["digest"]));
    let mut line = |what: &str, value: String| {
        if !value.is_empty() {
            said.push_str(&format!("  {what:<9} {value}\n"));
        }
    };
    line("name", format!("{} {}", text(&plugin["name"]), text(&plugin["version"])).trim().to_owned());
    line("tags", tags(plugin));
    line("size", bytes(plugin["bytes"].as_u64().unwrap_or(0)));
    line("signed by", text(&plugin["signed_by"]).to_owned());
    terminal.print(&said)
}

fn ls(server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let plugins = ask(server, Method::GET, "/v1/plugins", Body::Nothing)?;
    if terminal.json {
        return terminal.print_json(&plugins);
    }
    let mut table = Table::new(&["plugin", "name", "version", "size", "tags", "signed by"]);
    for plugin in plugins.as_array().into_iter().flatten() {
        table.row([
            text(&plugin["digest"]).chars().take("sha256:0123456789ab".len()).collect(),
            text(&plugin["name"]).to_owned(),
            text(&plugin["version"]).to_owned(),
            bytes(plugin["bytes"].as_u64().unwrap_or(0)),
            tags(plugin),
            text(&plugin["signed_by"]).to_owned(),
        ]);
    }
    terminal.print(&table.render("", terminal.out))
}
