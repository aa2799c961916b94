//! The command line against a service: `--server URL`.

mod client;

use std::path::PathBuf;

use clap::Args;

pub(crate) use client::{Body, Client, HttpsClient, https};

use crate::failure::Failure;

/// Which service, and who asks.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Ask the service at this address, rather than a job of this machine
    #[arg(long, global = true, env = "WASMILL_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Read the token from this file [default: the variable WASMILL_TOKEN]
    #[arg(long, global = true, env = "WASMILL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Trust this authority, a PEM file, rather than those of the system
    #[arg(long, global = true, env = "WASMILL_AUTHORITIES", value_name = "FILE")]
    pub(crate) authorities: Option<PathBuf>,
}

impl ServerArgs {
    /// Whether a service is meant.
    pub(crate) fn is_set(&self) -> bool {
        self.server.is_some()
    }

    /// The service.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let server = self.server.as_deref().ok_or_else(|| {
            Failure::wrong("this command needs a service").hint("name it with --server URL, or in WASMILL_SERVER")
        })?;
        Client::new(server, self.token()?, self.authorities.as_deref())
    }

    /// The token. It is never an argument, which others on the machine could read.
    fn token(&self) -> Result<String, Failure> {
        let text = match &self.token_file {
            Some(file) => std::fs::read_to_string(file).map_err(|error| Failure::file("read", file, &error))?,
            None => std::env::var("WASMILL_TOKEN").map_err(|_| {
                Failure::wrong("there is no token").hint("name a file with --token-file, or set WASMILL_TOKEN")
            })?,
        };
        Ok(text.trim().to_owned())
    }
}
