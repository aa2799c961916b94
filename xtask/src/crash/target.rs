//! An HTTP server that keeps each CloudEvent once, by its id, and misbehaves as servers do: it
//! refuses, it keeps half of a request, it keeps all of it and hangs up without a word.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::Random;

/// How long a connection waits before it looks whether the server is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const BODY_BYTES_MAX: usize = 64 << 20;

/// The server.
pub(super) struct Target {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    over: AtomicBool,
    kept: Mutex<Kept>,
}

/// What it has.
struct Kept {
    random: Random,
    ids: HashMap<String, String>,
    /// In the order in which they came.
    rows: Vec<String>,
    /// An id that came again with another row.
    changed: Vec<String>,
}

/// What is done with a request.
enum Manner {
    Answer(&'static str),
    HangUp,
}

impl Target {
    pub(super) fn new(seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
        let address = listener.local_addr().context("cannot listen")?;
        let kept = Kept { random: Random(seed), ids: HashMap::new(), rows: Vec::new(), changed: Vec::new() };
        let shared = Arc::new(Shared { over: AtomicBool::new(false), kept: Mutex::new(kept) });
        let serving = Arc::clone(&shared);
        let listener = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                if serving.over.load(Ordering::Relaxed) {
                    break;
                }
                if let Ok(stream) = stream {
                    let serving = Arc::clone(&serving);
                    // A client that dies in the middle of a request ends its connection, no more.
                    connections.push(std::thread::spawn(move || drop(serve(&stream, &serving))));
                }
            }
            for connection in connections {
                let _ended = connection.join();
            }
        });
        Ok(Self { address, shared, listener: Some(listener) })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/rows", self.address)
    }

    /// Rows in the order in which they came, and what is wrong with their ids.
    pub(super) fn take(&self) -> (Vec<String>, Vec<String>) {
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut kept.rows), std::mem::take(&mut kept.changed))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the listener; where that fails it is gone already.
        let _woken = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ended = listener.join();
        }
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    let mut reader = BufReader::new(Patient { stream, shared });
    loop {
        let mut length = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        if length > BODY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        match keep(&body, shared)? {
            Manner::Answer(status) => {
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nretry-after: 0\r\n\r\n");
                (&*stream).write_all(answer.as_bytes())?;
            }
            Manner::HangUp => return Ok(()),
        }
    }
}

fn keep(body: &[u8], shared: &Shared) -> io::Result<Manner> {
    let events: Vec<Value> = serde_json::from_slice(body)?;
    let mut kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
    let (share, manner) = match kept.random.below(24) {
        0 => (0, Manner::Answer("503 Service Unavailable")),
        1 => (0, Manner::Answer("429 Too Many Requests")),
        2 => (events.len() / 2, Manner::Answer("500 Internal Server Error")),
        3 => (events.len(), Manner::HangUp),
        _ => (events.len(), Manner::Answer("200 OK")),
    };
    for event in &events[..share] {
        let (id, row) = (event["id"].as_str().unwrap_or("none").to_owned(), event["data"].to_string());
        match kept.ids.get(&id) {
            None => {
                kept.ids.insert(id, row.clone());
                kept.rows.push(row);
            }
            Some(before) if *before != row => {
                let what = format!("{id} was {before} and came again as {row}");
                kept.changed.push(what);
            }
            Some(_) => {}
        }
    }
    Ok(manner)
}

/// Reads for as long as the server lives.
struct Patient<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
}

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.stream).read(into) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.shared.over.load(Ordering::Relaxed) {
                        return Ok(0);
                    }
                }
                read => return read,
            }
        }
    }
}
