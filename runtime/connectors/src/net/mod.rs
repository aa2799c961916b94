//! Sources of lines over the network: `tcp`, whose senders wait when the job is too slow, and
//! `udp`, which drops and counts what it has no room for. Both take in through [`crate::ingest`].

mod tcp;
mod udp;

use crate::{Connector, SourceEntry};

pub(crate) const TCP: Connector = Connector {
    name: "tcp",
    source: Some(SourceEntry { build: tcp::build, schema: || schemars::schema_for!(tcp::TcpConfig) }),
    sink: None,
};

pub(crate) const UDP: Connector = Connector {
    name: "udp",
    source: Some(SourceEntry { build: udp::build, schema: || schemars::schema_for!(udp::UdpConfig) }),
    sink: None,
};
