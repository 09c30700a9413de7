//! What became of a resource in the proxies of this zone.

use crate::{
    dataplanes::Questions,
    reconcile::{Concerned, Meshes, reaching},
};
use api::propagation::{Propagate, Proxies, RefusedByProxy, State, Zone};
use delta::Name;
use resource::{ResourceKey, ZoneName};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{Kinds, view::KindId};
use tokio::sync::watch;
use xds::Type;

/// So many proxies are named at most, of those that lack something and of those that refused it.
const NAMED: usize = 100;
const FORGOTTEN: &str = "it is not known any more whom the last change concerned";

/// Knows what the proxies of a zone have.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) zone: ZoneName,
    pub(crate) kinds: Arc<Kinds>,
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
        let (_, kind) = self.kinds.iter().find(|(id, _)| *id == kind)?;
        reaching().find(|name| *name == kind.name)?;
        if only.is_some_and(|only| !only.contains(self.zone.as_str())) {
            return Some(Vec::new());
        }
        let proxies = match self.meshes.concerned(kind.name, key) {
            None => Proxies { note: Some(FORGOTTEN.into()), ..Proxies::default() },
            Some(concerned) => shown(&concerned, |proxy| {
                let key = ResourceKey { mesh: key.mesh.clone(), name: proxy.clone() };
                self.envoys.refused(&key)
            }),
        };
        let zone = Zone::new(self.zone.as_str(), State::Applied);
        Some(vec![Zone { proxies: Some(proxies), ..zone }])
    }

    fn changes(&self, _kind: KindId) -> watch::Receiver<u64> {
        self.meshes.moves()
    }
}

fn shown(
    concerned: &[Concerned],
    refused: impl Fn(&Name) -> BTreeMap<(Type, Name), String>,
) -> Proxies {
    let mut shown = Proxies { concerned: concerned.len(), ..Proxies::default() };
    let (mut pending, mut lost) = (0, 0);
    for Concerned { proxy, names, pending: waits } in concerned {
        let of_it = refused(proxy).into_iter().filter(|(what, _)| names.contains(what));
        let of_it: Vec<_> = of_it.collect();
        if !of_it.is_empty() {
            lost += 1;
            let room = NAMED.saturating_sub(shown.refused.len());
            shown.refused.extend(of_it.into_iter().take(room).map(|((kind, name), reason)| {
                let (proxy, what) = (proxy.to_string(), format!("{kind:?} {name}"));
                RefusedByProxy { proxy, what, reason }
            }));
        } else if *waits {
            pending += 1;
            if shown.pending.len() < NAMED {
                shown.pending.push(proxy.to_string());
            }
        }
    }
    shown.applied = concerned.len() - pending - lost;
    shown.state = Some(match (lost, pending) {
        (0, 0) => State::Applied,
        (0, _) => State::Pending,
        _ => State::Refused,
    });
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concerned(proxy: &str, pending: bool) -> Concerned {
        let names = [(Type::Route, "a".into())].into();
        Concerned { proxy: proxy.into(), pending, names }
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
            pending: vec!["late".into()],
            refused: vec![RefusedByProxy {
                proxy: "bad".into(),
                what: "Route a".into(),
                reason: "no such cluster".into(),
            }],
            note: None,
        };
        assert_eq!(shown(&all, refused), expected);
        let none = shown(&[], refused);
        assert_eq!((none.state, none.concerned), (Some(State::Applied), 0));
        let late = shown(&[concerned("late", true)], refused);
        assert_eq!((late.state, late.applied), (Some(State::Pending), 0));
    }

    #[test]
    fn of_many_proxies_some_are_named_and_all_are_counted() {
        let all: Vec<_> = (0..1000).map(|number| concerned(&number.to_string(), true)).collect();
        let waiting = shown(&all, |_| BTreeMap::new());
        assert_eq!((waiting.concerned, waiting.applied, waiting.pending.len()), (1000, 0, NAMED));
        let lost = shown(&all, |_| [((Type::Route, "a".into()), String::new())].into());
        assert_eq!((lost.applied, lost.refused.len(), lost.pending.len()), (0, NAMED, 0));
    }
}
