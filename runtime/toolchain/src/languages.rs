//! From a project in another language to a component: which programs run, on which files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::adapter;
use crate::build::Artifact;
use crate::component::{componentize, write_if_changed};
use crate::error::Error;
use crate::project::{Language, Project, World};
use crate::stamp::Stamp;
use crate::tools::{self, Tools};

/// Names the C compiler: a clang that has a WASI library. Without it, zig from PyPI compiles.
pub const CLANG_VARIABLE: &str = "WASMILL_CLANG";
/// The standards that C and C++ operators are compiled as.
const C_STANDARD: &str = "-std=c17";
const CPP_STANDARD: &str = "-std=c++20";

/// Builds a project to `out`, or to `target/plugins` in its folder, unless nothing has changed since. What compilers say goes to
/// standard error; `say` gets a line before anything slow.
///
/// # Errors
/// A tool that cannot be had, code that does not compile, a module that is no plugin.
pub fn build_project(
    project: &Project,
    tools: &Tools,
    out: Option<&Path>,
    say: &mut dyn FnMut(&str),
) -> Result<Artifact, Error> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| Error::File { act: "find", path: path.to_owned(), source })
    };
    let project = &Project { dir: absolute(&project.dir)?, sdk: absolute(&project.sdk)?, ..project.clone() };
    let work = project.work();
    fs::create_dir_all(&work).map_err(|source| Error::File { act: "make", path: work.clone(), source })?;
    let out = out.map_or_else(|| project.dir.join("target/plugins"), Path::to_owned);
    let component = out.join(format!("{}.wasm", project.name));
    let (name, dir, stamp) = (project.name.clone(), project.dir.clone(), Stamp::of(project)?);
    if let Some(bytes) = stamp.unchanged(&component) {
        return Ok(Artifact { name, dir, component, bytes, changed: false });
    }
    let build = Build { project, tools, work };
    let bytes = match project.language {
        Language::C | Language::Cpp => build.c(say)?,
        Language::Go => build.go(say)?,
        Language::Javascript | Language::Typescript => build.javascript(say)?,
        Language::Python => build.python(say)?,
    };
    let changed = write_if_changed(&component, &bytes)?;
    stamp.keep(&bytes)?;
    Ok(Artifact { name, dir, component, bytes: bytes.len() as u64, changed })
}

struct Build<'a> {
    project: &'a Project,
    tools: &'a Tools,
    work: PathBuf,
}

