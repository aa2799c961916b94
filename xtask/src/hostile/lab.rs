//! A real `wasmill serve` with a tenant who works and one who attacks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::guest::Guest;
use super::http::{Answer, Connection};
use crate::steps::now;

/// Until something that comes by itself has come.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The service, and where it works.
pub(crate) struct Lab {
    pub(crate) wasmill: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) address: String,
    service: Child,
    operator: String,
    tenants: u32,
    /// Whether the whole of a row's patience is to be tried: slow senders, long compilations.
    pub(crate) thorough: bool,
}

/// A tenant, by a token with every scope.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    pub(crate) token: String,
    address: String,
}

impl Lab {
    pub(crate) fn start(wasmill: &Path, folder: &Path, thorough: bool) -> anyhow::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let said = folder.join("service.err");
        let service = command(wasmill, folder)
            .args(["serve", "--data", "data", "--listen", "127.0.0.1:0", "--json"])
            .stderr(File::create(&said)?)
            .spawn()
            .context("the service does not start")?;
        let mut lab = Self {
            wasmill: wasmill.to_owned(),
            folder: folder.to_owned(),
            address: String::new(),
            service,
            operator: String::new(),
            tenants: 0,
            thorough,
        };
        lab.address = until("the service listens", || {
            let text = fs::read_to_string(&said)?;
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let url = lines.filter_map(|line| line["url"].as_str().map(str::to_owned)).next();
            Ok(url.and_then(|url| Some(url.split_once("://")?.1.to_owned())))
        })?;
        lab.operator = fs::read_to_string(folder.join("data/admin.token"))?.trim().to_owned();
        until("the service is ready", || Ok((lab.get("/readyz", "")?.status == 200).then_some(())))?;
        Ok(lab)
    }

    /// Runs the binary to its end, in a folder of the lab.
    pub(crate) fn run(&self, folder: &Path, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let output = command(&self.wasmill, folder).args(arguments).output().context("cannot run the binary")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!said.contains("panicked at"), "it panicked: {said}");
        Ok((output.status.code(), said))
    }

    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.address)
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> anyhow::Result<Answer> {
        self.connect()?.ask("GET", path, token, b"")
    }

    /// Asks as the operator.
    pub(crate) fn operate(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.connect()?.ask(method, path, &self.operator, body.to_string().as_bytes())
    }

    /// A tenant that may do much, with a token that may do everything.
    pub(crate) fn tenant(&mut self, name: &str) -> anyhow::Result<Tenant> {
        self.tenant_with(name, json!({"requests_per_second": 100_000, "changes_per_minute": 1_000_000}))
    }

    pub(crate) fn tenant_with(&mut self, name: &str, budget: Value) -> anyhow::Result<Tenant> {
        self.operate("POST", "/v1/tenants", &json!({"tenant": name, "budget": budget}))?.is(201)?;
        let token = json!({"name": "all", "scopes": ["read", "deploy", "admin"]});
        let made = self.operate("POST", &format!("/v1/tenants/{name}/tokens"), &token)?.is(201)?;
        let token = made.body["token"].as_str().context("no token")?.to_owned();
        Ok(Tenant { name: name.to_owned(), token, address: self.address.clone() })
    }

    /// A fresh attacker, with the topics `in` and `out`.
    pub(crate) fn attacker(&mut self) -> anyhow::Result<Tenant> {
        self.tenants += 1;
        let attacker = self.tenant(&format!("attacker-{}", self.tenants))?;
        attacker.topic("in")?;
        Ok(attacker)
    }

    /// The same with a smaller budget.
    pub(crate) fn attacker_with(&mut self, budget: Value) -> anyhow::Result<Tenant> {
        self.tenants += 1;
        let attacker = self.tenant_with(&format!("attacker-{}", self.tenants), budget)?;
        attacker.topic("in")?;
        Ok(attacker)
    }

    /// Removes every attacker with all that is theirs.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let tenants = self.operate("GET", "/v1/tenants", &json!({}))?.is(200)?;
        for tenant in tenants.body.as_array().into_iter().flatten() {
            let name = tenant["tenant"].as_str().unwrap_or_default();
            if name.starts_with("attacker") {
                self.operate("DELETE", &format!("/v1/tenants/{name}"), &json!({}))?.is(204)?;
            }
        }
        Ok(())
    }

    /// Bytes of memory that the service has.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.service.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
    }

    /// The service lives, answers, and nothing of it has panicked.
    pub(crate) fn is_well(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.service.try_wait()? {
            bail!("the service ended with {status}");
        }
        let said = fs::read_to_string(self.folder.join("service.err"))?;
        // A guest that panics says so in its log, too, but is no thread.
        let panicked = said.lines().find(|line| line.contains("thread '") && line.contains("panicked"));
        ensure!(panicked.is_none(), "a thread of the service panicked: {}", panicked.unwrap_or_default());
        ensure!(!said.contains(&self.operator), "a token is in what the service says");
        ensure!(self.get("/readyz", "")?.status == 200, "the service is not ready");
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Nothing is left to be said.
        let _gone = self.service.kill().is_err();
        let _gone = self.service.wait().is_err();
    }
}

