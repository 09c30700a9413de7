//! One type on one stream, for a peer that is told which names changed: Envoy.
//!
//! Whoever changes something says under which name, so nothing needs to be known about what was
//! there before: a name that is due is looked up, what is not there is removed. A peer that takes
//! all names of a type costs no more than one that asks for each.

use super::{Answer, InFlight, Item, Name, Nonce, Nonces, Version, Versions};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What is to be said about a name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The peer gets this.
    There(Item),
    /// The peer gets nothing of that name.
    Absent,
    /// Something else comes first; ask again.
    Later,
}

/// Why a name is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The peer asked for it and waits. It said that it holds this version.
    Asked(Option<Version>),
    /// It changed.
    Changed,
}

/// A response to put on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Echoed by the peer.
    pub nonce: Nonce,
    /// Resources to add or replace.
    pub upserts: Arc<[Item]>,
    /// Resources to drop.
    pub removals: Arc<[Name]>,
}

/// What would be sent now.
#[derive(Debug, Default)]
pub struct Draft {
    upserts: Vec<Item>,
    removals: Vec<Name>,
    settled: Vec<Name>,
}

/// A subscription whose names are marked when they change: at most one response in flight.
#[derive(Debug, Default)]
pub struct Named {
    names: BTreeSet<Name>,
    /// The peer takes every name there is.
    all: bool,
    /// The peer waits for the first answer, also for one that says that there is nothing.
    owed: bool,
    due: BTreeMap<Name, Due>,
    in_flight: Option<InFlight>,
    refused: Versions,
}

impl Named {
    /// The peer asks for `names`, and holds some of them, as after a reconnect. Each gets an answer,
    /// also one that does not exist and one that was sent before: Envoy waits for it.
    pub fn subscribe(&mut self, names: impl IntoIterator<Item = Name>, held: &Versions) {
        for name in names {
            self.due.insert(name.clone(), Due::Asked(held.get(&name).copied()));
            self.names.insert(name);
        }
    }

    /// The peer asks for whatever there is: now `there`. It holds some, and some that are gone.
    pub fn subscribe_all(&mut self, there: impl IntoIterator<Item = Name>, held: &Versions) {
        (self.all, self.owed) = (true, true);
        for name in there.into_iter().chain(held.keys().cloned()) {
            let held = held.get(&name).copied();
            self.due.insert(name, Due::Asked(held));
        }
    }

    /// The peer does not want `names` any more and has dropped them.
    pub fn unsubscribe(&mut self, names: &BTreeSet<Name>) {
        self.names.retain(|name| !names.contains(name));
        self.forget_others();
    }

    /// The peer wants only what it named.
    pub fn unsubscribe_all(&mut self) {
        (self.all, self.owed) = (false, false);
        self.forget_others();
    }

    fn forget_others(&mut self) {
        let Self { names, all, due, refused, .. } = self;
        due.retain(|name, _| *all || names.contains(name));
        refused.retain(|name, _| *all || names.contains(name));
    }

    /// What the peer gets under `name` changed.
    pub fn mark(&mut self, name: Name) {
        if self.all || self.names.contains(&name) {
            self.due.entry(name).or_insert(Due::Changed);
        }
    }

    /// Something made the peer wait for `name` again: Envoy warms a cluster that it was sent anew
    /// until it gets the endpoints, unchanged or not.
    pub fn send_again(&mut self, name: &Name) {
        if self.names.contains(name) {
            self.due.insert(name.clone(), Due::Asked(None));
        }
    }

    /// What the peer refused of `name` is worth another attempt, if it still asks for it.
    pub fn try_again(&mut self, name: &Name) {
        if self.all || self.names.contains(name) {
            self.refused.remove(name);
            self.mark(name.clone());
        }
    }

    /// A peer that takes all there is gets a response in any case, if need be an empty one: who
    /// answers it is there.
    pub const fn owe(&mut self) {
        self.owed |= self.all;
    }

    /// How many names the peer asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the peer asked for no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What the peer was sent and did not take.
    #[must_use]
    pub const fn refused(&self) -> &Versions {
        &self.refused
    }

    /// Whether a response waits for its answer.
    #[must_use]
    pub const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// What was sent and is not answered.
    pub fn in_flight(&self) -> impl Iterator<Item = &Item> {
        self.in_flight.iter().flat_map(|in_flight| &*in_flight.upserts)
    }

