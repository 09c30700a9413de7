//! One type on one stream, for a peer that asks by name: Envoy, for endpoints, routes and secrets.
//!
//! Here it is known what the peer wants, so nothing needs to be known about before: a name that is
//! due is looked up, and what is not there is removed.

use super::{Answer, Cursor, Extent, InFlight, Item, Name, Nonce, Nonces, Response, Versions};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a peer can ask for.
pub trait Lookup {
    /// The names that changed after `since`, and where the history is now. `None` for the names if
    /// it does not reach back, or if there is no `since`.
    fn touched(&self, since: Option<Cursor>) -> (Cursor, Option<Vec<Name>>);
    /// The resource of that name, as this peer gets it.
    fn get(&self, name: &Name) -> Option<Item>;
}

/// A subscription by name: at most one response in flight.
#[derive(Debug, Default)]
pub struct Named {
    names: BTreeSet<Name>,
    /// Names to answer, with the version the peer said it holds.
    due: BTreeMap<Name, Option<super::Version>>,
    cursor: Option<Cursor>,
    in_flight: Option<InFlight>,
    refused: Versions,
}

impl Named {
    /// The peer asks for `names`, and holds some of them, as after a reconnect. Each gets an answer,
    /// also one that does not exist and one that was sent before: Envoy waits for it.
    pub fn subscribe(&mut self, names: impl IntoIterator<Item = Name>, held: &Versions) {
        for name in names {
            self.due.insert(name.clone(), held.get(&name).copied());
            self.names.insert(name);
        }
    }

    /// The peer does not want `names` any more and has dropped them.
    pub fn unsubscribe(&mut self, names: &BTreeSet<Name>) {
        self.names.retain(|name| !names.contains(name));
        self.due.retain(|name, _| !names.contains(name));
        self.refused.retain(|name, _| !names.contains(name));
    }

    /// Something made the peer wait for `name` again: Envoy warms a cluster that it was sent anew
    /// until it gets the endpoints, unchanged or not.
    pub fn send_again(&mut self, name: &Name) {
        if self.names.contains(name) {
            self.due.insert(name.clone(), None);
        }
    }

    /// What the peer was sent and did not take.
    #[must_use]
    pub const fn refused(&self) -> &Versions {
        &self.refused
    }

    /// Records the peer's answer. One to anything but the response in flight is ignored.
    pub fn answered(&mut self, nonce: Nonce, answer: &Answer) {
        if let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.nonce == nonce) {
            in_flight.settle(answer, &mut self.refused);
        }
    }

    /// The next response, if the peer is ready for one and anything is due.
    pub fn next(&mut self, lookup: &impl Lookup, nonces: &mut Nonces) -> Option<Response> {
        if self.in_flight.is_some() {
            return None;
        }
        let (cursor, touched) = lookup.touched(self.cursor);
        match touched {
            Some(touched) => {
                let wanted = touched.into_iter().filter(|name| self.names.contains(name));
                self.due.extend(wanted.map(|name| (name, None)));
            }
            None if self.cursor.is_some() => {
                self.due.extend(self.names.iter().map(|name| (name.clone(), None)));
            }
            None => {}
        }
        self.cursor = Some(cursor);
        let (mut upserts, mut removals) = (Vec::new(), Vec::new());
        for (name, held) in std::mem::take(&mut self.due) {
            match lookup.get(&name) {
                Some(item) if held == Some(item.version) => {}
                Some(item) => upserts.push(item),
                None => removals.push(name),
            }
        }
        if upserts.is_empty() && removals.is_empty() {
            return None;
        }
        let (upserts, removals): (Arc<[Item]>, Arc<[Name]>) = (upserts.into(), removals.into());
        let nonce = nonces.next();
        self.in_flight =
            Some(InFlight { nonce, upserts: upserts.clone(), removals: removals.clone() });
        Some(Response { nonce, extent: Extent::Delta, cursor: None, upserts, removals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;
    use bytes::Bytes;
    use std::cell::RefCell;

    #[derive(Default)]
    struct Endpoints {
        there: BTreeMap<Name, Item>,
        touched: RefCell<Option<Vec<Name>>>,
    }

    impl Lookup for Endpoints {
        fn touched(&self, _since: Option<Cursor>) -> (Cursor, Option<Vec<Name>>) {
            (Cursor { epoch: 0, revision: 0 }, self.touched.replace(Some(Vec::new())))
        }

        fn get(&self, name: &Name) -> Option<Item> {
            self.there.get(name).cloned()
        }
    }

    fn item(name: &str, content: u8) -> Item {
        Item { name: name.into(), version: Version([content; 16]), bytes: Bytes::new() }
    }

    fn endpoints(items: &[Item]) -> Endpoints {
        let there = items.iter().map(|item| (item.name.clone(), item.clone())).collect();
        Endpoints { there, touched: RefCell::new(None) }
    }

    type Sent = (Vec<Item>, Vec<Name>);

    fn sent(named: &mut Named, endpoints: &Endpoints, nonces: &mut Nonces) -> Option<Sent> {
        let response = named.next(endpoints, nonces)?;
        named.answered(response.nonce, &Answer::Ack);
        Some((response.upserts.to_vec(), response.removals.to_vec()))
    }

    #[test]
    fn each_name_asked_for_is_answered_once_unless_the_peer_holds_it() {
        let (mut named, mut nonces) = (Named::default(), Nonces::default());
        let there = endpoints(&[item("a", 1), item("b", 1), item("c", 2)]);
        let held = [("b".into(), Version([1; 16])), ("c".into(), Version([1; 16]))].into();
        named.subscribe(["a", "b", "c", "absent"].map(Name::from), &held);
        let expected = (vec![item("a", 1), item("c", 2)], vec!["absent".into()]);
        assert_eq!(sent(&mut named, &there, &mut nonces), Some(expected));
        assert_eq!(sent(&mut named, &there, &mut nonces), None);
        named.subscribe(["a".into()], &Versions::new());
        assert_eq!(sent(&mut named, &there, &mut nonces), Some((vec![item("a", 1)], vec![])));
    }

    #[test]
    fn of_what_changed_only_what_was_asked_for_is_sent() {
        let (mut named, mut nonces) = (Named::default(), Nonces::default());
        let there = endpoints(&[item("a", 1), item("b", 1)]);
        named.subscribe(["a".into()], &Versions::new());
        sent(&mut named, &there, &mut nonces);
        there.touched.replace(Some(vec!["a".into(), "b".into()]));
        assert_eq!(sent(&mut named, &there, &mut nonces), Some((vec![item("a", 1)], vec![])));
        there.touched.replace(None);
        let all = Some((vec![item("a", 1)], vec![]));
        assert_eq!(sent(&mut named, &there, &mut nonces), all, "the history was lost");
        named.unsubscribe(&["a".into()].into());
        there.touched.replace(Some(vec!["a".into()]));
        assert_eq!(sent(&mut named, &there, &mut nonces), None);
    }

    #[test]
    fn endpoints_of_a_cluster_that_was_sent_again_are_sent_again() {
        let (mut named, mut nonces) = (Named::default(), Nonces::default());
        let there = endpoints(&[item("a", 1), item("b", 1)]);
        named.subscribe(["a".into()], &Versions::new());
        sent(&mut named, &there, &mut nonces);
        named.send_again(&"a".into());
        named.send_again(&"b".into());
        assert_eq!(sent(&mut named, &there, &mut nonces), Some((vec![item("a", 1)], vec![])));
    }
}
