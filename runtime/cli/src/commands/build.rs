//! `wasmill build`: from a plugin project to a component.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use wasmill_env::RealClock;
use wasmill_spec::PluginRef;
use wasmill_toolchain::{Artifact, BuildOptions, MANIFEST, Project, Search, Tools, build_project, build_rust};
use wasmill_wasm::InstanceLimits;

use crate::data_dir;
use crate::failure::Failure;
use crate::plugins::Plugins;
use crate::terminal::{Terminal, bytes};

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// The folder of the plugin, with its Cargo.toml or plugin.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where the component goes, `target/plugins` unless given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Use no network: no download of crates, no installation of a compiler
    #[arg(long)]
    offline: bool,
}

pub(super) fn build(args: &BuildArgs, terminal: &Terminal) -> Result<(), Failure> {
    let components = components(args, terminal)?;
    if terminal.json {
        return terminal.print_json(&json!({"plugins": components.iter().map(Component::to_json).collect::<Vec<_>>()}));
    }
    for component in &components {
        let Component { name, path, size, digest, .. } = component;
        terminal.print(&format!("{}: {}, {}, {digest}", terminal.out.bold(name), path.display(), bytes(*size)))?;
    }
    Ok(())
}

/// A plugin that was built and that the host accepts.
pub(super) struct Component {
    name: String,
    pub(super) path: PathBuf,
    /// The folder of the package.
    pub(super) dir: PathBuf,
    size: u64,
    digest: String,
}

impl Component {
    fn to_json(&self) -> serde_json::Value {
        json!({"name": self.name, "path": self.path.display().to_string(), "bytes": self.size, "digest": self.digest})
    }
}

/// Builds the project, and checks that this host would run what comes out.
pub(super) fn components(args: &BuildArgs, terminal: &Terminal) -> Result<Vec<Component>, Failure> {
    let artifacts = if Project::is_in(&args.dir) { project(args, terminal)? } else { cargo(args, terminal)? };
    super::small_runtime()?.block_on(async {
        let plugins = Plugins::new(terminal, Arc::new(RealClock::default()))?;
        let mut components = Vec::new();
        for artifact in artifacts {
            let named = PluginRef::Path(artifact.component.display().to_string());
            let loaded = plugins.load(&named, &artifact.component, None, InstanceLimits::default()).await?;
            let here = std::env::current_dir().unwrap_or_default();
            components.push(Component {
                name: artifact.name,
                path: artifact.component.strip_prefix(here).unwrap_or(&artifact.component).to_owned(),
                dir: artifact.dir,
                size: artifact.bytes,
                digest: loaded.info().digest.to_string(),
            });
        }
        Ok(components)
    })
}

fn failed(error: &wasmill_toolchain::Error) -> Failure {
    Failure::of(error.kind(), error)
}

/// Builds a project in another language than Rust.
fn project(args: &BuildArgs, terminal: &Terminal) -> Result<Vec<Artifact>, Failure> {
    let project = Project::read(&args.dir).map_err(|error| failed(&error))?;
    let tools = Tools { dir: data_dir::tools_dir()?, offline: args.offline };
    terminal.note(&format!("{}: {}, world {}", project.name, project.language, project.world.name()));
    let built = build_project(&project, &tools, args.out.as_deref(), &mut |line| terminal.say(line));
    Ok(vec![built.map_err(|error| failed(&error))?])
}

/// Builds the plugins of a cargo package or workspace.
fn cargo(args: &BuildArgs, terminal: &Terminal) -> Result<Vec<Artifact>, Failure> {
    if !args.dir.join("Cargo.toml").is_file() {
        return Err(Failure::wrong(format!(
            "{} is no plugin project: it has neither Cargo.toml nor {MANIFEST}",
            args.dir.display()
        ))
        .hint("name the folder of the plugin, or start one with `wasmill new NAME --lang LANGUAGE`"));
    }
    let dir = std::path::absolute(&args.dir).map_err(|error| Failure::file("find", &args.dir, &error))?;
    let search = Search::from_env(&dir, args.offline).map_err(|error| failed(&error))?;
    let options = BuildOptions { packages: Vec::new(), out: args.out.clone(), quiet: terminal.json };
    let built = build_rust(&search, &options, &mut |line| terminal.note(line)).map_err(|error| failed(&error))?;
    Ok(built.artifacts)
}

impl BuildArgs {
    /// The project in a folder, with nothing special.
    pub(super) fn of(dir: PathBuf) -> Self {
        Self { dir, out: None, offline: false }
    }
}
