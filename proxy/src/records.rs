//! Names that come over the session, for the server of names.

use dns::Change;
use proto::atoll::proxy::v1 as session;
use std::{net::IpAddr, sync::Arc};
use tracing::warn;

/// Puts what came into the table. The first message of a session is everything; whatever was known
/// before may be out of date.
pub(crate) fn apply(records: &dns::Records, message: session::Records) {
    let upserts = message.upserts.into_iter().map(name);
    if message.complete {
        records.replace(upserts);
        return;
    }
    let removals = message.removals.into_iter().map(Arc::from).collect();
    records.apply(Change { upserts: upserts.collect(), removals });
}

fn name(record: session::Record) -> (Arc<str>, Arc<[IpAddr]>) {
    let address = |text: &String| {
        let address = text.parse::<IpAddr>();
        address.inspect_err(|_| warn!(name = record.name, text, "not an address")).ok()
    };
    (record.name.as_str().into(), record.addresses.iter().filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dns::{Found, Records};

    fn record(name: &str, addresses: &[&str]) -> session::Record {
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        session::Record { name: name.into(), addresses }
    }

    fn message(
        complete: bool,
        upserts: Vec<session::Record>,
        removals: &[&str],
    ) -> session::Records {
        let removals = removals.iter().map(|name| (*name).to_owned()).collect();
        session::Records { nonce: 1, complete, upserts, removals }
    }

    fn found(records: &Records, name: &str) -> Vec<String> {
        let Found::Addresses(addresses) = records.find(name) else { return Vec::new() };
        addresses.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn the_first_message_replaces_what_was_known() {
        let records = Records::default();
        let cart = record("cart.svc.mesh.local.", &["241.0.0.1", "nonsense", "fd00::1"]);
        apply(
            &records,
            message(true, vec![cart, record("old.svc.mesh.local.", &["241.0.0.2"])], &[]),
        );
        assert_eq!(found(&records, "cart.svc.mesh.local."), ["241.0.0.1", "fd00::1"]);
        let web = record("web.svc.mesh.local.", &["241.0.0.3"]);
        apply(&records, message(false, vec![web.clone()], &["old.svc.mesh.local."]));
        assert_eq!(records.len(), 2);
        apply(&records, message(true, vec![web], &[]));
        assert_eq!(records.len(), 1);
    }
}
