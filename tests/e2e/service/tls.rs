//! A service whose connections are encrypted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Child;

use serde_json::Value;

use crate::support::{Done, Folder};

/// A process that ends with the test.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // Nothing is left to be said.
        let _gone = self.0.kill().is_err();
        let _gone = self.0.wait().is_err();
    }
}

#[test]
fn a_service_with_a_certificate_is_reached_by_who_trusts_it() {
    let folder = Folder::new();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let mut command = folder.command();
    command.args(["serve", "--data", "data", "--listen", "127.0.0.1:0", "--json"]);
    let mut child = command.args(["--tls-cert", "cert.pem", "--tls-key", "key.pem"]).spawn().expect("it starts");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let _serving = Serving(child);
    let url = loop {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).expect("a line"), 0, "the service ended");
        let url = serde_json::from_str::<Value>(&line).ok().and_then(|line| line["url"].as_str().map(str::to_owned));
        if let Some(url) = url {
            break url;
        }
    };
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let ask = |more: &[&str]| {
        let mut command = folder.command();
        command.args(["tenant", "ls", "--server", &url, "--token-file", "data/admin.token"]).args(more);
        Done::of(command.output().expect("the binary runs"))
    };
    ask(&["--authorities", "cert.pem"]).ok();
    let refused = ask(&[]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.to_lowercase().contains("certificate"), "{}", refused.err);
    // Who speaks no TLS is told nothing.
    let mut plain = TcpStream::connect(url.trim_start_matches("https://")).expect("it listens");
    plain.set_read_timeout(Some(super::PATIENCE)).expect("set");
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    let _reset = plain.read_to_end(&mut answer).is_err();
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}
