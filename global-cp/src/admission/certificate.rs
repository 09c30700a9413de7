//! Which zone a client certificate is of.

use identity::tls::{Fingerprint, NoFingerprint, Peer};
use kds::global::Refused;
use resource::ZoneName;
use std::collections::BTreeSet;

/// What the path of a zone's SPIFFE ID begins with.
const PATH: &str = "/zone/";

/// The zone that a certificate names, which must be the `claimed` one; `None` if it names nobody.
///
/// It is bound to one zone: with the names of several it would be a key to each of them. DNS names
/// that no zone can have, because they contain a dot, say nothing.
pub(super) fn zone(peer: &Peer, claimed: &str) -> Result<Option<ZoneName>, Refused> {
    if peer.spiffe_ids.len() > 1 {
        let count = peer.spiffe_ids.len();
        let reason = format!("the client certificate has {count} SPIFFE IDs, and not one");
        return Err(Refused::Denied(reason));
    }
    let by_id = peer.spiffe_ids.iter().filter_map(|id| id.path().strip_prefix(PATH));
    let by_dns = peer.dns_names.iter().map(String::as_str);
    let names: BTreeSet<_> = by_id.chain(by_dns).flat_map(ZoneName::new).collect();
    if names.len() > 1 {
        let names = names.iter().map(ZoneName::as_str).collect::<Vec<_>>().join(", ");
        let reason = format!("the client certificate names several zones: {names}");
        return Err(Refused::Denied(reason));
    }
    let zone = names.into_iter().next();
    let shown = !peer.spiffe_ids.is_empty() || !peer.dns_names.is_empty();
    if shown && zone.as_ref().is_none_or(|zone| zone.as_str() != claimed) {
        let reason = format!("the client certificate is not of zone {claimed:?}");
        return Err(Refused::Denied(reason));
    }
    Ok(zone)
}

/// A list of certificates that count no more.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    pub(super) all: BTreeSet<Fingerprint>,
    /// What is none, shortened, and why.
    pub(super) bad: Vec<(String, NoFingerprint)>,
}

/// Reads fingerprints, separated by commas or spaces.
pub(super) fn revoked(list: &str) -> Revoked {
    let mut revoked = Revoked::default();
    let separates = |one: char| one == ',' || one.is_whitespace();
    for entry in list.split(separates).filter(|entry| !entry.is_empty()) {
        match entry.parse() {
            Ok(fingerprint) => drop(revoked.all.insert(fingerprint)),
            Err(error) => revoked.bad.push((entry.chars().take(100).collect(), error)),
        }
    }
    revoked
}
