//! `cargo xtask test` and `cargo xtask ci`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::bindings::bindings;
use crate::conformance::{Options, conformance};
use crate::plugins::plugins;
use crate::steps::{Steps, cargo, say};
use crate::{crash, hostile, nexmark, planted, root, sdks, swaps, target};

/// Everything but what needs the network; `fast` leaves out the slow half.
pub(crate) fn test(fast: bool) -> anyhow::Result<()> {
    let root = root()?;
    let mut steps = Steps::new(&root, test_steps(&root, fast));
    run_tests(&root, &mut steps, fast)?;
    steps.summary();
    Ok(())
}

/// What must hold before a change is merged.
pub(crate) fn ci() -> anyhow::Result<()> {
    let root = root()?;
    let deny = answers(cargo(&root, &["deny", "--version"]));
    let guests = guests(&root);
    let total = 2 + 2 * usize::from(guests) + usize::from(deny) + test_steps(&root, false);
    let mut steps = Steps::new(&root, total);
    let plugins = root.join("plugins");

    steps.run("formatting", &mut cargo(&root, &["fmt", "--all", "--check"]))?;
    if guests {
        steps.run("formatting of the plugins", &mut cargo(&plugins, &["fmt", "--all", "--check"]))?;
    }
    if deny {
        steps.run("dependencies", &mut cargo(&root, &["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        say("cargo-deny is not installed: licences are still checked by the tidy tests");
    }
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.run("lints", &mut cargo(&root, &lints))?;
    if guests {
        steps.run("lints of the plugins", &mut cargo(&plugins, &lints))?;
    }
    run_tests(&root, &mut steps, false)?;
    steps.summary();
    Ok(())
}

fn test_steps(root: &Path, fast: bool) -> usize {
    3 + 3 * usize::from(!fast) + usize::from(guests(root)) + 5 * usize::from(guests(root) && !fast)
}

fn run_tests(root: &Path, steps: &mut Steps, fast: bool) -> anyhow::Result<()> {
    steps.act("plugins", "cargo xtask plugins", || plugins(false))?;
    steps.act("bindings are current", "cargo xtask bindings", || bindings(true))?;
    let nextest = answers(cargo(root, &["nextest", "--version"]));
    let mut arguments = if nextest { vec!["nextest", "run"] } else { vec!["test", "--lib", "--bins", "--tests"] };
    arguments.push("--workspace");
    if fast {
        arguments.extend(["--", "--skip", "slow_"]);
    }
    steps.run("tests", &mut cargo(root, &arguments))?;
    if !fast {
        // cargo-nextest leaves examples in documentation out.
        steps.run("documentation tests", &mut cargo(root, &["test", "--workspace", "--doc"]))?;
    }
    if !fast {
        let wasmill = target(root).join("debug/wasmill");
        steps.act("SDKs and templates", "cargo xtask sdks", || sdks::sdks(None, &wasmill))?;
        let suite = Options { language: None, json: false, table: false, offline: false, wasmill };
        steps.act("conformance of the SDKs", "cargo xtask conformance", || conformance(&suite))?;
    }
    if guests(root) && !fast {
        let wasmill = target(root).join("debug/wasmill");
        let check = || nexmark::check(None, 100_000, &wasmill);
        steps.act("NEXMark, held to the native floor", "cargo xtask nexmark", check)?;
        let crash = || crash::crash(100, 1, &[], &wasmill, false);
        steps.act("kills, held to an oracle", "cargo xtask crash", crash)?;
        let swaps = || swaps::swaps(12, 1, &wasmill, false);
        steps.act("swaps, held to an oracle", "cargo xtask swaps", swaps)?;
        let options = hostile::Options { rows: Vec::new(), quick: true, json: false, wasmill: wasmill.clone() };
        let hostile = || hostile::hostile(&options);
        steps.act("attacks, contained", "cargo xtask hostile --quick", hostile)?;
        let planted = || planted::planted(None, &wasmill, false);
        steps.act("planted bugs", "cargo xtask planted", planted)?;
    }
    if guests(root) {
        steps.run("tests of the plugins", &mut cargo(&root.join("plugins"), &["test", "--workspace"]))?;
    }
    Ok(())
}

fn guests(root: &Path) -> bool {
    root.join("plugins/Cargo.toml").is_file()
}

fn answers(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
