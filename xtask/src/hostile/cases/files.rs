//! Files that somebody has changed, and input that means harm, before `wasmill run` and the service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use wait4::Wait4;

use super::super::guest::Guest;
use super::super::lab::{Lab, through};
use super::{Case, case};
use crate::crash::Random;

/// A folder with a job that copies `in.jsonl` to `out.jsonl` through `plugin.wasm`.
fn folder(lab: &Lab, name: &str, input: &str) -> anyhow::Result<PathBuf> {
    let folder = lab.folder.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let job = format!(
        "name = \"evil\"\n[source.in]\nconnector = \"file\"\npath = \"{input}\"\nkey = \"/a/b\"\n\
         [stage.work]\nplugin = \"plugin.wasm\"\ninput = \"in\"\n\
         [sink.out]\nconnector = \"file\"\npath = \"out.jsonl\"\ninput = \"work\"\n"
    );
    fs::write(folder.join("job.toml"), job)?;
    fs::write(folder.join("in.jsonl"), "{\"a\":{\"b\":1}}\n{\"a\":{\"b\":2}}\n")?;
    fs::write(folder.join("plugin.wasm"), Guest::named("unchanged").module())?;
    Ok(folder)
}

/// Runs a job, and returns how it ended and the most memory it had.
fn measured(lab: &Lab, folder: &PathBuf) -> anyhow::Result<(Option<i32>, u64)> {
    let mut command = Command::new(&lab.wasmill);
    command.args(["run", "job.toml", "--json"]).current_dir(folder).env("WASMILL_CACHE_DIR", folder.join("cache"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let ended = command.spawn()?.wait4()?;
    Ok((ended.status.code(), ended.rusage.maxrss))
}

pub(super) const CASES: &[Case] = &[
    case(38, "compiled code is changed in the cache", |lab| {
        let folder = folder(lab, "tampered", "in.jsonl")?;
        let run = |lab: &Lab| lab.run(&folder, &["run", "job.toml"]);
        ensure!(run(lab)?.0 == Some(0), "the job does not run");
        let compiled = folder.join("cache/compiled");
        let mut artifacts = fs::read_dir(&compiled)?.flatten().map(|entry| entry.path());
        let artifact = artifacts.find(|path| path.extension().is_some_and(|extension| extension == "cwasm"));
        let artifact = artifact.context("nothing was compiled")?;
        let good = fs::read(&artifact)?;
        for place in [good.len() / 2, good.len() - 1, 0] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&artifact, &bad)?;
            let (code, said) = run(lab)?;
            ensure!(code == Some(0), "it ended with {code:?}: {said}");
            ensure!(fs::read(&artifact)? != bad, "the changed file was kept");
        }
        fs::set_permissions(&compiled, fs::Permissions::from_mode(0o777))?;
        let (code, said) = run(lab)?;
        ensure!(code == Some(2) && said.contains("chmod 700"), "it ended with {code:?}: {said}");
        Ok("compiled anew; a cache that others may write is refused".to_owned())
    }),
    case(38, "a plugin is changed where the service keeps it", |lab| {
        let attacker = lab.attacker()?;
        let digest = attacker.push(&Guest::named("unchanged").module())?;
        let kept = format!("data/tenants/{}/plugins/{}.wasm", attacker.name, digest.replace(':', "-"));
        fs::write(lab.folder.join(&kept), Guest::named("canary").module())?;
        attacker.deploy("evil", &through(&digest, ""))?.says(422, "it was changed on disk")
    }),
    case(47, "a compressed file of 1 GiB in one line", |lab| {
        let folder = folder(lab, "bomb", "bomb.jsonl.gz")?;
        let mut child = Command::new("sh")
            .args(["-c", "head -c 1073741824 /dev/zero | gzip -1 > bomb.jsonl.gz"])
            .current_dir(&folder)
            .spawn()?;
        ensure!(child.wait()?.success(), "cannot make the bomb");
        let (code, most) = measured(lab, &folder)?;
        ensure!(code.is_some_and(|code| code <= 2), "it ended with {code:?}");
        // `getrusage` counts in KiB on Linux; wait4 gives bytes.
        ensure!(most < 512 << 20, "{} MiB of memory", most >> 20);
        Ok(format!("exit code {}, {} MiB of memory", code.unwrap_or_default(), most >> 20))
    }),
    case(48, "lines that are deep, long, no UTF-8, no JSON", |lab| {
        let folder = folder(lab, "lines", "in.jsonl")?;
        let mut lines = format!("{}1{}\n", "[".repeat(200_000), "]".repeat(200_000)).into_bytes();
        lines.extend(format!("{{\"a\":{}\n", "{\"b\":".repeat(100_000)).bytes());
        lines.extend(b"\xff\xfe\0\0\n\n\0\n{\"a\":{\"b\":\"\\ud800\"}}\n{\"a\":{\"b\":1e999}}\n");
        lines.extend(vec![b'x'; 20 << 20]);
        lines.extend(b"\n{\"a\":{\"b\":1}}\n");
        fs::write(folder.join("in.jsonl"), lines)?;
        let (code, said) = lab.run(&folder, &["run", "job.toml"])?;
        ensure!(code.is_some_and(|code| code <= 2), "it ended with {code:?}: {said}");
        Ok(format!("exit code {}: {}", code.unwrap_or_default(), super::short(&said)))
    }),
    case(48, "job files that are noise, deep, or wide", |lab| {
        let folder = folder(lab, "jobs", "in.jsonl")?;
        let mut random = Random::new(48);
        let keys: String = (0..200_000).map(|n| format!("k{n} = 1\n")).collect();
        for text in [
            (0..5_000).map(|_| random.below(256) as u8).collect(),
            format!("a = {}", "[".repeat(100_000)).into_bytes(),
            format!("{}x = 1", "a.".repeat(100_000)).into_bytes(),
            keys.into_bytes(),
            b"name = \"\\u0000\"".to_vec(),
            vec![b'['; 1 << 20],
        ] {
            fs::write(folder.join("job.toml"), &text)?;
            let (code, said) = lab.run(&folder, &["check", "job.toml"])?;
            ensure!(code == Some(2), "it ended with {code:?}: {}", super::short(&said));
        }
        Ok("exit code 2, with line and hint".to_owned())
    }),
    case(54, "a secret of the configuration in what is kept and said", |lab| {
        let folder = folder(lab, "secrets", "in.jsonl")?;
        let job = fs::read_to_string(folder.join("job.toml"))?;
        let sink =
            "connector = \"http\"\nurl = \"http://127.0.0.1:1/\"\nheaders = { authorization = { file = \"secret\" } }";
        fs::write(folder.join("secret"), "hunter2-hunter2")?;
        fs::write(folder.join("job.toml"), job.replace("connector = \"file\"\npath = \"out.jsonl\"", sink))?;
        fs::create_dir_all(folder.join("said"))?;
        for arguments in [&["check", "job.toml", "--json"][..], &["explain", "job.toml"], &["graph", "job.toml"]] {
            let output = Command::new(&lab.wasmill)
                .args(arguments)
                .current_dir(&folder)
                .env("WASMILL_CACHE_DIR", folder.join("cache"))
                .output()?;
            let said = [output.stdout, output.stderr].concat();
            ensure!(!String::from_utf8_lossy(&said).contains("hunter2"), "`{}` says it", arguments[0]);
        }
        let mut running = Command::new(&lab.wasmill)
            .args(["run", "job.toml", "--state", "state"])
            .current_dir(&folder)
            .env("WASMILL_CACHE_DIR", folder.join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("said/run.err"))?)
            .spawn()?;
        let has_epochs = super::super::lab::until("the job has state", || {
            // It cannot deliver, so it does not end by itself.
            let ended = running.try_wait()?.is_some();
            let files = fs::read_dir(folder.join("state")).into_iter().flatten().flatten();
            let bytes: u64 = files.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum();
            Ok((ended || bytes > 100).then_some(()))
        });
        std::thread::sleep(std::time::Duration::from_millis(500));
        running.kill()?;
        running.wait()?;
        has_epochs?;
        let mut looked = 0;
        let mut folders = vec![folder.join("state"), folder.join(".wasmill"), folder.join("said")];
        while let Some(at) = folders.pop() {
            for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let bytes = fs::read(entry.path()).unwrap_or_default();
                looked += 1;
                let found = bytes.windows(7).any(|window| window == b"hunter2");
                ensure!(!found, "it is in {}", entry.path().display());
            }
        }
        ensure!(looked > 2, "there is no state to look at");
        Ok(format!("in none of {looked} files of its state, and not said"))
    }),
    case(64, "bytes of the state of a job are changed", |lab| {
        let folder = folder(lab, "state", "in.jsonl")?;
        let run = ["run", "job.toml", "--state", "state"];
        ensure!(lab.run(&folder, &run)?.0 == Some(0), "the job does not run");
        let mut random = Random::new(64);
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for entry in fs::read_dir(folder.join("state"))?.flatten() {
            if entry.path().is_file() {
                files.push((entry.path(), fs::read(entry.path())?));
            }
        }
        files.retain(|(_, bytes)| !bytes.is_empty());
        files.sort();
        ensure!(!files.is_empty(), "there is no state");
        let mut codes = [0; 3];
        for _ in 0..if lab.thorough { 200 } else { 15 } {
            let (path, good) = &files[random.below(files.len() as u64) as usize];
            let mut bad = good.clone();
            match random.below(3) {
                0 => bad.truncate(random.below(good.len() as u64) as usize),
                1 => bad.extend(vec![0xa5; 100]),
                _ => bad[random.below(good.len() as u64) as usize] ^= 1 << random.below(8),
            }
            fs::write(path, &bad)?;
            let (code, said) = lab.run(&folder, &run)?;
            let code = code.filter(|code| (0..3).contains(code)).with_context(|| format!("it died: {said}"))?;
            codes[code as usize] += 1;
            for (path, good) in &files {
                fs::write(path, good)?;
            }
        }
        Ok(format!("{} refused with words, {} gone on from what is whole", codes[1] + codes[2], codes[0]))
    }),
];
