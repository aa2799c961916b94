//! Plugins of a service.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};
use wasmill_env::{Clock, RealClock};
use wasmill_wasm::InstanceLimits;

use super::jobs::{push, push_bytes};
use super::{ask, part, text};
use crate::failure::Failure;
use crate::oci::registry::{self, Reach};
use crate::oci::{PLUGIN_BYTES_MAX, Reference, layout};
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
    /// Get the bytes of a plugin; or have the service pull one from a registry
    ///
    /// `pull PLUGIN FILE` writes a plugin of the service to a file, `pull oci://… FILE` one of a registry, without a
    /// service. `pull oci://…` has the service pull it, which reaches what its tenant may reach.
    Pull {
        /// Its digest, or a NAME:TAG; or oci://HOST/REPOSITORY[:TAG][@sha256:HEX]
        plugin: String,
        /// The file to write
        file: Option<PathBuf>,
        /// Where the service pulls it: a NAME or NAME:TAG that stands for it from now on
        #[arg(long, visible_alias = "as", conflicts_with = "file")]
        name: Option<String>,
    },
    /// Put a plugin into an OCI image layout, or push it to a registry
    Export {
        /// Its digest or a NAME:TAG; or a .wasm file here, which needs no service
        plugin: String,
        /// The folder of the layout, made where there is none; or oci://HOST/REPOSITORY[:TAG]
        #[arg(long, value_name = "DIR|REFERENCE")]
        oci: String,
    },
    /// Send a plugin out of an OCI image layout, or of a registry, to the service
    Import {
        /// A name in the layout, or a digest of the plugin or of its manifest; without it, the only one
        plugin: Option<String>,
        /// The folder of the layout; or oci://HOST/REPOSITORY[:TAG][@sha256:HEX]
        #[arg(long, value_name = "DIR|REFERENCE")]
        oci: String,
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
        PluginCommand::Pull { plugin, file: None, name } => {
            if !Reference::is_meant(plugin) {
                return Err(Failure::wrong("where is the plugin to go?").hint("name a file behind it"));
            }
            let body = Body::Json(json!({"reference": plugin, "name": name}));
            one(&ask(server, Method::POST, "/v1/pulls", body)?, terminal)
        }
        PluginCommand::Pull { plugin, file: Some(file), .. } => {
            let runtime = crate::commands::small_runtime()?;
            let content = if Reference::is_meant(plugin) {
                runtime.block_on(pulled(plugin))?.into()
            } else {
                let client = server.client()?;
                runtime.block_on(client.fetch(&format!("{}/content", at(plugin))))?
            };
            std::fs::write(file, &content).map_err(|error| Failure::file("write", file, &error))?;
            let (shown, length) = (file.display(), content.len() as u64);
            if terminal.json {
                return terminal.print_json(&json!({"file": shown.to_string(), "bytes": length}));
            }
            terminal.print(&format!("{shown}: {}", bytes(length)))
        }
        PluginCommand::Export { plugin, oci } => export(plugin, oci, server, terminal),
        PluginCommand::Import { plugin, oci, name } => {
            let (bytes, named) = if Reference::is_meant(oci) {
                if plugin.is_some() {
                    return Err(Failure::wrong("a reference names one plugin already").hint("leave out the other name"));
                }
                (crate::commands::small_runtime()?.block_on(pulled(oci))?, None)
            } else {
                let found = layout::read(Path::new(oci), plugin.as_deref())?;
                (found.bytes, found.name)
            };
            let (client, name) = (server.client()?, name.as_ref().or(named.as_ref()));
            let sent = push_bytes(&client, bytes, name.map(String::as_str));
            one(&crate::commands::small_runtime()?.block_on(sent)?, terminal)
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

/// A plugin of a registry, by the rights of whoever runs the command.
async fn pulled(reference: &str) -> Result<Vec<u8>, Failure> {
    let reference: Reference = reference.parse().map_err(Failure::wrong)?;
    let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
    Ok(registry::pull(&reference, Reach::default(), PLUGIN_BYTES_MAX, &clock).await?.bytes)
}

fn export(plugin: &str, oci: &str, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let to: Option<Reference> = match Reference::is_meant(oci) {
        true => Some(oci.parse().map_err(Failure::wrong)?),
        false => None,
    };
    let runtime = crate::commands::small_runtime()?;
    let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
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
        let plugins = Plugins::new(terminal, Arc::clone(&clock))?;
        let bytes = Arc::from(content.as_ref());
        let loaded = plugins.load_bytes(&plugins::named(plugin), bytes, InstanceLimits::default()).await?;
        Ok::<_, Failure>(loaded.info().clone())
    })?;
    let manifest = match &to {
        Some(to) => runtime.block_on(registry::push(to, &content, &info.imports, &info.exports, &clock))?,
        None => layout::write(Path::new(oci), &content, name, &info.imports, &info.exports)?,
    };
    let plugin = info.digest;
    if terminal.json {
        let manifest = manifest.to_string();
        return terminal.print_json(&json!({
            "oci": oci, "plugin": plugin.to_string(), "manifest": manifest, "name": name,
        }));
    }
    terminal.print(&format!("{oci}: {plugin}, with the manifest {manifest}"))
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
