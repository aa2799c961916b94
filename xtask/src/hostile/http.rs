//! HTTP as it goes over the wire: nothing between an attack and the service.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

/// Nothing takes longer to answer.
const PATIENCE: Duration = Duration::from_secs(300);
/// No answer is read further.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// What a service answers. Status 0: it hung up.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    fn new(head: String, body: &[u8]) -> Self {
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let text = String::from_utf8_lossy(body).into_owned();
        Self { status, head, body: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    /// It has this status; an error is a problem in words, with a code.
    pub(crate) fn is(self, status: u16) -> anyhow::Result<Self> {
        let shown: String = self.text.chars().take(400).collect();
        ensure!(self.status == status, "answered {} instead of {status}: {shown}", self.status);
        if status >= 400 {
            let kind = self.body["type"].as_str().unwrap_or_default();
            ensure!(kind.starts_with("urn:wasmill:problem:"), "an error without a code: {shown}");
            ensure!(self.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "no words: {shown}");
        }
        Ok(self)
    }

    /// It has this status, and says so.
    pub(crate) fn says(self, status: u16, words: &str) -> anyhow::Result<String> {
        let answer = self.is(status)?;
        let shown: String = answer.text.chars().take(400).collect();
        ensure!(answer.text.contains(words), "{words:?} is not in {shown}");
        Ok(format!("{status} {}: {words}", answer.code()))
    }

    /// Its code.
    pub(crate) fn code(&self) -> &str {
        self.body["type"].as_str().and_then(|kind| kind.strip_prefix("urn:wasmill:problem:")).unwrap_or_default()
    }
}

/// A connection that is used for one request after the other.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request, and reads its answer.
    pub(crate) fn ask(&mut self, method: &str, path: &str, token: &str, body: &[u8]) -> anyhow::Result<Answer> {
        self.write(&[head(method, path, token, body.len(), "").as_bytes(), body].concat());
        self.answer()
    }

    /// Writes bytes. A service that refuses early reads no further, which its answer shows.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    /// Reads one answer; an empty one where the service hung up.
    pub(crate) fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.stream.read_line(&mut head) {
                Ok(0) => return Ok(Answer::default()),
                Ok(_) => ensure!(head.len() < 64 << 10, "a head without an end"),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(Answer::default()),
                Err(error) => return Err(error).context("no answer"),
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<u64>().ok());
        let mut body = Vec::new();
        if lower.contains("transfer-encoding: chunked") {
            self.chunks(&mut body)?;
        } else {
            let length = length.unwrap_or(0).min(ANSWER_BYTES_MAX);
            let read = (&mut self.stream).take(length).read_to_end(&mut body);
            // Who refuses a body hangs up on the rest of it.
            let _cut_off = read.is_err();
        }
        Ok(Answer::new(head, &body))
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> anyhow::Result<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
            (&mut self.stream).take(length).read_to_end(body)?;
            self.stream.read_line(&mut line)?;
            if length == 0 || body.len() as u64 > ANSWER_BYTES_MAX {
                return Ok(());
            }
        }
    }

    /// Whether an answer begins to come within a moment.
    pub(crate) fn has_answer(&mut self) -> bool {
        let stream = self.stream.get_ref();
        let set = stream.set_read_timeout(Some(Duration::from_millis(30)));
        let has = set.is_ok() && stream.peek(&mut [0]).is_ok();
        has && stream.set_read_timeout(Some(PATIENCE)).is_ok()
    }

    /// The first line of an answer that does not end.
    pub(crate) fn status_line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line)
    }

    /// Bytes that come until it is closed, or no more come.
    pub(crate) fn rest(&mut self) -> usize {
        let stream = self.stream.get_ref();
        if stream.set_read_timeout(Some(Duration::from_secs(5))).is_err() {
            return 0;
        }
        let mut rest = Vec::new();
        let _no_more = self.stream.read_to_end(&mut rest).is_err();
        rest.len()
    }

    /// Whether the service has hung up, waiting for that.
    pub(crate) fn is_closed_within(&mut self, patience: Duration) -> bool {
        if self.stream.get_ref().set_read_timeout(Some(patience)).is_err() {
            return false;
        }
        // What it says first does not matter.
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// The head of a request.
pub(crate) fn head(method: &str, path: &str, token: &str, length: usize, more: &str) -> String {
    let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{token}{more}Content-Length: {length}\r\n\r\n")
}
