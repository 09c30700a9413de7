//! How far a peer has come with what it is offered, and what follows from that for one resource.
//!
//! Nobody remembers which peer has which resource. A peer is a place for each kind: what was
//! committed until there it has, and what it has not is an exception, in flight or refused. So a
//! peer that is up to date costs a few words for each kind, whatever the number of resources.

use crate::{offer::Forms, refusal::Refusals};
use delta::{Name, Version, Versions};
use jiff::Timestamp;
use resource::Head;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use store::view::{History, Revision};

/// Of how many answers is known when they came.
const ANSWERS: usize = 32;

/// How far a peer has come with one kind.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// It has everything that was committed until then, but for what it refused.
    until: Option<Revision>,
    refused: BTreeMap<Name, Refused>,
    /// Since when a response waits for its answer.
    sent: Option<Timestamp>,
    /// How large the state is that cannot be sent.
    too_large: Option<usize>,
    /// Where it was before the oldest of `answers`.
    before: Option<Revision>,
    /// When it came how far, oldest first.
    answers: VecDeque<(Revision, Timestamp)>,
}

/// What a peer did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which content.
    pub version: Version,
    /// What it said.
    pub reason: Arc<str>,
    /// When.
    pub since: Timestamp,
}

/// When a peer took a resource, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Then.
    At(Timestamp),
    /// Not later than then.
    Before(Timestamp),
    /// That was too long ago, or while nobody looked.
    Unknown,
}

/// What became of a resource on its way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It is not for this peer.
    NotShown,
    /// The peer has it as it is now.
    Applied(When),
    /// The peer refused it as it is now, and keeps what it had.
    Refused(Refused),
    /// It cannot be read here, so no peer is sent it: each keeps what it had.
    Unreadable,
    /// Neither is known.
    Pending,
}

const FORGOTTEN: &str = "refused before it came back; it did not say again why";

impl Standing {
    /// The peer is at `until` now.
    pub fn stands(
        &mut self,
        until: Option<Revision>,
        refused: &Versions,
        said: &Refusals,
        now: Timestamp,
    ) {
        self.refused.retain(|name, was| refused.get(name) == Some(&was.version));
        let named = said.list.iter().map(|refusal| (&refusal.name, &refusal.reason));
        let named: BTreeMap<&Name, &String> = named.collect();
        for (name, version) in refused {
            let reason = || {
                let text = *named.get(name).unwrap_or(&&said.text);
                Arc::from(if text.is_empty() { FORGOTTEN } else { text })
            };
            let refusal = || Refused { version: *version, reason: reason(), since: now };
            self.refused.entry(name.clone()).or_insert_with(refusal);
        }
        self.sent = None;
        match until {
            Some(until) if self.until != Some(until) => {
                self.answers.push_back((until, now));
                while self.answers.len() > ANSWERS {
                    self.before = self.answers.pop_front().map(|(until, _)| until);
                }
            }
            Some(_) => {}
            // A state begins anew.
            None => (self.before, self.answers) = Default::default(),
        }
        self.until = until;
    }

    /// A stream begins on which the peer is at `until`, so it came there earlier.
    pub fn begins(&mut self, until: Option<Revision>, refused: &Versions, now: Timestamp) {
        self.too_large = None;
        if self.until == until && until.is_some() {
            return self.stands(until, refused, &Refusals::default(), now);
        }
        (self.before, self.answers) = (until, VecDeque::new());
        self.until = until;
        self.stands(until, refused, &Refusals::default(), now);
    }

    /// A response was sent.
    pub fn sent(&mut self, now: Timestamp) {
        self.sent.get_or_insert(now);
    }

    /// The state is larger than what the peer takes.
    pub const fn too_large(&mut self, bytes: usize) {
        self.too_large = Some(bytes);
    }

    /// No stream is open any more.
    pub const fn ended(&mut self) {
        self.sent = None;
    }

    /// Since when a response waits for its answer.
    #[must_use]
    pub const fn unanswered(&self) -> Option<Timestamp> {
        self.sent
    }

    /// How large the state is that cannot be sent, if so.
    #[must_use]
    pub const fn oversize(&self) -> Option<usize> {
        self.too_large
    }

    /// Until where the peer has everything but what it refused.
    #[must_use]
    pub const fn until(&self) -> Option<Revision> {
        self.until
    }

    /// How many resources the peer refused and has not taken since.
    #[must_use]
    pub fn refusals(&self) -> usize {
        self.refused.len()
    }

    fn when(&self, changed: Option<Revision>) -> When {
        let Some(changed) = changed else { return When::Unknown };
        let Some((_, at)) = self.answers.iter().find(|(until, _)| *until >= changed) else {
            return When::Unknown;
        };
        let first = self.answers.front().is_some_and(|(until, _)| *until >= changed);
        match self.before {
            Some(before) if before >= changed => When::Unknown,
            None if first => When::Before(*at),
            Some(_) | None => When::At(*at),
        }
    }
}

