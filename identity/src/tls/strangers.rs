//! Connections on which somebody speaks something else than what is spoken here.

use super::Alpn;
use daemon::{Metrics, Repeats};
use prometheus_client::metrics::counter::Counter;
use std::{fmt::Display, io, net::SocketAddr};

/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    repeats: Repeats,
    refused: Counter,
}

impl Strangers {
    /// Counts them in `metrics`.
    pub(super) fn count(&self, metrics: &Metrics) {
        let help = "Connections that were ended because their TLS or HTTP was none";
        metrics.register("tls_connections_refused", help, self.refused.clone());
    }

    /// How many there were.
    #[cfg(test)]
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// A handshake failed. Who only looks whether the port is open is no stranger.
    pub(super) fn handshake(&self, address: SocketAddr, error: &io::Error) {
        use io::ErrorKind::{ConnectionReset, UnexpectedEof};
        if [ConnectionReset, UnexpectedEof].contains(&error.kind()) {
            tracing::debug!(%address, %error, "TLS handshake ended early");
            return;
        }
        self.note(address, &format_args!("its TLS handshake failed: {error}"));
    }

    fn note(&self, address: SocketAddr, reason: &dyn Display) {
        self.refused.inc();
        let reason = reason.to_string();
        if let Some(unsaid) = self.repeats.say((address.ip(), &reason)) {
            tracing::warn!(%address, unsaid, reason, "a connection was refused");
        }
    }
}

/// Reads along until it is clear what is spoken.
#[derive(Debug)]
pub(super) struct Beginning {
    seen: usize,
}

impl Beginning {
    /// Of a connection on which `alpn` is spoken. What is no HTTP/1.1 gets an answer that says so.
    pub(super) fn of(alpn: Alpn) -> Option<Self> {
        (alpn == Alpn::Grpc).then_some(Self { seen: 0 })
    }

    /// More bytes came. Returns whether there is more to see.
    pub(super) fn read(&mut self, bytes: &[u8], from: SocketAddr, strangers: &Strangers) -> bool {
        let expected = PREFACE.get(self.seen..).unwrap_or_default();
        if !expected.iter().zip(bytes).all(|(expected, byte)| expected == byte) {
            strangers.note(from, &"it does not begin as HTTP/2 does");
            return false;
        }
        self.seen += bytes.len();
        self.seen < PREFACE.len()
    }
}
