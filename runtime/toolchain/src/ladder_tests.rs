use super::*;

fn compiler(path: &str) -> Compiler {
    let version = Version { major: 1, minor: 95, patch: 0 };
    Compiler { rustc: path.into(), version, toolchain: Some("stable".into()), target: false, library: false }
}

/// A machine with a rustup compiler and a linker, and nothing for wasm.
fn bare() -> Facts {
    Facts {
        forced: None,
        offline: false,
        explicit: None,
        default: true,
        compilers: vec![compiler("/rustup/rustc")],
        linkers: vec!["/rustup/rust-lld".into()],
        rustup: true,
        packages: Packages::Root,
        tried: Vec::new(),
    }
}

fn packaged() -> Compiler {
    Compiler { toolchain: None, library: true, ..compiler("/usr/bin/rustc") }
}

fn refused(rung: Rung) -> Tried {
    Tried { rung, attempt: Attempt::Refused("403 forbidden".into()) }
}

fn done(rung: Rung) -> Tried {
    Tried { rung, attempt: Attempt::Done }
}

fn chosen(facts: &Facts) -> Choice {
    match decide(facts).step {
        Step::Use(choice) => choice,
        other => panic!("expected a choice, got {other:?}"),
    }
}

#[test]
fn named_compiler_is_used_without_search() {
    let mut facts = bare();
    facts.compilers[0].target = true;
    facts.explicit = Some(packaged());
    let choice = chosen(&facts);
    assert_eq!((choice.rung, choice.rustc.to_str()), (Rung::Explicit, Some("/usr/bin/rustc")));
    assert_eq!(choice.build_std, Some("/rustup/rust-lld".into()));

    facts.explicit = Some(Compiler { target: true, ..packaged() });
    assert_eq!(chosen(&facts).build_std, None);

    facts.explicit = Some(Compiler { library: false, ..packaged() });
    let decision = decide(&facts);
    assert_eq!(decision.step, Step::Fail);
    assert!(decision.passed[0].reason.contains("neither"), "{decision:?}");
}

#[test]
fn installed_target_comes_first() {
    let mut facts = bare();
    facts.compilers[0].target = true;
    facts.compilers.push(packaged());
    let choice = chosen(&facts);
    assert_eq!((choice.rung, choice.build_std), (Rung::Installed, None));
}

#[test]
fn target_of_another_compiler_is_not_the_default_one() {
    let mut facts = bare();
    facts.default = false;
    facts.compilers[0].target = true;
    facts.packages = Packages::Absent;
    assert_eq!(decide(&facts).step, Step::Fail);
}

#[test]
fn rustup_is_asked_for_the_default_toolchain() {
    assert_eq!(decide(&bare()).step, Step::AddTarget("stable".into()));
}

#[test]
fn rustup_that_succeeded_leaves_an_installed_target() {
    let mut facts = bare();
    facts.tried = vec![done(Rung::Rustup)];
    facts.compilers[0].target = true;
    assert_eq!(chosen(&facts).rung, Rung::Installed);
    facts.forced = Some(Rung::Rustup);
    assert_eq!(chosen(&facts).rung, Rung::Rustup);
}

#[test]
fn refused_rustup_goes_on_to_a_matching_pair() {
    let mut facts = bare();
    facts.tried = vec![refused(Rung::Rustup)];
    facts.compilers.push(packaged());
    let decision = decide(&facts);
    assert_eq!(decision.passed[1].reason, "refused: 403 forbidden");
    let choice = chosen(&facts);
    assert_eq!((choice.rung, choice.rustc.to_str()), (Rung::BuildStd, Some("/usr/bin/rustc")));
    assert_eq!(choice.build_std, Some("/rustup/rust-lld".into()));
}

#[test]
fn offline_uses_neither_rustup_nor_packages() {
    let mut facts = bare();
    facts.offline = true;
    let decision = decide(&facts);
    assert_eq!(decision.step, Step::Fail);
    assert_eq!(decision.passed.len(), 4);
    facts.compilers.push(packaged());
    assert_eq!(chosen(&facts).rung, Rung::BuildStd);
}

#[test]
fn old_compiler_is_passed_over() {
    let mut facts = bare();
    facts.compilers[0].version.minor = 84;
    facts.compilers[0].target = true;
    facts.compilers.push(packaged());
    let choice = chosen(&facts);
    assert_eq!((choice.rung, choice.rustc.to_str()), (Rung::BuildStd, Some("/usr/bin/rustc")));
}

#[test]
fn pair_without_linker_is_no_pair() {
    let mut facts = bare();
    facts.offline = true;
    facts.linkers.clear();
    facts.compilers.push(packaged());
    let decision = decide(&facts);
    assert_eq!(decision.step, Step::Fail);
    assert!(decision.passed[2].reason.contains("linker"), "{decision:?}");
}

#[test]
fn packages_are_the_last_rung_and_need_a_right() {
    let mut facts = bare();
    facts.tried = vec![refused(Rung::Rustup)];
    assert_eq!(decide(&facts).step, Step::InstallPackages { sudo: false });
    facts.packages = Packages::Sudo;
    assert_eq!(decide(&facts).step, Step::InstallPackages { sudo: true });
    for packages in [Packages::NoRight, Packages::Absent] {
        facts.packages = packages;
        assert_eq!(decide(&facts).step, Step::Fail);
    }
}

#[test]
fn installed_packages_lead_to_build_std() {
    let mut facts = bare();
    facts.tried = vec![refused(Rung::Rustup), done(Rung::Packages)];
    facts.compilers.push(packaged());
    assert_eq!(chosen(&facts).rung, Rung::Packages);
    facts.compilers.pop();
    assert_eq!(decide(&facts).step, Step::Fail, "never installed twice");
}

#[test]
fn machine_without_rust_gets_the_packages() {
    let mut facts = bare();
    facts.compilers.clear();
    facts.default = false;
    facts.rustup = false;
    assert_eq!(decide(&facts).step, Step::InstallPackages { sudo: false });
}

#[test]
fn forced_rung_is_the_only_one() {
    let mut facts = bare();
    facts.forced = Some(Rung::Installed);
    assert_eq!(decide(&facts).step, Step::Fail);
    facts.forced = Some(Rung::Rustup);
    assert_eq!(decide(&facts).step, Step::AddTarget("stable".into()));
    facts.tried = vec![refused(Rung::Rustup)];
    assert_eq!(decide(&facts).step, Step::Fail);
    facts.tried.clear();
    facts.forced = Some(Rung::BuildStd);
    facts.compilers[0].target = true;
    facts.compilers.push(packaged());
    assert_eq!(chosen(&facts).rung, Rung::BuildStd);
    facts.compilers.pop();
    assert_eq!(decide(&facts).step, Step::InstallPackages { sudo: false });
}

#[test]
fn release_line_is_read() {
    let verbose = "rustc 1.97.0-nightly (abc)\nhost: x\nrelease: 1.97.0-nightly\n";
    assert_eq!(Version::of(verbose).map(|v| v.to_string()), Some("1.97.0".into()));
    assert_eq!(Version::of("release: 1.x.0"), None);
    assert_eq!(Version::of(""), None);
}
