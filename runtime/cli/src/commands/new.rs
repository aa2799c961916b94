//! `wasmill new`: a plugin project that builds, with a test.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use wasmill_toolchain::Language;

use crate::failure::Failure;
use crate::template;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The folder to make; its last part names the plugin
    path: PathBuf,
    /// The language: rust, javascript, typescript, python, go, c or c++
    #[arg(long, value_name = "LANGUAGE")]
    lang: String,
}

pub(super) fn new(args: &NewArgs, terminal: &Terminal) -> Result<(), Failure> {
    let rust = matches!(args.lang.as_str(), "rust" | "rs");
    let language = Language::named(&args.lang);
    if !rust && language.is_none() {
        return Err(Failure::wrong(format!("there is no template for {:?}", args.lang))
            .hint("the languages are: rust, javascript, typescript, python, go, c, c++")
            .hint("any language that makes components can implement the package wasmill:operator@0.1.0"));
    }
    let (id, title) = language.map_or(("rust", "Rust"), |language| (language.name(), language.title()));
    let name = args.path.file_name().map(|name| name.display().to_string()).unwrap_or_default();
    template::check_name(&name).map_err(|reason| {
        Failure::wrong(format!("{name:?} cannot name a plugin: {reason}")).hint("write it like my-plugin")
    })?;
    make_room(&args.path)?;
    template::write(&args.path, &name, id).map_err(|error| Failure::file("write the project", &args.path, &error))?;

    let shown = args.path.display();
    if terminal.json {
        return terminal.print_json(&json!({"name": name, "path": shown.to_string(), "language": id}));
    }
    let step = |command: String, what: &str| format!("  {} {what}\n", terminal.out.bold(&format!("{command:<24}")));
    let mut text = format!("{} is a plugin project in {title}; next:\n", terminal.out.bold(&shown.to_string()));
    text.push_str(&format!("  {}\n", terminal.out.bold(&format!("cd {shown}"))));
    let test = language.map_or("cargo test", unit_test);
    text.push_str(&step(test.into(), &format!("the operator as plain {title}")));
    text.push_str(&step("wasmill build".into(), "a component"));
    text.push_str(&step("wasmill test".into(), "its golden cases, on the real host"));
    text.push_str(&step("wasmill run job.toml".into(), "a job with it"));
    terminal.print(&text)
}

/// What runs the unit test of a template.
fn unit_test(language: Language) -> &'static str {
    match language {
        Language::C | Language::Cpp => "make test",
        Language::Go => "go test .",
        Language::Javascript | Language::Typescript => "npm test",
        Language::Python => "python3 -m pytest",
    }
}

/// Makes the folder. One that holds anything is left alone.
fn make_room(path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file("make", path, &error);
    match std::fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                Err(Failure::wrong(format!("{} exists and is not empty", path.display())).hint("take another name"))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir_all(path).map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(Failure::wrong(format!("{} exists and is a file", path.display())).hint("take another name"))
        }
        Err(error) => Err(failed(error)),
    }
}