impl Build<'_> {
    fn run(&self, command: &mut Command) -> Result<(), Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let said = command.current_dir(&self.project.dir).stdin(Stdio::null()).output();
        let said = said.map_err(|source| Error::Run { program: program.clone(), source })?;
        if said.status.success() {
            return Ok(());
        }
        let text = [said.stdout, said.stderr].concat();
        Err(Error::Compile {
            language: self.project.language.title(),
            dir: self.project.dir.clone(),
            status: said.status,
            said: String::from_utf8_lossy(&text).trim_end().to_owned(),
        })
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        fs::read(path).map_err(|source| Error::File { act: "read", path: path.to_owned(), source })
    }

    fn generate(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.work.join(name);
        write_if_changed(&path, text.as_bytes())?;
        Ok(path)
    }

    /// The WIT that tools read: one file in a folder.
    fn wit(&self) -> Result<PathBuf, Error> {
        Ok(self.generate("wit/operator.wit", adapter::WIT)?.parent().unwrap_or(&self.work).to_owned())
    }

    fn c(&self, say: &mut dyn FnMut(&str)) -> Result<Vec<u8>, Error> {
        let clang = std::env::var_os(CLANG_VARIABLE).filter(|clang| !clang.is_empty());
        let zig = if clang.is_some() { PathBuf::new() } else { self.tools.get(tools::ZIG, say)? };
        let cache = self.tools.dir.join("zig-cache");
        let compiler = |cpp: bool| match &clang {
            Some(clang) => {
                let mut command = Command::new(clang);
                command.args(["--target=wasm32-wasi"]).args(cpp.then_some("--driver-mode=g++"));
                command
            }
            None => {
                let mut command = Tools::python(&zig, &["-m", "ziglang"]);
                command.env("ZIG_GLOBAL_CACHE_DIR", &cache).env("ZIG_LOCAL_CACHE_DIR", self.work.join("zig"));
                command.arg(if cpp { "c++" } else { "cc" }).arg("-target").arg("wasm32-wasi");
                command
            }
        };
        if clang.is_none() && !cache.is_dir() {
            say("building the C library, about half a minute the first time");
        }
        let sdk = self.project.own_sdk();
        let bindings = sdk.join("bindings").join(self.project.world.name());
        let includes = [sdk.join("include"), bindings.clone()].map(|folder| format!("-I{}", folder.display()));
        let names = [("NAME", &self.project.name), ("VERSION", &self.project.version)]
            .map(|(what, text)| format!("-DWASMILL_PLUGIN_{what}=\"{text}\""));
        let parts: &[&str] = match self.project.world {
            World::Stateless => &["common.c", "operator.c", "stateless.c"],
            World::Stateful => &["common.c", "operator.c", "state.c"],
            World::Windowed => &["common.c", "aggregate.c"],
        };
        let stateful = (self.project.world == World::Stateful).then_some("-DWASMILL_STATEFUL");
        let cpp = self.project.language == Language::Cpp;
        let mut objects = Vec::new();
        let mut sources =
            vec![(bindings.join("bindings.c"), false), (self.project.dir.join(&self.project.source), cpp)];
        sources.extend(parts.iter().map(|name| (sdk.join("src").join(name), false)));
        for (source, cpp) in sources {
            let object =
                self.work.join(source.file_name().unwrap_or_default()).with_extension(if cpp { "cc.o" } else { "o" });
            let mut command = compiler(cpp);
            command.arg("-c").args(["-O2", "-g0", "-Wall"]).arg(if cpp { CPP_STANDARD } else { C_STANDARD });
            command.args(cpp.then_some(["-fno-exceptions", "-fno-rtti"]).into_iter().flatten());
            command.args(&includes).args(&names).args(stateful).arg(&source).arg("-o").arg(&object);
            self.run(&mut command)?;
            objects.push(object);
        }
        let module = self.work.join("module.wasm");
        let mut link = compiler(cpp);
        // Names of functions stay, for the stack of a trap.
        link.args(["-O2", "-mexec-model=reactor", "-Wl,-z,stack-size=262144", "-Wl,--strip-debug"])
            .args(&objects)
            .arg("-o")
            .arg(&module);
        self.run(&mut link)?;
        adapter::encode(&self.project.name, &self.read(&module)?, self.project.world)
    }

    fn go(&self, say: &mut dyn FnMut(&str)) -> Result<Vec<u8>, Error> {
        let go = self.tools.get(tools::GO, say)?;
        let sdk = self.project.own_sdk();
        let world = self.project.world.name();
        // The generator's layout has one module for bindings and what implements their exports, so
        // the module of the build is put together from the SDK's copy.
        copy(&sdk.join("bindings").join(world), &self.work.join("go"))?;
        copy(&sdk.join("component").join(world), &self.work.join("go"))?;
        let module = fs::read_to_string(self.project.dir.join("go.mod")).unwrap_or_default();
        let Some(module) = module.lines().find_map(|line| line.strip_prefix("module ")) else {
            let reason = "there is no line `module NAME` in go.mod beside it".to_owned();
            return Err(Error::Project { path: self.project.dir.join(crate::project::MANIFEST), reason });
        };
        let module = module.trim();
        let manifest = format!(
            "module wit_component\n\ngo 1.25\n\nrequire (\n\tgo.bytecodealliance.org/pkg v0.2.3\n\twasmill v0.0.0\n\t{module} v0.0.0\n)\n\n\
             replace (\n\tgo.bytecodealliance.org/pkg => {sdk}/bindings/runtime\n\twasmill => {sdk}/wasmill\n\t{module} => {dir}\n)\n",
            sdk = sdk.display(),
            dir = self.project.dir.display(),
        );
        self.generate("go/go.mod", &manifest)?;
        let (name, version) = (&self.project.name, &self.project.version);
        self.generate(
            "go/plugin/plugin.go",
            &format!("// Package plugin is generated: it names the operator of this build.\npackage plugin\n\nimport operator \"{module}\"\n\n// What the component exports.\nvar (\n\tName    = {name:?}\n\tVersion = {version:?}\n\tPlugin  = operator.Plugin\n)\n"),
        )?;
        let core = self.work.join("module.wasm");
        let mut command = Command::new(go.join("go/bin/go"));
        command.arg("-C").arg(self.work.join("go")).args(["build", "-buildmode=c-shared"]);
        command.arg("-ldflags=-s -w -checklinkname=0").arg("-o").arg(&core).arg(".");
        for (name, value) in [
            ("GOOS", "wasip1"),
            ("GOARCH", "wasm"),
            ("GOFLAGS", "-mod=mod"),
            ("GOTOOLCHAIN", "local"),
            ("GOWORK", "off"),
        ] {
            command.env(name, value);
        }
        command.env("GOCACHE", self.tools.dir.join("go-cache"));
        if self.tools.offline {
            command.env("GOPROXY", "off");
        }
        self.run(&mut command)?;
        adapter::encode(&self.project.name, &self.read(&core)?, self.project.world)
    }

    fn javascript(&self, say: &mut dyn FnMut(&str)) -> Result<Vec<u8>, Error> {
        let esbuild = self.tools.get(tools::ESBUILD, say)?;
        let qjs = self.tools.get(tools::COMPONENTIZE_QJS, say)?;
        let sdk = self.project.own_sdk();
        let glue = sdk.join("component").join(format!("{}.js", self.project.world.name()));
        let operator = self.project.dir.join(&self.project.source);
        let entry = self.generate(
            "entry.js",
            &format!(
                "import plugin from {operator:?};\nimport {{ register }} from {glue:?};\n\
                 register(plugin, {{ name: {name:?}, version: {version:?} }});\nexport * from {glue:?};\n",
                name = self.project.name,
                version = self.project.version,
            ),
        )?;
        let bundle = self.work.join("bundle.js");
        let mut command = Tools::node(&esbuild, "esbuild");
        command.arg(entry).args(["--bundle", "--format=esm", "--platform=neutral", "--log-level=warning"]);
        command.arg("--external:wasmill:operator/*").arg(format!("--alias:wasmill={}", sdk.join("index.js").display()));
        command.arg(format!("--outfile={}", bundle.display()));
        self.run(&mut command)?;
        let component = self.work.join("component.wasm");
        let mut command = Tools::node(&qjs, "componentize-qjs");
        command.arg("-w").arg(self.wit()?).args(["-n", self.project.world.name(), "--sync", "--stub-wasi"]);
        command.arg("-j").arg(&bundle).arg("-o").arg(&component);
        self.run(&mut command)?;
        componentize(&self.project.name, &self.read(&component)?)
    }

    fn python(&self, say: &mut dyn FnMut(&str)) -> Result<Vec<u8>, Error> {
        let tool = self.tools.get(tools::COMPONENTIZE_PY, say)?;
        let sdk = self.project.own_sdk();
        let module = self.project.source.with_extension("");
        let module = module.display().to_string().replace('/', ".");
        let world = self.project.world.name();
        let entry = format!(
            "from wasmill.component import {world} as component\n\nimport {module}\n\n\
             component.register({name:?}, {version:?}, {module})\nfrom wasmill.component.{world} import *\n",
            name = self.project.name,
            version = self.project.version,
        );
        self.generate("app/wasmill_app.py", &entry)?;
        let component = self.work.join("component.wasm");
        let mut command = Tools::python(&tool, &["bin/componentize-py"]);
        command.arg("-d").arg(self.wit()?).args(["-w", world, "componentize", "wasmill_app", "--stub-wasi"]);
        let site = self.project.dir.join("site-packages");
        let paths = [self.work.join("app"), self.project.dir.clone(), sdk, site];
        for path in paths.iter().filter(|path| path.is_dir()) {
            command.arg("-p").arg(path);
        }
        command.arg("-o").arg(&component);
        self.run(&mut command)?;
        componentize(&self.project.name, &self.read(&component)?)
    }
}

/// Copies a folder; files that are the same stay untouched.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { act: "read", path: from.to_owned(), source };
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &place)?;
        } else {
            write_if_changed(&place, &fs::read(&path).map_err(failed)?)?;
        }
    }
    Ok(())
}