/// What became of a resource on its way to a peer that sees `forms` and stands so.
#[must_use]
pub fn reached(history: &History, forms: &Forms, standing: Option<&Standing>) -> Reached {
    let now = history.now.as_ref().and_then(|now| forms.seen(&now.head));
    let Some((name, version)) = &now else { return Reached::NotShown };
    if history.now.as_ref().is_some_and(|now| now.head.unreadable) {
        return Reached::Unreadable;
    }
    let refused = standing.and_then(|standing| standing.refused.get(name));
    if let Some(refused) = refused.filter(|refused| refused.version == *version) {
        return Reached::Refused(refused.clone());
    }
    let Some((standing, until)) = standing.and_then(|it| Some((it, it.until?))) else {
        return Reached::Pending;
    };
    // The last change that the peer could see: others of the resource do not concern it.
    let other =
        |before: &Option<Arc<Head>>| before.as_ref().and_then(|head| forms.seen(head)) != now;
    let changed = history.changes.iter().find(|(_, before)| other(before)).map(|(at, _)| *at);
    if until >= changed.unwrap_or(history.known_after) {
        Reached::Applied(standing.when(changed))
    } else {
        Reached::Pending
    }
}

/// What became of the end of a resource on its way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The peer never had it, as far back as is known.
    NotHeld,
    /// The peer took note that it is gone, or does not see it any more.
    Acknowledged(When),
    /// The peer may still have it.
    Pending,
}

