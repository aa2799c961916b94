use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{fs, io};

use cargo_metadata::{CrateType, Message, MetadataCommand};

use crate::climb::climb;
use crate::component::{componentize, write_if_changed};
use crate::error::Error;
use crate::ladder::{Choice, TARGET};
use crate::probe::Search;

/// Flags of the host's build, and wrappers, have no business in a plugin's.
const UNSET: [&str; 7] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_TARGET",
];
/// Vectors of 16 bytes: every host of ours has them, and they change no result.
const RUSTFLAGS: (&str, &str) = ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-Ctarget-feature=+simd128");
const LINKER: &str = "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER";

/// What to build, and where to put it.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Packages of the workspace; none means what `cargo build` in the folder would take.
    pub packages: Vec<String>,
    /// Where components go; `plugins` in cargo's target folder unless set.
    pub out: Option<PathBuf>,
    /// No progress from cargo; its errors are shown.
    pub quiet: bool,
}

/// A plugin that was built.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its package.
    pub name: String,
    /// The folder of its package.
    pub dir: PathBuf,
    /// The component.
    pub component: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Whether the component differs from the one of the last build.
    pub changed: bool,
}

/// Plugins, in the order of their names, and what compiled them.
#[derive(Debug, Clone)]
pub struct Built {
    /// The toolchain.
    pub choice: Choice,
    /// At least one.
    pub artifacts: Vec<Artifact>,
}

/// Builds the plugins of the package or workspace in `search.dir`. Cargo's messages go to standard
/// error; `say` gets one line for the toolchain, and one before anything slow.
///
/// # Errors
/// No toolchain, a folder that is no package, code that does not compile, no plugin in it.
pub fn build_rust(search: &Search, options: &BuildOptions, say: &mut dyn FnMut(&str)) -> Result<Built, Error> {
    let metadata = MetadataCommand::new()
        .cargo_path(&search.cargo)
        .manifest_path(search.dir.join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|source| Error::Manifest { dir: search.dir.clone(), source })?;
    let target = metadata.target_directory.as_std_path();
    let choice = climb(search, target, say)?;
    if choice.build_std.is_some() && !target.join(TARGET).join("release").is_dir() {
        say("building the standard library, about two minutes the first time");
    }

    let modules = cargo(search, &choice, options)?;
    let out = options.out.clone().unwrap_or_else(|| target.join("plugins"));
    let mut artifacts = Vec::new();
    for (id, module) in modules {
        // An artifact of a dependency is not ours.
        let Some(package) = metadata.packages.iter().find(|package| package.id == id) else { continue };
        let name = package.name.to_string();
        let core = fs::read(&module).map_err(|source| Error::File { act: "read", path: module, source })?;
        let bytes = componentize(&name, &core)?;
        let component = out.join(format!("{name}.wasm"));
        let changed = write_if_changed(&component, &bytes)?;
        let dir = package.manifest_path.parent().map_or_else(PathBuf::new, |dir| dir.as_std_path().to_owned());
        artifacts.push(Artifact { name, dir, component, bytes: bytes.len() as u64, changed });
    }
    if artifacts.is_empty() {
        return Err(Error::NoPlugin { dir: search.dir.clone() });
    }
    artifacts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Built { choice, artifacts })
}

type Modules = Vec<(cargo_metadata::PackageId, PathBuf)>;

fn cargo(search: &Search, choice: &Choice, options: &BuildOptions) -> Result<Modules, Error> {
    let failed = |source: io::Error| Error::Run { program: search.cargo.display().to_string(), source };
    let mut command = command(search, choice, options);
    let mut child = command.spawn().map_err(failed)?;
    let stdout = child.stdout.take().ok_or_else(|| failed(io::Error::other("no standard output")))?;
    let mut modules = Modules::new();
    let mut broken = None;
    for message in Message::parse_stream(BufReader::new(stdout)) {
        match message {
            Ok(Message::CompilerArtifact(artifact)) if artifact.target.crate_types.contains(&CrateType::CDyLib) => {
                let file = artifact.filenames.iter().find(|file| file.extension() == Some("wasm"));
                modules.extend(file.map(|file| (artifact.package_id, file.as_std_path().to_owned())));
            }
            Ok(_) => {}
            Err(error) => broken = Some(error),
        }
        if broken.is_some() {
            break;
        }
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(Error::Build { dir: search.dir.clone(), status });
    }
    broken.map_or(Ok(modules), |error| Err(failed(error)))
}

fn command(search: &Search, choice: &Choice, options: &BuildOptions) -> Command {
    let mut command = search.command(&search.cargo);
    command.args(["build", "--lib", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    command.env("RUSTC", &choice.rustc).stdin(Stdio::null()).stdout(Stdio::piped());
    for variable in UNSET {
        command.env_remove(variable);
    }
    command.env(RUSTFLAGS.0, RUSTFLAGS.1);
    if let Some(linker) = &choice.build_std {
        command.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1").env(LINKER, linker);
    }
    if search.offline {
        command.arg("--offline");
    }
    if options.quiet {
        command.arg("--quiet");
    }
    for package in &options.packages {
        command.arg("--package").arg(package);
    }
    command
}
