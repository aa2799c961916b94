//! A service that runs as its users run it, and requests to it over the wire.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::steps::now;

/// How long anything may take that comes by itself.
const PATIENCE: Duration = Duration::from_secs(300);

/// A budget that holds nothing up: it is not what is measured.
pub(crate) fn wide_budget() -> Value {
    json!({
        "jobs": 100_000, "tasks": 1_000_000, "memory_bytes": 1_u64 << 50, "topics": 100_000,
        "requests_per_second": 1_000_000, "changes_per_minute": 10_000_000,
    })
}

/// A service, in a folder of its own.
pub(crate) struct Service {
    wasmill: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    pub(crate) address: String,
}

impl Service {
    /// Starts one in a new folder.
    pub(crate) fn start(wasmill: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        std::fs::create_dir_all(folder)?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (wasmill, folder) = (wasmill.to_owned(), folder.to_owned());
        let mut service = Self { wasmill, folder, arguments, child: None, address: String::new() };
        service.launch()?;
        Ok(service)
    }

    /// Starts the process, again where it was killed. Returns how long it took until it was ready.
    pub(crate) fn launch(&mut self) -> anyhow::Result<Duration> {
        let began = now();
        let mut command = Command::new(&self.wasmill);
        command.args(["serve", "--data", "data", "--listen", "127.0.0.1:0", "--json"]).args(&self.arguments);
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run the service")?;
        let mut said = BufReader::new(child.stderr.take().context("no errors")?);
        self.child = Some(child);
        self.address = loop {
            let mut line = String::new();
            ensure!(said.read_line(&mut line)? > 0, "the service ended");
            if let Some(url) = serde_json::from_str::<Value>(&line).unwrap_or_default()["url"].as_str() {
                break url.trim_start_matches("http://").to_owned();
            }
        };
        // What it says later must not block it.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let mut api = Api::new(&self.address, "");
        until("the service is ready", || Ok(api.send("GET", "/readyz", b"")?.status == 200))?;
        Ok(began.elapsed())
    }

    /// Ends the process with signal 9.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("cannot kill the service")?;
            child.wait().context("cannot wait for the service")?;
        }
        Ok(())
    }

    /// Requests of the operator.
    pub(crate) fn operator(&self) -> anyhow::Result<Api> {
        let token = std::fs::read_to_string(self.folder.join("data/admin.token")).context("no token")?;
        Ok(Api::new(&self.address, token.trim()))
    }

    /// Makes a tenant. Returns a token of it.
    pub(crate) fn tenant(&self, name: &str) -> anyhow::Result<String> {
        let mut operator = self.operator()?;
        operator.ask("POST", "/v1/tenants", &json!({"tenant": name, "budget": wide_budget()}))?;
        let token = json!({"name": "all", "scopes": ["read", "deploy", "admin"]});
        let made = operator.ask("POST", &format!("/v1/tenants/{name}/tokens"), &token)?;
        Ok(made["token"].as_str().context("no token")?.to_owned())
    }

    /// Memory of the process that is in RAM and its own, in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        Ok(self.status("RssAnon")? << 10)
    }

    pub(crate) fn threads(&self) -> anyhow::Result<u64> {
        self.status("Threads")
    }

    fn status(&self, key: &str) -> anyhow::Result<u64> {
        let id = self.child.as_ref().context("it does not run")?.id();
        let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_ascii_whitespace().next());
        number.and_then(|number| number.parse().ok()).with_context(|| format!("no {key}"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _gone = self.kill();
    }
}

/// Asks again and again, for something that comes by itself.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = now();
    while !holds()? {
        ensure!(began.elapsed() < PATIENCE, "{what}: not after {} s", PATIENCE.as_secs());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits until then.
pub(crate) fn wait_until(then: Instant) {
    while let Some(wait) = then.checked_duration_since(now()).filter(|wait| !wait.is_zero()) {
        std::thread::park_timeout(wait);
    }
}

/// What a service answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// One connection to a service, which is kept.
pub(crate) struct Api {
    address: String,
    token: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Api {
    pub(crate) fn new(address: &str, token: &str) -> Self {
        Self { address: address.to_owned(), token: token.to_owned(), connection: None }
    }

    /// Asks, once more over a new connection where the old one was closed meanwhile.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
        if let Some(connection) = self.connection.take()
            && let Ok(answer) = self.over(connection, method, path, body)
        {
            return Ok(answer);
        }
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        self.over(BufReader::new(stream), method, path, body)
    }

    fn over(
        &mut self,
        mut connection: BufReader<TcpStream>,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let token = match self.token.as_str() {
            "" => String::new(),
            token => format!("authorization: Bearer {token}\r\n"),
        };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{token}content-length: {}\r\n\r\n", body.len());
        connection.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let (mut status, mut length, mut chunked) = (0, 0_usize, false);
        loop {
            let mut line = String::new();
            ensure!(connection.read_line(&mut line)? > 0, "the connection was closed");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().and_then(|code| code.parse().ok()).context("no status")?;
            } else if let Some(rest) = line.strip_prefix("content-length:") {
                length = rest.trim().parse()?;
            } else if line.starts_with("transfer-encoding:") {
                chunked = true;
            }
        }
        let mut answer = Vec::new();
        if chunked {
            loop {
                let mut line = String::new();
                connection.read_line(&mut line)?;
                let length = usize::from_str_radix(line.trim(), 16)?;
                let start = answer.len();
                answer.resize(start + length + 2, 0);
                connection.read_exact(&mut answer[start..])?;
                answer.truncate(start + length);
                if length == 0 {
                    break;
                }
            }
        } else {
            answer.resize(length, 0);
            connection.read_exact(&mut answer)?;
        }
        self.connection = Some(connection);
        Ok(Answer { status, body: answer })
    }

    /// Sends bytes that must be taken.
    pub(crate) fn put(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Value> {
        let Answer { status, body } = self.send(method, path, body)?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        if body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&body)?) }
    }

    /// Asks for what must be done.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.put(method, path, body.to_string().as_bytes())
    }

    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        self.put("GET", path, b"")
    }
}

/// A quantile of durations, in milliseconds.
pub(crate) fn quantile(durations: &[Duration], percent: usize) -> f64 {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).map_or(0.0, |duration| duration.as_secs_f64() * 1e3)
}
