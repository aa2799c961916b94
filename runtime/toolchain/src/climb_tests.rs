//! Whole machines made of shell scripts in a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

struct Machine {
    root: TempDir,
    search: Search,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let bin = root.path().join("bin");
        fs::create_dir_all(&bin).expect("a folder");
        let search = Search {
            dir: root.path().to_owned(),
            offline: false,
            forced: None,
            rustc: None,
            linker: None,
            path: bin.into_os_string(),
            cargo: "cargo".into(),
        };
        Self { root, search }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    fn file(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permits");
    }

    fn script(&self, relative: &str, body: &str) {
        self.file(relative, &format!("#!/bin/sh\n{body}\n"));
    }

    /// A `rustc` at `relative` that says its system root is `sysroot`.
    fn compiler(&self, relative: &str, sysroot: &str) {
        self.script(relative, &compiler_script(&self.path(sysroot)));
    }

    /// A rustup whose default toolchain lacks the target, and a linker.
    fn rustup(&self, target_add: &str) {
        let home = self.path("home");
        self.script(
            "bin/rustup",
            &format!(
                "case \"$1\" in show) echo '{}';; target) echo add >> '{}'; {target_add};; esac",
                home.display(),
                self.path("asked").display()
            ),
        );
        self.compiler("bin/rustc", "home/toolchains/stable");
        self.compiler("home/toolchains/stable/bin/rustc", "home/toolchains/stable");
        self.script("home/toolchains/stable/lib/rustlib/host/bin/rust-lld", "exit 1");
    }

    fn climb(&self) -> (Result<Choice, Error>, Vec<String>) {
        let mut lines = Vec::new();
        let choice = climb(&self.search, &self.path("target"), &mut |line| lines.push(line.to_owned()));
        (choice, lines)
    }

    fn asked(&self) -> usize {
        fs::read_to_string(self.path("asked")).map_or(0, |text| text.lines().count())
    }
}

fn compiler_script(sysroot: &Path) -> String {
    let sysroot = sysroot.display();
    format!(
        "case \"$*\" in\n\
         -vV) echo 'rustc 1.96.0'; echo 'release: 1.96.0';;\n\
         *sysroot*) echo '{sysroot}';;\n\
         *target-libdir*) echo '{sysroot}/lib/rustlib/{TARGET}/lib';;\n\
         esac"
    )
}

const LIBRARY: &str = "lib/rustlib/src/rust/library/std/Cargo.toml";

#[test]
fn installed_target_needs_nothing_else() {
    let machine = Machine::new();
    machine.rustup("exit 1");
    machine.file(&format!("home/toolchains/stable/lib/rustlib/{TARGET}/lib/libstd-1.rlib"), "");
    let (choice, lines) = machine.climb();
    assert_eq!(choice.expect("found").rung, Rung::Installed);
    assert_eq!((lines.len(), machine.asked()), (1, 0));
}

#[test]
fn rustup_adds_the_target() {
    let machine = Machine::new();
    let library = machine.path(&format!("home/toolchains/stable/lib/rustlib/{TARGET}/lib"));
    machine.rustup(&format!("/bin/mkdir -p '{0}'; : > '{0}/libstd-1.rlib'", library.display()));
    let (choice, lines) = machine.climb();
    let choice = choice.expect("found");
    assert_eq!((choice.rung, choice.build_std), (Rung::Installed, None));
    assert!(lines[0].contains("--toolchain stable"), "{lines:?}");
}

#[test]
fn refused_rustup_is_asked_once_and_the_pair_remembered() {
    let mut machine = Machine::new();
    machine.rustup("echo 'error: 403 from the server' >&2; exit 1");
    machine.compiler("usr/bin/rustc", "usr");
    machine.file(&format!("usr/{LIBRARY}"), "");
    let paths = [machine.path("bin"), machine.path("usr/bin")];
    machine.search.path = std::env::join_paths(paths).expect("joins");
    let (choice, lines) = machine.climb();
    let choice = choice.expect("found");
    assert_eq!((choice.rung, &choice.rustc), (Rung::BuildStd, &machine.path("usr/bin/rustc")));
    assert!(choice.build_std.as_ref().is_some_and(|linker| linker.ends_with("rust-lld")));
    assert!(lines[1].contains("403 from the server"), "{lines:?}");
    assert_eq!(machine.asked(), 1);

    let (again, lines) = machine.climb();
    assert_eq!((again.expect("found"), machine.asked()), (choice, 1));
    assert!(lines[0].ends_with("(as before)"), "{lines:?}");

    // What is remembered must still be there.
    fs::remove_file(machine.path("usr/bin/rustc")).expect("removes");
    assert!(matches!(machine.climb().0, Err(Error::NoToolchain(_))));
}

#[test]
fn packages_are_installed_after_saying_so() {
    let machine = Machine::new();
    machine.script("bin/id", "echo 0");
    let rustc = machine.path("bin/rustc");
    let script = compiler_script(&machine.path("usr"));
    machine.file("script", &format!("#!/bin/sh\n{script}\n"));
    let library = machine.path(&format!("usr/{LIBRARY}"));
    machine.script(
        "bin/apt-get",
        &format!(
            "if [ \"$1\" = update ]; then : > '{lists}'; exit 0; fi\n\
             [ -f '{lists}' ] || exit 100\n\
             /bin/cp '{script}' '{rustc}'; /bin/chmod +x '{rustc}'\n\
             /bin/mkdir -p '{folder}'; : > '{library}'; : > '{linker}'",
            lists = machine.path("lists").display(),
            script = machine.path("script").display(),
            rustc = rustc.display(),
            folder = library.parent().expect("a parent").display(),
            library = library.display(),
            linker = machine.path("bin/wasm-ld-19").display(),
        ),
    );
    let (choice, lines) = machine.climb();
    let choice = choice.expect("found");
    assert_eq!((choice.rung, choice.rustc), (Rung::Packages, rustc));
    assert!(lines[0].contains("rustc-web rust-web-src lld-19"), "{lines:?}");
}

#[test]
fn empty_machine_fails_with_the_commands_that_would_help() {
    let machine = Machine::new();
    let error = machine.climb().0.expect_err("nothing is there").to_string();
    for command in ["rustup target add", "rustup component add rust-src", "apt-get install rustc-web"] {
        assert!(error.contains(command), "{error}");
    }
    assert_eq!(machine.climb().0.expect_err("nothing").kind(), wasmill_model::ErrorKind::Config);
}

#[test]
fn named_compiler_that_does_not_answer_is_an_error() {
    let mut machine = Machine::new();
    machine.search.rustc = Some(machine.path("no/rustc"));
    assert!(matches!(machine.climb().0, Err(Error::Variable { .. })));
}
