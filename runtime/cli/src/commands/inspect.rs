//! `wasmill inspect`: what a plugin is and what it asks for.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use wasmill_env::RealClock;
use wasmill_model::{Clock, ColumnSet, Descriptor, SpaceDescriptor};
use wasmill_spec::Period;
use wasmill_wasm::{InstanceLimits, LoadedPlugin, PluginInfo};

use crate::failure::Failure;
use crate::plugins::{self, Plugins};
use crate::terminal::{Terminal, bytes};

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// A .wasm file, or std:NAME
    plugin: String,
    /// The configuration to describe itself under, as JSON
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
}

pub(super) fn inspect(args: &InspectArgs, terminal: &Terminal) -> Result<(), Failure> {
    super::small_runtime()?.block_on(async {
        let plugins = Plugins::new(terminal, Arc::new(RealClock::default()))?;
        let named = plugins::named(&args.plugin);
        let plugin = plugins.load(&named, Path::new(&args.plugin), None, InstanceLimits::default()).await?;
        let described = describe(&plugin, args.config.as_deref()).await;
        let shown = if terminal.json {
            terminal.print_json(&to_json(plugin.info(), described.as_ref()))
        } else {
            terminal.print(&to_text(terminal, plugin.info(), described.as_ref()))
        };
        shown.and(match described {
            // A plugin may need a configuration in order to say more: that is no failure of it.
            Err(_) if args.config.is_some() => Err(Failure::Reported { code: crate::failure::FAILED }),
            _ => Ok(()),
        })
    })
}

async fn describe(plugin: &LoadedPlugin, config: Option<&str>) -> Result<Descriptor, String> {
    let described = match config {
        None => plugin.describe().await,
        Some(config) => plugin.configure(config.as_bytes().to_vec()).await.map(|plugin| plugin.descriptor().clone()),
    };
    described.map_err(|error| error.to_string())
}

fn kind(info: &PluginInfo) -> &'static str {
    if info.aggregate { "aggregate" } else { "operator" }
}

fn columns(columns: ColumnSet) -> Vec<&'static str> {
    [("times", columns.times), ("keys", columns.keys), ("values", columns.values)]
        .into_iter()
        .filter_map(|(name, wanted)| wanted.then_some(name))
        .collect()
}

fn space(space: &SpaceDescriptor) -> String {
    let ttl = space.ttl.map_or(String::new(), |ttl| {
        let clock = match ttl.clock {
            Clock::Event => "event time",
            Clock::Processing => "wall time",
        };
        format!(", entries live {} of {clock}", Period::from_micros(ttl.micros))
    });
    format!("{} (schema {}{ttl})", space.name, space.schema_version)
}

fn to_json(info: &PluginInfo, described: Result<&Descriptor, &String>) -> Value {
    json!({
        "descriptor": described.ok(),
        "describe_error": described.err(),
        "kind": kind(info),
        "timed": info.timed,
        "digest": info.digest.to_string(),
        "bytes": info.bytes,
        "native_bytes": info.native_bytes,
        "imports": info.imports,
        "exports": info.exports,
        "languages": info.languages,
        "tools": info.tools,
        "componentized": info.componentized,
    })
}

fn to_text(terminal: &Terminal, info: &PluginInfo, described: Result<&Descriptor, &String>) -> String {
    let style = terminal.out;
    let mut text = String::new();
    if let Ok(plugin) = described {
        text.push_str(&format!("{} {}, {}\n", style.bold(&plugin.name), plugin.version, kind(info)));
    } else {
        text.push_str(&format!("{}\n", kind(info)));
    }
    let mut line = |what: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {what:<9} {value}\n"));
        }
    };
    match described {
        Ok(plugin) => {
            line("inputs", plugin.inputs.join(", "));
            line("outputs", plugin.outputs.join(", "));
            line("columns", columns(plugin.columns).join(", "));
            line("state", plugin.spaces.iter().map(space).collect::<Vec<_>>().join("; "));
            if plugin.watermarks {
                line("hears", "every watermark".into());
            }
        }
        Err(error) => line("says", style.warning(error)),
    }
    line("imports", info.imports.join(", "));
    line("exports", info.exports.join(", "));
    line("written", info.languages.join(", "));
    line("built", info.tools.join(", "));
    let form = if info.componentized { " (a core module, made a component)" } else { "" };
    line("size", format!("{}{form}, compiled {}", bytes(info.bytes), bytes(info.native_bytes)));
    line("digest", info.digest.to_string());
    text
}
