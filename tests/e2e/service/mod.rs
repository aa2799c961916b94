//! `wasmill serve` and the commands that speak to it.

mod client;
mod deploy;
mod hibernation;
mod hostile;
mod isolation;
mod jobs;
mod neighbours;
mod otlp;
mod plugins;
mod registries;
mod tenants;
mod tls;
mod topics;

use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use wasmill_env::{Clock, RealClock};

use self::client::{Answer, Http};
use crate::stop::tell;
use crate::support::{Done, Folder};

/// How long anything that comes by itself may take. It bounds a test that hangs and says nothing of speed: a machine
/// may be busy with others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A service that runs, with its own folder.
pub(crate) struct Server {
    pub(crate) folder: Folder,
    child: Option<Child>,
    pub(crate) http: Http,
}

/// Who asks.
pub(crate) struct As<'a> {
    server: &'a Server,
    pub(crate) token: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_in(Folder::new(), &[])
    }

    pub(crate) fn start_in(folder: Folder, more: &[&str]) -> Self {
        let mut server = Self { folder, child: None, http: Http::new("") };
        server.launch(more);
        server
    }

    /// Starts the process again, in the same folder.
    pub(crate) fn launch(&mut self, more: &[&str]) {
        self.launch_with(more, &[]);
    }

    /// The same with variables of the environment.
    pub(crate) fn launch_with(&mut self, more: &[&str], variables: &[(&str, &str)]) {
        let arguments = ["serve", "--data", "data", "--listen", "127.0.0.1:0", "--json"];
        let mut command = self.folder.command();
        let mut child = command.args(arguments).args(more).envs(variables.iter().copied()).spawn().expect("it starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let url = loop {
            let mut line = String::new();
            assert_ne!(said.read_line(&mut line).expect("a line"), 0, "the service ended");
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            if let Some(url) = line["url"].as_str() {
                break url.to_owned();
            }
        };
        // What it says later is not waited for, and must not block it.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        self.http = Http::new(url.split("://").nth(1).expect("an address"));
        self.child = Some(child);
        self.until("it is ready", || self.http.get("/readyz", "").status == 200);
    }

    /// The token of the operator.
    pub(crate) fn operator(&self) -> As<'_> {
        As { server: self, token: self.folder.read("data/admin.token").trim().to_owned() }
    }

    /// Makes a tenant, and a token of it with every scope.
    pub(crate) fn tenant(&self, name: &str) -> As<'_> {
        self.tenant_with(name, json!({}))
    }

    pub(crate) fn tenant_with(&self, name: &str, budget: Value) -> As<'_> {
        let operator = self.operator();
        operator.post("/v1/tenants", &json!({"tenant": name, "budget": budget})).is(201);
        let token = json!({"name": "all", "scopes": ["read", "deploy", "admin"]});
        let made = operator.post(&format!("/v1/tenants/{name}/tokens"), &token).is(201);
        As { server: self, token: made.body["token"].as_str().expect("a token").to_owned() }
    }

    pub(crate) fn with_token(&self, token: &str) -> As<'_> {
        As { server: self, token: token.to_owned() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        tell(self.child.as_ref().expect("it runs"), signal);
    }

    /// Waits for the process to end.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.take().expect("it runs").wait().expect("it ends").code()
    }

    /// Asks again and again, for something that comes by itself.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let clock = RealClock::default();
        while !holds() {
            let waited = Duration::from_nanos(clock.monotonic_nanos());
            assert!(waited < PATIENCE, "{what}: not after {} s", PATIENCE.as_secs());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Server {
    /// Asks again and again, for an answer that comes by itself.
    #[track_caller]
    pub(crate) fn until_some<T>(&self, mut find: impl FnMut() -> Option<T>) -> T {
        let mut found = None;
        self.until("an answer", || {
            found = find();
            found.is_some()
        });
        found.expect("found")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing is left to be said.
            let _gone = child.kill().is_err();
            let _gone = child.wait().is_err();
        }
    }
}

impl As<'_> {
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.server.http.get(path, &self.token)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body.to_string().as_bytes())
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.server.http.send(method, path, &self.token, body)
    }

    pub(crate) fn deploy(&self, job: &str, text: &str) -> Answer {
        self.send("PUT", &format!("/v1/jobs/{job}"), text.as_bytes())
    }

    /// What the job is doing.
    pub(crate) fn phase(&self, job: &str) -> String {
        let view = self.get(&format!("/v1/jobs/{job}")).is(200).body;
        view["phase"].as_str().expect("a phase").to_owned()
    }

    #[track_caller]
    pub(crate) fn until_phase(&self, job: &str, phase: &str) {
        self.server.until(&format!("{job} is {phase}"), || {
            let now = self.phase(job);
            if now == "failed" && phase != "failed" {
                panic!("{}", self.get(&format!("/v1/jobs/{job}")).body);
            }
            now == phase
        });
    }

    /// Values of the records of partition 0 of a topic.
    pub(crate) fn values(&self, topic: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/topics/{topic}/records?limit=1000"));
        let records = answer.body["records"].as_array().cloned().unwrap_or_default();
        records.into_iter().map(|record| record["value"].clone()).collect()
    }

    /// Appends rows of numbers to a topic.
    pub(crate) fn produce(&self, topic: &str, rows: std::ops::Range<u32>) {
        let lines: String = rows.map(|row| format!("{{\"key\":\"k\",\"value\":{{\"n\":{row}}}}}\n")).collect();
        self.send("POST", &format!("/v1/topics/{topic}/records"), lines.as_bytes()).is(201);
    }

    pub(crate) fn make_topic(&self, topic: &str) {
        self.post("/v1/topics", &json!({"topic": topic})).is(201);
    }

    /// Runs a command as this caller.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, "")
    }

    /// A command of this caller.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.server.folder.command();
        command.env("WASMILL_SERVER", format!("http://{}", self.server.http.address)).env("WASMILL_TOKEN", &self.token);
        command.args(arguments);
        command
    }

    /// Runs a command as this caller, which reads `input`.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Done {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that reads nothing may have ended.
        let _written = stdin.write_all(input.as_bytes()).is_ok();
        drop(stdin);
        Done::of(child.wait_with_output().expect("it ends"))
    }
}

/// A job that copies topic `in` to topic `out`, through `plugin`.
pub(crate) fn copy(name: &str, plugin: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nepoch = {{ interval = \"50ms\" }}\n[source.in]\nconnector = \"topic\"\ntopic = \"in\"\n\
         [stage.work]\nplugin = \"{plugin}\"\ninput = \"in\"\n{more}\n\
         [sink.out]\nconnector = \"topic\"\ntopic = \"out\"\npartitions = 1\ninput = \"work\"\n"
    )
}

/// The same through a plugin that lets everything pass.
pub(crate) fn plain(name: &str) -> String {
    copy(name, "std:filter", "config = { where = \"true\" }")
}

pub(crate) fn numbers(rows: std::ops::Range<u32>) -> Vec<Value> {
    rows.map(|n| json!({"n": n})).collect()
}

pub(crate) fn path(folder: &Folder, name: &str) -> PathBuf {
    folder.path().join(name)
}
