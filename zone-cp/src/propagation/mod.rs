//! What became of a resource in the proxies of this zone.

mod numbers;

pub(crate) use self::numbers::Numbers;

use crate::{
    dataplanes::Questions,
    reconcile::{Concerned, Meshes, reaching},
};
use api::propagation::{Patience, Propagate, Proxies, RefusedByProxy, State, TakenByProxy, Zone};
use bytes::Bytes;
use daemon::Clock;
use delta::Name;
use futures::future::BoxFuture;
use kds::{
    admin::{Answerer, Question, When},
    limit,
};
use resource::{ResourceKey, ZoneName};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{
    Kinds,
    view::{KindId, Reader},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use xds::Type;

/// So many proxies are named at most, of those that took it, that lack something and that refused it.
const NAMED: usize = 100;
/// So long at least lies between two looks for one who waits: proxies answer one by one.
const PACE: Duration = Duration::from_millis(100);
pub(crate) const FORGOTTEN: &str = "it is not known any more whom the last change concerned";
pub(crate) const ALL: &str =
    "it is not known any more whom the last change concerned; every proxy took all that there is";
pub(crate) const NOT_YET: &str = "the zone has not worked out yet what its proxies get";

/// Knows what the proxies of a zone have.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) zone: ZoneName,
    pub(crate) kinds: Arc<Kinds>,
    pub(crate) reader: Reader,
    pub(crate) clock: Clock,
    pub(crate) meshes: Meshes,
    pub(crate) envoys: Questions,
}

impl Propagate for Own {
    fn of(
        &self,
        kind: KindId,
        key: &ResourceKey,
        only: Option<&BTreeSet<String>>,
    ) -> Option<Vec<Zone>> {
        let proxies = self.proxies_of(kind, key)?;
        if only.is_some_and(|only| !only.contains(self.zone.as_str())) {
            return Some(Vec::new());
        }
        let zone = Zone::new(self.zone.as_str(), State::Applied);
        Some(vec![Zone { proxies: Some(proxies), ..zone }])
    }

    fn changes(&self, _kind: KindId) -> watch::Receiver<u64> {
        self.meshes.moves()
    }

    fn proxies(
        &self,
        _kind: KindId,
        _key: &ResourceKey,
        _zone: &str,
        _patience: Patience,
    ) -> Option<BoxFuture<'static, Proxies>> {
        None
    }
}

impl Own {
    /// What became of a resource in the proxies; `None` if its kind does not reach any.
    fn proxies_of(&self, id: KindId, key: &ResourceKey) -> Option<Proxies> {
        let (_, kind) = self.kinds.iter().find(|(known, _)| *known == id)?;
        reaching().find(|name| *name == kind.name)?;
        // Read before the tables: what they have then is not older than that.
        let (revision, _) = self.reader.rows(id);
        if !self.meshes.has_applied(revision) {
            return Some(Proxies::only(State::Pending, NOT_YET));
        }
        Some(match self.meshes.concerned(kind.name, key) {
            None if self.have_all(key) => Proxies::only(State::Applied, ALL),
            None => Proxies { note: Some(FORGOTTEN.into()), ..Proxies::default() },
            Some(concerned) => shown(&concerned, |proxy| {
                let key = ResourceKey { mesh: key.mesh.clone(), name: proxy.clone() };
                self.envoys.refused(&key)
            }),
        })
    }

    /// Whether all proxies of the mesh of a resource took everything, so that they have it too.
    fn have_all(&self, key: &ResourceKey) -> bool {
        let Some(mesh) = &key.mesh else { return false };
        self.meshes.is_settled(mesh) && !self.envoys.refuses(mesh)
    }

    /// What global is told about a resource that is called `key` here.
    async fn tell(&self, kind: &str, key: &ResourceKey, when: When) -> Result<Bytes, String> {
        let id = self.kinds.id_of(kind).ok_or("the zone does not know the kind")?;
        let until = Instant::now() + limit::SETTLING;
        let mut moves = self.meshes.moves();
        loop {
            moves.borrow_and_update();
            self.reader.get(id, key).ok_or("the zone does not have it")?;
            let proxies = self.proxies_of(id, key).ok_or("the kind reaches no proxies")?;
            let waits = proxies.state == Some(State::Pending) && when == When::Settled;
            let soonest = Instant::now() + PACE;
            if !waits || !matches!(timeout_at(until, moves.changed()).await, Ok(Ok(()))) {
                return serde_json::to_vec(&proxies).map(Bytes::from).map_err(|it| it.to_string());
            }
            sleep_until(soonest).await;
        }
    }
}

/// Answers what global asks: about Envoys, and about what became of resources in them.
#[derive(Clone, Debug)]
pub(crate) struct Answers(pub(crate) Own);