/// What became of the end of a resource, which is not there now, on its way to a peer that saw
/// `forms` and stands so.
#[must_use]
pub fn removal(history: &History, forms: &Forms, standing: Option<&Standing>) -> Removal {
    let shown =
        |before: &Option<Arc<Head>>| before.as_ref().is_some_and(|head| forms.seen(head).is_some());
    // The last time that the peer saw it: until that change it had it.
    let changed = history.changes.iter().find(|(_, before)| shown(before)).map(|(at, _)| *at);
    match standing.and_then(|it| Some((it, it.until?))) {
        Some((standing, until)) if until >= changed.unwrap_or(history.known_after) => match changed
        {
            Some(_) => Removal::Acknowledged(standing.when(changed)),
            None => Removal::NotHeld,
        },
        Some(_) | None => Removal::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        offer::Peer,
        refusal::Refusal,
        testkinds::{TIMEOUT, zone},
        transit::Hop,
    };
    use resource::{Audience, Features, Labels, MeshName, Peer as Side, Resource, ResourceKey};
    use store::view::{Edit, KindId, Loaded, Reader, Writer, view};

    struct Global {
        writer: Writer,
        reader: Reader,
        forms: Forms,
    }

    impl Global {
        fn new(history: usize) -> Self {
            let (writer, reader) = view([Loaded::default()], history);
            let peer = Peer { zone: Some(zone("east")), features: Features::default() };
            Self { writer, reader, forms: Forms::new(TIMEOUT, &Hop::Down, &peer, 1) }
        }

        fn put(&self, name: &str, seconds: u8, audience: Audience) -> Revision {
            let spec = format!(r#"{{"seconds":{seconds}}}"#).into();
            let row = TIMEOUT.resource(key(name), Labels::default(), spec, "".into(), Side::Zone);
            let row: Resource = row.unwrap().shown_to(audience);
            self.writer.apply([(KindId::FIRST, Edit::Put(Arc::new(row)))])
        }

        fn shown(&self, name: &str, seconds: u8) -> Revision {
            self.put(name, seconds, Audience::default())
        }

        fn reached(&self, name: &str, standing: &Standing) -> Reached {
            let history = self.reader.history(KindId::FIRST, &key(name));
            reached(&history, &self.forms, Some(standing))
        }

        fn version(&self, name: &str) -> (Name, Version) {
            let row = self.reader.get(KindId::FIRST, &key(name)).unwrap();
            self.forms.seen(&row.head).unwrap()
        }
    }

    fn key(name: &str) -> ResourceKey {
        ResourceKey::in_mesh(&MeshName::new("default").unwrap(), name)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn came(standing: &mut Standing, until: Revision, second: i64) {
        standing.stands(Some(until), &Versions::new(), &Refusals::default(), at(second));
    }

    #[test]
    fn a_place_says_of_every_resource_whether_the_peer_has_it_and_since_when() {
        let (global, mut east) = (Global::new(8), Standing::default());
        let one = global.shown("a", 1);
        assert_eq!(global.reached("a", &east), Reached::Pending, "nothing is known of it");
        came(&mut east, one, 1);
        assert_eq!(global.reached("a", &east), Reached::Applied(When::Before(at(1))));
        let two = global.shown("b", 1);
        assert_eq!(global.reached("b", &east), Reached::Pending);
        assert_eq!(global.reached("a", &east), Reached::Applied(When::Before(at(1))));
        came(&mut east, two, 2);
        assert_eq!(global.reached("b", &east), Reached::Applied(When::At(at(2))));
        let three = global.shown("a", 2);
        assert_eq!(global.reached("a", &east), Reached::Pending, "it has the content of before");
        came(&mut east, three, 3);
        assert_eq!(global.reached("a", &east), Reached::Applied(When::At(at(3))));
        assert_eq!(global.reached("b", &east), Reached::Applied(When::At(at(2))));
        assert_eq!(global.reached("c", &east), Reached::NotShown);
    }

    #[test]
    fn what_a_peer_cannot_see_concerns_it_not() {
        let (global, mut east) = (Global::new(8), Standing::default());
        let (own, hidden) = (Some(zone("east")), true);
        global.put("own", 1, Audience { owner: own, ..Audience::default() });
        global.put("hidden", 1, Audience { hidden, ..Audience::default() });
        let shown = global.shown("a", 1);
        came(&mut east, shown, 1);
        assert_eq!(global.reached("own", &east), Reached::NotShown);
        assert_eq!(global.reached("hidden", &east), Reached::NotShown);
        // The same again: nothing that the peer sees.
        global.shown("a", 1);
        assert_eq!(global.reached("a", &east), Reached::Applied(When::Before(at(1))));
        global.shown("hidden", 1);
        assert_eq!(global.reached("hidden", &east), Reached::Pending);
    }

    #[test]
    fn a_refusal_is_of_one_content_and_holds_back_no_other() {
        let (global, mut east) = (Global::new(8), Standing::default());
        let (one, two) = (global.shown("a", 1), global.shown("b", 1));
        came(&mut east, one, 1);
        let (name, version) = global.version("b");
        let refused: Versions = [(name.clone(), version)].into();
        let said = Refusals::of(&[Refusal { name, reason: "spec.seconds: no".into() }]);
        east.stands(Some(two), &refused, &said, at(2));
        let no = Refused { version, reason: "spec.seconds: no".into(), since: at(2) };
        assert_eq!(global.reached("b", &east), Reached::Refused(no.clone()));
        assert_eq!(global.reached("a", &east), Reached::Applied(When::Before(at(1))));
        // Another response says nothing about it.
        let three = global.shown("c", 1);
        east.stands(Some(three), &refused, &Refusals::default(), at(3));
        assert_eq!(global.reached("b", &east), Reached::Refused(no));
        let three = global.shown("b", 3);
        let (name, version) = global.version("b");
        let refused: Versions = [(name.clone(), version)].into();
        let said = Refusals::of(&[Refusal { name, reason: "nor this".into() }]);
        east.stands(Some(three), &refused, &said, at(3));
        let no = Refused { version, reason: "nor this".into(), since: at(3) };
        assert_eq!(global.reached("b", &east), Reached::Refused(no), "another content");
        let four = global.shown("b", 2);
        assert_eq!(global.reached("b", &east), Reached::Pending);
        came(&mut east, four, 4);
        assert_eq!(global.reached("b", &east), Reached::Applied(When::At(at(4))));
        assert_eq!(east.refusals(), 0);
    }

    #[test]
    fn a_peer_that_comes_back_is_where_it_says() {
        let (global, mut east) = (Global::new(8), Standing::default());
        let (one, _) = (global.shown("a", 1), global.shown("b", 1));
        let (name, version) = global.version("a");
        east.begins(Some(one), &[(name, version)].into(), at(5));
        let Reached::Refused(refused) = global.reached("a", &east) else { panic!("refused") };
        assert_eq!(&*refused.reason, FORGOTTEN);
        assert_eq!(global.reached("b", &east), Reached::Pending);
        east.begins(Some(one), &Versions::new(), at(6));
        assert_eq!(global.reached("a", &east), Reached::Applied(When::Unknown));
        east.begins(None, &Versions::new(), at(7));
        assert_eq!(global.reached("a", &east), Reached::Pending, "it may have lost all");
    }

    #[test]
    fn a_log_that_does_not_reach_back_leaves_only_the_time_unknown() {
        let (global, mut east) = (Global::new(2), Standing::default());
        let old = global.shown("old", 1);
        came(&mut east, old, 1);
        for seconds in 1..9 {
            global.shown("busy", seconds);
        }
        assert_eq!(global.reached("old", &east), Reached::Pending, "too far behind to tell");
        let (last, _) = global.reader.rows(KindId::FIRST);
        came(&mut east, last, 2);
        assert_eq!(global.reached("old", &east), Reached::Applied(When::Unknown));
        for revision in 10..100 {
            came(&mut east, Revision(revision), 3);
        }
        assert_eq!(east.answers.len(), ANSWERS);
        assert_eq!(global.reached("busy", &east), Reached::Applied(When::Unknown));
    }

    impl Global {
        fn delete(&self, name: &str) -> Revision {
            self.writer.apply([(KindId::FIRST, Edit::Delete(key(name)))])
        }

        fn removal(&self, name: &str, standing: &Standing) -> Removal {
            removal(&self.reader.history(KindId::FIRST, &key(name)), &self.forms, Some(standing))
        }
    }

    #[test]
    fn what_was_deleted_is_gone_when_the_peer_took_note() {
        let (global, mut east) = (Global::new(8), Standing::default());
        let hidden = Audience { hidden: true, ..Audience::default() };
        global.put("hidden", 1, hidden.clone());
        let shown = global.shown("a", 1);
        came(&mut east, shown, 1);
        global.delete("hidden");
        assert_eq!(global.removal("hidden", &east), Removal::NotHeld);
        let deleted = global.delete("a");
        assert_eq!(global.removal("a", &east), Removal::Pending);
        came(&mut east, deleted, 2);
        assert_eq!(global.removal("a", &east), Removal::Acknowledged(When::At(at(2))));
        assert_eq!(global.removal("never", &east), Removal::NotHeld);
        // It was taken away before, and then deleted.
        let again = global.shown("a", 2);
        came(&mut east, again, 3);
        let taken = global.put("a", 2, hidden);
        global.delete("a");
        assert_eq!(global.removal("a", &east), Removal::Pending);
        came(&mut east, taken, 4);
        assert_eq!(global.removal("a", &east), Removal::Acknowledged(When::At(at(4))));
    }

    #[test]
    fn who_is_further_behind_than_the_log_may_still_have_what_was_deleted() {
        let (global, mut east) = (Global::new(2), Standing::default());
        let old = global.shown("a", 1);
        came(&mut east, old, 1);
        global.delete("a");
        for seconds in 1..9 {
            global.shown("busy", seconds);
        }
        assert_eq!(global.removal("a", &east), Removal::Pending);
        assert_eq!(global.removal("a", &Standing::default()), Removal::Pending);
        let (last, _) = global.reader.rows(KindId::FIRST);
        came(&mut east, last, 2);
        assert_eq!(global.removal("a", &east), Removal::NotHeld);
    }

    #[test]
    fn what_cannot_be_read_reached_nobody() {
        let (global, mut east) = (Global::new(8), Standing::default());
        global.shown("a", 1);
        let row = global.reader.get(KindId::FIRST, &key("a")).unwrap();
        let unreadable = Resource::clone(&row).unreadable();
        let edit = Edit::Put(Arc::new(unreadable));
        let revision = global.writer.apply([(KindId::FIRST, edit)]);
        came(&mut east, revision, 1);
        assert_eq!(global.reached("a", &east), Reached::Unreadable);
    }

    #[test]
    fn what_waits_for_an_answer_waits_since_the_first_of_it_was_sent() {
        let mut east = Standing::default();
        assert_eq!(east.unanswered(), None);
        east.sent(at(1));
        east.sent(at(2));
        assert_eq!(east.unanswered(), Some(at(1)));
        came(&mut east, Revision(1), 3);
        assert_eq!(east.unanswered(), None);
        east.sent(at(4));
        assert_eq!(east.unanswered(), Some(at(4)));
        east.ended();
        assert_eq!(east.unanswered(), None);
    }

    #[test]
    fn a_state_that_is_too_large_is_so_until_a_stream_begins() {
        let mut east = Standing::default();
        east.too_large(5);
        came(&mut east, Revision(1), 1);
        assert_eq!(east.oversize(), Some(5));
        east.begins(Some(Revision(1)), &Versions::new(), at(2));
        assert_eq!(east.oversize(), None);
    }

    #[test]
    fn when_it_came_is_known_of_so_many_answers_and_of_none_before_a_state_that_begins_anew() {
        let mut east = Standing::default();
        let seconds = |east: &Standing, revision: u64| east.when(Some(Revision(revision)));
        for second in 1..=ANSWERS {
            came(&mut east, Revision(second as u64), second as i64);
        }
        assert_eq!(seconds(&east, 1), When::Before(at(1)));
        assert_eq!(seconds(&east, 2), When::At(at(2)));
        came(&mut east, Revision(99), 99);
        assert_eq!(seconds(&east, 1), When::Unknown, "that is as long ago as nothing is known of");
        assert_eq!(seconds(&east, 2), When::At(at(2)));
        east.stands(None, &Versions::new(), &Refusals::default(), at(100));
        came(&mut east, Revision(101), 101);
        assert_eq!(seconds(&east, 2), When::Before(at(101)));
    }
}
