//! HTTP as it goes over the wire: nothing between the test and the service.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::PATIENCE;

/// The address of a service.
pub(crate) struct Http {
    pub(crate) address: String,
}

/// What a service answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.to_owned() };
        Self { status, head: head.to_owned(), body: serde_json::from_str(&body).unwrap_or_default(), text: body }
    }

    /// It has this status; errors are problem details.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.text);
        if status >= 400 {
            assert!(self.head.to_ascii_lowercase().contains("application/problem+json"), "{}", self.head);
            assert_eq!(self.body["status"], status, "{}", self.text);
            assert!(self.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", self.text);
        }
        self
    }

    /// The kind of the problem.
    pub(crate) fn problem(&self) -> &str {
        self.body["type"].as_str().and_then(|kind| kind.strip_prefix("urn:wasmill:problem:")).unwrap_or_default()
    }
}

fn unchunked(mut text: &str) -> String {
    let mut out = String::new();
    while let Some((length, rest)) = text.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..length).filter(|_| length > 0) else { break };
        out.push_str(chunk);
        text = rest.get(length + 2..).unwrap_or("");
    }
    out
}

impl Http {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned() }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> Answer {
        self.send("GET", path, token, b"")
    }

    pub(crate) fn send(&self, method: &str, path: &str, token: &str, body: &[u8]) -> Answer {
        let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    /// Sends bytes, and reads what comes until the connection ends.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A service that refuses early reads no further.
        let _refused = stream.write_all(bytes).is_err();
        let mut answer = Vec::new();
        let _cut_off = stream.read_to_end(&mut answer).is_err();
        Answer::of(&answer)
    }
}