fn command(wasmill: &Path, folder: &Path) -> Command {
    let mut command = Command::new(wasmill);
    command
        .current_dir(folder)
        .env("WASMILL_CACHE_DIR", folder.join("cache"))
        .env_remove("WASMILL_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Asks again and again for something that comes by itself.
pub(crate) fn until<T>(what: &str, mut find: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let began = now();
    loop {
        if let Some(found) = find()? {
            return Ok(found);
        }
        ensure!(began.elapsed() < PATIENCE, "{what}: not after {} s", PATIENCE.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
}

impl Tenant {
    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.address)
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
        self.connect()?.ask(method, path, &self.token, body)
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send("GET", path, b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send("POST", path, body.to_string().as_bytes())
    }

    pub(crate) fn topic(&self, topic: &str) -> anyhow::Result<()> {
        self.post("/v1/topics", &json!({"topic": topic}))?.is(201).map(drop)
    }

    /// Appends lines of JSON to topic `in`.
    pub(crate) fn produce(&self, lines: &str) -> anyhow::Result<()> {
        self.send("POST", "/v1/topics/in/records", lines.as_bytes())?.is(201).map(drop)
    }

    /// Sends a plugin; returns its digest.
    pub(crate) fn push(&self, plugin: &[u8]) -> anyhow::Result<String> {
        let answer = self.send("POST", "/v1/plugins", plugin)?;
        ensure!([200, 201].contains(&answer.status), "the plugin was refused: {} {}", answer.status, answer.text);
        Ok(answer.body["digest"].as_str().context("no digest")?.to_owned())
    }

    pub(crate) fn deploy(&self, job: &str, text: &str) -> anyhow::Result<Answer> {
        self.send("PUT", &format!("/v1/jobs/{job}"), text.as_bytes())
    }

    /// Runs a job through a guest on a few rows.
    pub(crate) fn employ(&self, guest: &Guest, stage: &str) -> anyhow::Result<()> {
        let digest = self.push(&guest.module())?;
        self.deploy("evil", &through(&digest, stage))?.is(201)?;
        self.produce("{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n{\"key\":\"c\",\"value\":3}\n")
    }

    /// What the job `evil` is doing, and why.
    pub(crate) fn evil(&self) -> anyhow::Result<(String, String)> {
        let view = self.get("/v1/jobs/evil")?.is(200)?.body;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok((text(&view["phase"]), text(&view["reason"])))
    }

    /// Dead letters of the job `evil`, once there are so many.
    pub(crate) fn letters(&self, count: u64) -> anyhow::Result<Vec<Value>> {
        until("rows are in the dead letters", || {
            let view = self.get("/v1/jobs/evil")?.is(200)?.body;
            let nodes = view["status"]["nodes"].as_array().cloned().unwrap_or_default();
            let rejected: u64 = nodes.iter().filter_map(|node| node["rejected"].as_u64()).sum();
            ensure!(view["phase"] != "failed", "the job failed: {}", view["reason"]);
            Ok((rejected >= count).then_some(()))
        })?;
        let page = self.get("/v1/jobs/evil/letters?limit=1000")?.is(200)?;
        Ok(page.body["letters"].as_array().cloned().unwrap_or_default())
    }

    /// Lines of the log of the job `evil` that hold these words, once there is one.
    pub(crate) fn said(&self, words: &str) -> anyhow::Result<Vec<String>> {
        until(&format!("the log says {words:?}"), || {
            let lines = self.get("/v1/jobs/evil/logs?limit=1000")?.is(200)?.body;
            let lines = lines.as_array().cloned().unwrap_or_default();
            let lines = lines.iter().filter_map(|line| line["message"].as_str().map(str::to_owned));
            let found: Vec<String> = lines.filter(|line| line.contains(words)).collect();
            Ok((!found.is_empty()).then_some(found))
        })
    }

    /// Values in topic `out`, once there are so many.
    pub(crate) fn out(&self, count: usize) -> anyhow::Result<Vec<Value>> {
        until(&format!("{count} rows come out"), || {
            let page = self.get("/v1/topics/out/records?limit=1000")?;
            let records = page.body["records"].as_array().cloned().unwrap_or_default();
            Ok((records.len() >= count).then(|| records.iter().map(|record| record["value"].clone()).collect()))
        })
    }
}

/// A job `evil` that takes topic `in` through a plugin to topic `out`.
pub(crate) fn through(plugin: &str, stage: &str) -> String {
    format!(
        "name = \"evil\"\nepoch = {{ interval = \"20ms\" }}\n[source.in]\nconnector = \"topic\"\ntopic = \"in\"\n\
         [stage.work]\nplugin = \"{plugin}\"\ninput = \"in\"\n{stage}\n\
         [sink.out]\nconnector = \"topic\"\ntopic = \"out\"\npartitions = 1\ninput = \"work\"\n"
    )
}

/// The same through a plugin that lets everything pass.
pub(crate) fn plain() -> String {
    through("std:filter", "config = { where = \"true\" }")
}