    /// The response in flight, if it has this nonce.
    #[must_use]
    pub fn waits_for(&self, nonce: Nonce) -> Option<Update> {
        let in_flight = self.in_flight.as_ref().filter(|in_flight| in_flight.nonce == nonce)?;
        let InFlight { nonce, upserts, removals } = in_flight;
        Some(Update { nonce: *nonce, upserts: upserts.clone(), removals: removals.clone() })
    }

    /// Whether anything is due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.owed || !self.due.is_empty()
    }

    /// Records the peer's answer, and returns what it answered. One to anything but the response in
    /// flight is ignored.
    pub fn answered(&mut self, nonce: Nonce, answer: &Answer) -> Option<Update> {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.nonce == nonce)?;
        in_flight.settle(answer, &mut self.refused);
        self.forget_others();
        let InFlight { nonce, upserts, removals } = in_flight;
        Some(Update { nonce, upserts, removals })
    }

    /// What there is to send, if the peer is ready for it. Nothing is sent by that: who finds that
    /// something else comes first drops the draft.
    #[must_use]
    pub fn draft(&self, mut look: impl FnMut(&Name, Due) -> Look) -> Option<Draft> {
        if self.in_flight.is_some() || !self.is_due() {
            return None;
        }
        let mut draft = Draft::default();
        for (name, due) in &self.due {
            match (look(name, *due), *due) {
                (Look::Later, _) => continue,
                (Look::There(item), Due::Asked(held)) if held == Some(item.version) => {}
                (Look::There(item), Due::Changed)
                    if self.refused.get(name) == Some(&item.version) => {}
                (Look::There(item), _) => draft.upserts.push(item),
                // It came and went before the peer heard of it.
                (Look::Absent, Due::Asked(None)) if !self.names.contains(name) => {}
                (Look::Absent, _) => draft.removals.push(name.clone()),
            }
            draft.settled.push(name.clone());
        }
        Some(draft)
    }

    /// Sends a draft, if there is anything in it.
    pub fn send(&mut self, draft: Draft, nonces: &mut Nonces) -> Option<Update> {
        for name in &draft.settled {
            self.due.remove(name);
        }
        let owed = std::mem::take(&mut self.owed);
        if draft.upserts.is_empty() && draft.removals.is_empty() && !owed {
            return None;
        }
        let (upserts, removals) = (Arc::from(draft.upserts), Arc::from(draft.removals));
        let update = Update { nonce: nonces.next(), upserts, removals };
        let Update { nonce, upserts, removals } = update.clone();
        self.in_flight = Some(InFlight { nonce, upserts, removals });
        Some(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// A stream with one type, and what there is of it.
    #[derive(Default)]
    struct Stream {
        named: Named,
        nonces: Nonces,
        there: BTreeMap<Name, Item>,
    }

    type Sent = (Vec<Item>, Vec<Name>);

    impl Stream {
        fn of(items: &[Item]) -> Self {
            let there = items.iter().map(|item| (item.name.clone(), item.clone())).collect();
            Self { there, ..Self::default() }
        }

        fn ask(&mut self, names: &[&str]) {
            self.named.subscribe(names.iter().copied().map(Name::from), &Versions::new());
        }

        fn ask_all(&mut self, held: &[(&str, u8)]) {
            let held = held.iter().map(|(name, content)| ((*name).into(), version(*content)));
            self.named.subscribe_all(self.there.keys().cloned(), &held.collect());
        }

        fn put(&mut self, name: &str, content: u8) {
            self.there.insert(name.into(), item(name, content));
            self.named.mark(name.into());
        }

        fn remove(&mut self, name: &str) {
            self.there.remove(name);
            self.named.mark(name.into());
        }

        fn next(&mut self) -> Option<Update> {
            let there = &self.there;
            let look = |name: &Name, _| there.get(name).cloned().map_or(Look::Absent, Look::There);
            let draft = self.named.draft(look)?;
            self.named.send(draft, &mut self.nonces)
        }

        fn sent(&mut self) -> Option<Sent> {
            self.answered(&Answer::Ack)
        }

        fn answered(&mut self, answer: &Answer) -> Option<Sent> {
            let update = self.next()?;
            assert_eq!(self.named.answered(update.nonce, answer), Some(update.clone()));
            Some((update.upserts.to_vec(), update.removals.to_vec()))
        }
    }

    fn version(content: u8) -> Version {
        Version([content; 16])
    }

    fn item(name: &str, content: u8) -> Item {
        Item { name: name.into(), version: version(content), bytes: Bytes::new() }
    }

    fn upserts(items: &[Item]) -> Option<Sent> {
        Some((items.to_vec(), vec![]))
    }

    fn removals(names: &[&str]) -> Option<Sent> {
        Some((vec![], names.iter().copied().map(Name::from).collect()))
    }

    #[test]
    fn each_name_asked_for_is_answered_once_unless_the_peer_holds_it() {
        let mut stream = Stream::of(&[item("a", 1), item("b", 1), item("c", 2)]);
        let held = [("b".into(), version(1)), ("c".into(), version(1))].into();
        stream.named.subscribe(["a", "b", "c", "absent"].map(Name::from), &held);
        let expected = (vec![item("a", 1), item("c", 2)], vec!["absent".into()]);
        assert_eq!(stream.sent(), Some(expected));
        assert_eq!(stream.sent(), None);
        stream.ask(&["a"]);
        assert_eq!(stream.sent(), upserts(&[item("a", 1)]));
    }

    #[test]
    fn of_what_changed_only_what_was_asked_for_is_sent() {
        let mut stream = Stream::of(&[item("a", 1), item("b", 1)]);
        stream.ask(&["a"]);
        stream.sent();
        stream.put("a", 2);
        stream.put("b", 2);
        assert_eq!(stream.sent(), upserts(&[item("a", 2)]));
        stream.remove("a");
        assert_eq!(stream.sent(), removals(&["a"]));
        stream.named.unsubscribe(&["a".into()].into());
        stream.put("a", 3);
        assert_eq!(stream.sent(), None);
    }

    #[test]
    fn who_takes_all_can_be_asked_for_an_answer() {
        let mut stream = Stream::of(&[item("a", 1)]);
        stream.named.owe();
        assert_eq!(stream.sent(), None, "it takes nothing yet");
        stream.ask_all(&[]);
        stream.sent();
        stream.named.owe();
        assert_eq!(stream.sent(), Some((vec![], vec![])));
        assert_eq!(stream.sent(), None, "once");
        stream.named.owe();
        stream.put("a", 2);
        assert_eq!(stream.sent(), upserts(&[item("a", 2)]), "what is due suffices");
        assert_eq!(stream.sent(), None);
    }

    #[test]
    fn who_takes_all_gets_all_and_then_what_changes() {
        let mut stream = Stream::of(&[item("a", 1), item("b", 1)]);
        stream.ask_all(&[]);
        assert_eq!(stream.sent(), upserts(&[item("a", 1), item("b", 1)]));
        assert_eq!(stream.sent(), None);
        stream.put("c", 1);
        assert_eq!(stream.sent(), upserts(&[item("c", 1)]));
        stream.remove("a");
        assert_eq!(stream.sent(), removals(&["a"]));
        stream.named.unsubscribe_all();
        stream.put("c", 2);
        assert_eq!(stream.sent(), None);
    }

    #[test]
    fn who_takes_all_and_holds_some_gets_the_difference() {
        let mut stream = Stream::of(&[item("same", 1), item("old", 2), item("new", 1)]);
        stream.ask_all(&[("same", 1), ("old", 1), ("gone", 1)]);
        let expected = (vec![item("new", 1), item("old", 2)], vec!["gone".into()]);
        assert_eq!(stream.sent(), Some(expected));
    }

    #[test]
    fn who_takes_all_is_told_that_there_is_nothing_but_not_what_it_never_heard_of() {
        let mut stream = Stream::of(&[item("brief", 1)]);
        stream.ask_all(&[]);
        stream.remove("brief");
        assert_eq!(stream.sent(), upserts(&[]));
        assert_eq!(stream.sent(), None);
    }

    #[test]
    fn nothing_is_sent_while_a_response_is_in_flight_and_changes_gather() {
        let mut stream = Stream::of(&[item("a", 1)]);
        stream.ask_all(&[]);
        let first = stream.next().unwrap();
        stream.put("a", 2);
        stream.put("b", 1);
        stream.remove("b");
        stream.put("a", 3);
        assert_eq!(stream.next(), None);
        assert!(stream.named.in_flight().eq(&[item("a", 1)]));
        assert_eq!(stream.named.answered(Nonce(99), &Answer::Ack), None);
        assert_eq!(stream.next(), None, "99 is not in flight");
        assert_eq!(stream.named.answered(first.nonce, &Answer::Ack), Some(first));
        assert_eq!(stream.sent(), Some((vec![item("a", 3)], vec!["b".into()])));
    }

    #[test]
    fn what_was_refused_is_not_sent_before_it_changes() {
        let mut stream = Stream::of(&[item("a", 1), item("b", 1)]);
        stream.ask_all(&[]);
        stream.answered(&Answer::Refused(["a".into()].into()));
        assert_eq!(*stream.named.refused(), [("a".into(), version(1))].into());
        stream.named.mark("a".into());
        stream.named.mark("b".into());
        assert_eq!(stream.sent(), upserts(&[item("b", 1)]));
        stream.put("a", 2);
        assert_eq!(stream.sent(), upserts(&[item("a", 2)]));
        assert_eq!(*stream.named.refused(), Versions::new());
    }

    #[test]
    fn what_was_refused_is_sent_once_more_if_somebody_thinks_so() {
        let mut stream = Stream::of(&[item("a", 1), item("b", 1)]);
        stream.ask_all(&[]);
        let update = stream.next().unwrap();
        assert_eq!(stream.named.waits_for(Nonce(99)), None);
        assert_eq!(stream.named.waits_for(update.nonce), Some(update.clone()));
        stream.named.answered(update.nonce, &Answer::RefusedSome);
        stream.named.try_again(&"a".into());
        assert_eq!(stream.answered(&Answer::RefusedSome), upserts(&[item("a", 1)]));
        assert_eq!(stream.sent(), None, "once");
        stream.remove("a");
        stream.named.try_again(&"a".into());
        assert_eq!(stream.sent(), removals(&["a"]), "as it is now");
        stream.named.unsubscribe_all();
        stream.named.try_again(&"b".into());
        assert_eq!(stream.sent(), None, "nobody asks for it");
    }

    #[test]
    fn refusals_of_names_that_nobody_asks_for_are_forgotten() {
        let mut stream = Stream::of(&[item("a", 1), item("b", 1)]);
        stream.ask(&["a", "b"]);
        let update = stream.next().unwrap();
        stream.named.unsubscribe(&["a".into()].into());
        stream.named.answered(update.nonce, &Answer::RefusedSome);
        assert_eq!(*stream.named.refused(), [("b".into(), version(1))].into());
    }

    #[test]
    fn endpoints_of_a_cluster_that_was_sent_again_are_sent_again() {
        let mut stream = Stream::of(&[item("a", 1), item("b", 1)]);
        stream.ask(&["a"]);
        stream.answered(&Answer::RefusedSome);
        stream.named.send_again(&"a".into());
        stream.named.send_again(&"b".into());
        assert_eq!(stream.sent(), upserts(&[item("a", 1)]), "also what was refused");
    }

    #[test]
    fn what_comes_later_stays_due() {
        let mut stream = Stream::of(&[item("a", 1), item("b", 1)]);
        stream.ask(&["a", "b"]);
        let look = |name: &Name, due| match (&**name, due) {
            ("a", Due::Asked(None)) => Look::There(item("a", 1)),
            _ => Look::Later,
        };
        let draft = stream.named.draft(look).unwrap();
        let first = stream.named.send(draft, &mut stream.nonces).unwrap();
        assert_eq!(*first.upserts, [item("a", 1)]);
        stream.named.answered(first.nonce, &Answer::Ack);
        assert_eq!(stream.sent(), upserts(&[item("b", 1)]));
        assert!(!stream.named.is_due());
    }

    #[test]
    fn a_draft_that_is_dropped_sends_nothing() {
        let mut stream = Stream::of(&[item("a", 1)]);
        stream.ask_all(&[]);
        drop(stream.named.draft(|_, _| Look::There(item("a", 1))));
        assert_eq!(stream.sent(), upserts(&[item("a", 1)]));
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_owed_to_nobody() {
        let mut stream = Stream::of(&[item("a", 1), item("b", 1)]);
        stream.ask(&["a", "b"]);
        stream.named.unsubscribe(&["a".into()].into());
        assert_eq!(stream.sent(), upserts(&[item("b", 1)]));

        let mut stream = Stream::of(&[]);
        stream.ask_all(&[]);
        stream.named.unsubscribe_all();
        assert_eq!(stream.next(), None);
    }

    #[test]
    fn only_the_response_in_flight_is_waited_for() {
        let mut stream = Stream::of(&[item("a", 1)]);
        stream.ask(&["a"]);
        stream.sent();
        stream.put("a", 2);
        let second = stream.next().unwrap();
        assert_eq!(stream.named.waits_for(Nonce(1)), None);
        assert_eq!(stream.named.answered(Nonce(1), &Answer::Ack), None);
        assert_eq!(stream.named.waits_for(second.nonce), Some(second));
    }
}
