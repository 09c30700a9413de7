//! How much a peer may ask of us, and how long we wait for it.

use std::time::Duration;

/// The largest message of a plain peer, in both directions, in bytes.
pub const PLAIN_MESSAGE: usize = 10 * 1024 * 1024;
/// The largest message between two of ours, in bytes.
pub const OWN_MESSAGE: usize = 64 * 1024 * 1024;
/// About so many bytes has a part of a state.
pub(crate) const PART: usize = 128 * 1024;
/// The largest request for resources, or answer to a response, in bytes.
pub(crate) const REQUEST: usize = 4 * 1024 * 1024;
/// So many fields a message has at most: empty ones take far more room than they have bytes.
pub(crate) const FIELDS: usize = 250_000;
/// The longest reason of a refusal, in bytes: it is read by people.
pub(crate) const REASON: usize = 1024;
/// So many refusals a NACK spells out for people.
pub(crate) const REASONS: usize = 32;
/// So much of the text of a NACK is read, in bytes.
pub(crate) const NACK: usize = 16 * 1024;
/// So large a list of refusals a NACK has for programs, in bytes. Without it all are refused.
pub(crate) const NACK_LIST: usize = 1024 * 1024;
/// The longest name of a resource, kind or response that is repeated to the peer, in bytes.
pub(crate) const NAME: usize = 512;
/// So many resources a peer may name in the first requests of a stream: what it holds, or refused.
pub(crate) const NAMES: usize = 50_000;
/// So many refused resources of a kind are remembered. With more a stream begins anew.
pub(crate) const REFUSED: usize = 8192;
/// So many resources the parts of a state have together at most.
pub(crate) const PARTS: usize = 1_000_000;
/// So many labels a resource of a peer may have.
pub(crate) const LABELS: usize = 256;
/// The longest configuration that a control plane says it has, in bytes.
pub(crate) const CONFIG: usize = 256 * 1024;
/// So many messages in a row may change nothing.
pub(crate) const IDLE: u32 = 1000;

/// How long a zone that left may come back before another one of its name is let in: longer than a
/// standby needs to take over.
pub(crate) const RETURN: Duration = Duration::from_secs(30);
/// So many calls of one zone are open at most: two connections that overlap have twelve.
pub(crate) const CALLS_OF_ZONE: usize = 48;
/// So many calls are open on one connection at most.
pub(crate) const CALLS_OF_CONNECTION: u32 = 64;
/// So many requests wait to be sent to a zone at most: first ones and answers, one of each kind.
pub(crate) const REQUESTS: usize = 160;
/// So many answers to requests for unknown kinds wait to be sent at most.
pub(crate) const UNKNOWN_KINDS: usize = 64;
/// So many questions about proxies wait for an answer on one stream at most.
pub(crate) const QUESTIONS: usize = 32;
/// So many of them are about what became of a resource: they may wait, and others shall not.
pub(crate) const PROPAGATIONS: usize = 8;
/// So many resources of a zone wait at most for room under its quota.
pub(crate) const WAITING: usize = 1024;
/// So many bytes of them.
pub(crate) const WAITING_BYTES: usize = 1024 * 1024;
/// So many bytes has the one row of a kind that only two of ours have, whatever the quota is.
pub(crate) const OWN_ROW: u64 = 4096;
/// So often a response is judged anew because others wrote what it is about.
pub(crate) const ATTEMPTS: usize = 8;

/// When global looks at a connection that says nothing, and how long it waits then.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(15);
/// When a zone does. Pings closer together than 15 s make a plain global close the connection.
pub(crate) const ZONE_KEEPALIVE: Duration = Duration::from_secs(20);
/// How long it takes to connect at most.
pub(crate) const DIALING: Duration = Duration::from_secs(10);
/// How long a response may be unanswered, and a first request of one of ours, before the stream is
/// opened anew.
pub(crate) const SILENCE: Duration = Duration::from_secs(300);
/// How often a beacon goes to zones that know them. It is what an idle zone costs, and half of
/// [`STALE`].
pub const BEACON: Duration = Duration::from_secs(10);
/// How old the newest beacon may be that came somewhere: one may be on its way, two are late.
pub const STALE: Duration = Duration::from_secs(20);
/// How soon a zone looks again whether its global goes on, once it hears nothing of it; then after
/// twice as long each time, and [`HEALTH_INTERVAL`] at most.
pub(crate) const DOUBT: Duration = Duration::from_secs(2);
/// How often a zone asks whether global is there, as long as that does not say.
pub(crate) const HEALTH_INTERVAL: Duration = Duration::from_secs(300);
/// How often at most, whatever global says.
pub(crate) const HEALTH_LEAST: Duration = Duration::from_secs(1);
/// How long global may take to say that it is there.
pub(crate) const HEALTH: Duration = Duration::from_secs(15);
/// How long a zone may take to answer a question about a proxy.
pub(crate) const QUESTION: Duration = Duration::from_secs(12);
/// How long a zone waits for the proxy.
pub(crate) const PROXY: Duration = Duration::from_secs(10);
/// How long a zone lets global wait for its proxies: less than a question about a proxy may take.
pub const SETTLING: Duration = Duration::from_secs(8);
/// How long a zone looks at what a global has.
pub(crate) const LOOK: Duration = Duration::from_secs(30);
/// After how long without a word a plain global has shown all it has.
pub(crate) const LOOK_QUIET: Duration = Duration::from_secs(2);
/// So many times the interval of health checks a zone may be silent.
pub(crate) const MISSED: u32 = 2;

/// As much of a text as people read.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}
