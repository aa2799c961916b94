//! Plugins of a service.

use std::path::PathBuf;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::jobs::push;
use super::{ask, part, text};
use crate::failure::Failure;
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
