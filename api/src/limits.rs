//! Every bound of the REST API, in one place.

use std::time::Duration;

/// The largest body that is read, in bytes.
pub const BODY: usize = 1024 * 1024;

/// How deep the maps and lists of a body may be nested.
pub const BODY_DEPTH: usize = 64;

/// How many resources a page has if the request does not say.
pub const PAGE_DEFAULT: usize = 100;

/// How many resources a page has at most.
pub const PAGE_MAX: usize = 1000;

/// How many query parameters are looked at.
pub const QUERY_PARAMETERS: usize = 64;

/// How many connections are open at once, in each of the servers. More wait in the kernel's queue.
pub const CONNECTIONS: usize = 1024;

/// How many requests are answered at once on one HTTP/2 connection.
pub const STREAMS: u32 = 100;

/// How many bytes a request's line and headers may have.
pub const HEADERS: usize = 32 * 1024;

/// How long a client may take to send the headers of a request, or its TLS handshake.
pub const HEADERS_TIME: Duration = Duration::from_secs(10);

/// How long a client may take to send a body.
pub const BODY_TIME: Duration = Duration::from_secs(30);

/// How many watches are open at once.
pub const WATCHES: usize = 256;

/// How many Envoys are asked at once: an answer may be large.
pub const INSPECTIONS: usize = 16;

/// How long an Envoy, and everybody on the way to it, may take to answer.
pub const INSPECTION: Duration = Duration::from_secs(15);

/// How long a request for the propagation of a resource waits at most.
pub const WAIT: Duration = Duration::from_secs(30);

/// How many zones one request asks about their proxies at once.
pub const ZONES_ASKED: usize = 64;

/// How soon at the earliest a request asks a zone about its proxies again.
pub const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// How many labels a resource may have.
pub const LABELS: usize = 256;

/// How often a write is tried again when another one came between its reading and its writing.
pub const WRITE_ATTEMPTS: usize = 16;

/// The longest time a token may be valid, and that of one for which nothing was said.
pub const TOKEN_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