impl Answerer for Answers {
    fn answer(&self, question: Question) -> BoxFuture<'static, Result<Bytes, String>> {
        let Self(own) = self.clone();
        let Some((kind, when)) = question.asks_propagation() else {
            return own.envoys.answer(question);
        };
        let (kind, key) = (kind.to_owned(), question.key());
        Box::pin(async move {
            let key = key.ok_or("there can be no such mesh")?;
            own.tell(&kind, &key, when).await
        })
    }
}

fn shown(
    concerned: &[Concerned],
    refused: impl Fn(&Name) -> BTreeMap<(Type, Name), String>,
) -> Proxies {
    let mut shown = Proxies { concerned: concerned.len(), ..Proxies::default() };
    let (mut pending, mut lost) = (0, 0);
    for Concerned { proxy, names, pending: waits, answered, .. } in concerned {
        if *waits {
            // What it refused of before it may take now.
            pending += 1;
            if shown.pending.len() < NAMED {
                shown.pending.push(proxy.to_string());
            }
            continue;
        }
        let of_it = refused(proxy).into_iter().filter(|(what, _)| names.contains(what));
        let of_it: Vec<_> = of_it.collect();
        if of_it.is_empty() {
            if shown.took.len() < NAMED {
                shown.took.push(TakenByProxy { proxy: proxy.to_string(), at: *answered });
            }
        } else {
            lost += 1;
            let room = NAMED.saturating_sub(shown.refused.len());
            shown.refused.extend(of_it.into_iter().take(room).map(|((kind, name), reason)| {
                let (proxy, what) = (proxy.to_string(), format!("{kind:?} {name}"));
                RefusedByProxy { proxy, what, reason }
            }));
        }
    }
    shown.applied = concerned.len() - pending - lost;
    shown.state = Some(match (lost, pending) {
        (0, 0) => State::Applied,
        (0, _) => State::Pending,
        _ => State::Refused,
    });
    let told = concerned.first().map(|it| it.since);
    shown.since = told.filter(|_| shown.state != Some(State::Applied));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn concerned(proxy: &str, pending: bool) -> Concerned {
        let names = [(Type::Route, "a".into())].into();
        let answered = Timestamp::from_second(1).ok().filter(|_| !pending);
        Concerned { proxy: proxy.into(), pending, answered, since: Timestamp::UNIX_EPOCH, names }
    }

    fn took(proxy: &str) -> TakenByProxy {
        TakenByProxy { proxy: proxy.into(), at: Timestamp::from_second(1).ok() }
    }

    fn refused(proxy: &Name) -> BTreeMap<(Type, Name), String> {
        let what = match &**proxy {
            "bad" => "a",
            "other" => "b",
            _ => return BTreeMap::new(),
        };
        [((Type::Route, what.into()), "no such cluster".to_owned())].into()
    }

    #[test]
    fn a_proxy_has_it_lacks_it_or_refused_it_with_what_envoy_said() {
        let all = [("bad", false), ("good", false), ("late", true), ("other", false)];
        let all = all.map(|(proxy, pending)| concerned(proxy, pending));
        let expected = Proxies {
            state: Some(State::Refused),
            concerned: 4,
            applied: 2,
            took: ["good", "other"].map(took).into(),
            pending: vec!["late".into()],
            refused: vec![RefusedByProxy {
                proxy: "bad".into(),
                what: "Route a".into(),
                reason: "no such cluster".into(),
            }],
            since: Some(Timestamp::UNIX_EPOCH),
            note: None,
        };
        assert_eq!(shown(&all, refused), expected);
        let none = shown(&[], refused);
        assert_eq!((none.state, none.concerned, none.since), (Some(State::Applied), 0, None));
        let again = shown(&[concerned("bad", true)], refused);
        assert_eq!(again.state, Some(State::Pending), "it has not answered about the next one");
        let late = shown(&[concerned("late", true)], refused);
        assert_eq!((late.state, late.applied), (Some(State::Pending), 0));
    }

    #[test]
    fn of_many_proxies_some_are_named_and_all_are_counted() {
        let all: Vec<_> = (0..1000).map(|number| concerned(&number.to_string(), true)).collect();
        let waiting = shown(&all, |_| BTreeMap::new());
        assert_eq!((waiting.concerned, waiting.applied, waiting.pending.len()), (1000, 0, NAMED));
        let all: Vec<_> = (0..1000).map(|number| concerned(&number.to_string(), false)).collect();
        let lost = shown(&all, |_| [((Type::Route, "a".into()), String::new())].into());
        assert_eq!((lost.applied, lost.refused.len(), lost.pending.len()), (0, NAMED, 0));
        let good = shown(&all, |_| BTreeMap::new());
        assert_eq!((good.applied, good.took.len()), (1000, NAMED));
    }
}
