//! Every limit of the port of proxies.

use std::time::Duration;

/// A proxy that does not say who it is within this time is gone.
pub(super) const HELLO: Duration = Duration::from_secs(10);
/// What the Dataplane of a pod has to be there.
pub(super) const APPEARANCE: Duration = Duration::from_secs(30);
/// What the older of two sessions of one Dataplane has to show that it lives.
pub(super) const PONG: Duration = Duration::from_secs(2);
/// What a proxy has to answer a question about its Envoy.
pub(super) const ANSWER: Duration = Duration::from_secs(9);
/// Questions that wait for a proxy.
pub(super) const QUESTIONS: usize = 4;
/// The query of a question.
pub(super) const QUERY: usize = 4096;
/// The largest message of a session: an answer of Envoy's admin interface.
pub(super) const SESSION_MESSAGE: usize = 16 << 20;
/// Messages that wait to be sent on a session.
pub(super) const SESSION_QUEUE: usize = 16;
/// The Dataplane of a hello, as JSON.
pub(super) const DATAPLANE: usize = 256 << 10;
/// Inbounds in a state.
pub(super) const INBOUNDS: usize = 1000;
/// Any text that a proxy says about itself: versions, names, addresses.
pub(super) const TEXT: usize = 512;
/// Certificates that a proxy believes, as PEM.
pub(super) const CA: usize = 256 << 10;
/// The largest request of Envoy: names that it asks for, at most.
pub(super) const ADS_MESSAGE: usize = 16 << 20;
/// ADS streams of one proxy at once.
pub(super) const STREAMS: usize = 4;
/// MeshTrusts that are named for each proxy: it may have one of each zone.
pub(super) const TRUSTS: usize = 32;
/// The body of a request for a bootstrap.
pub(super) const BOOTSTRAP: usize = 512 << 10;
/// Problems that a proxy is told, and how much of each.
pub(super) const PROBLEMS: usize = 50;
/// How much of what Envoy says is kept.
pub(super) const PROBLEM: usize = 1000;
/// Streams of one connection.
pub(super) const CONNECTION_STREAMS: u32 = 64;
/// How often a silent connection is asked for a sign of life, and what it has to give one.
pub(super) const SIGN_OF_LIFE: (Duration, Duration) =
    (Duration::from_secs(10), Duration::from_secs(5));
/// What connections have to end at a shutdown.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
