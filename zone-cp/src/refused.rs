//! Tells beside objects of the cluster why global did not take them.

use kds::{
    transit::{Hop, Naming, transit_name},
    zone::State,
};
use kinds::labels::Place;
use kubernetes::controllers::{Complaint, Events, Subject};
use resource::{Head, ZoneName};
use std::{collections::BTreeMap, sync::Arc};
use store::{Backend as _, Kinds, Local};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why, by kind and name in transit.
type Refused = BTreeMap<&'static str, BTreeMap<String, String>>;

/// Where the refused resources are, and who tells about them.
pub(crate) struct Teller {
    pub(crate) place: Place,
    pub(crate) zone: ZoneName,
    pub(crate) kinds: Arc<Kinds>,
    pub(crate) store: Local,
    pub(crate) system_namespace: String,
    pub(crate) events: Events,
}

impl Teller {
    /// Tells of each refusal as long as it stands, until `stop`.
    pub(crate) async fn run(
        self,
        mut state: watch::Receiver<State>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut told = Refused::new();
        loop {
            let news = {
                // Most of its changes are of other things.
                let now = &state.borrow_and_update().refused_by_global;
                (*now != told).then(|| now.clone())
            };
            if let Some(now) = news {
                for (kind, reasons) in &now {
                    let before = told.get(kind);
                    let is_new = |(name, why): &(&String, &String)| {
                        before.is_none_or(|told| told.get(*name) != Some(*why))
                    };
                    self.tell(kind, reasons.iter().filter(is_new).collect());
                }
                told = now;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Ok(()) = state.changed() => {}
                // The client is gone: there will be no others.
                else => {
                    stop.cancelled().await;
                    return Ok(());
                }
            }
        }
    }

    /// One look at all of `kind`, however many are refused.
    fn tell(&self, kind: &str, reasons: BTreeMap<&String, &String>) {
        let found = self.kinds.iter().find(|(_, it)| it.name == kind && it.custom.is_some());
        let Some((id, kind)) = found.filter(|_| !reasons.is_empty()) else { return };
        let hop = Hop::Up(self.zone.clone());
        let transit = |head: &Head| transit_name(&hop.key(head, Naming::Hashed));
        let (_, rows) = self.store.reader().rows(id);
        let own = |head: &&Arc<Head>| self.place.is_origin_of(&head.labels);
        for head in rows.iter().map(|row| &row.head).filter(own) {
            if let Some(why) = reasons.get(&transit(head)) {
                let subject =
                    Subject::of_resource(*kind, &head.key, &head.labels, &self.system_namespace);
                self.events.tell(subject, Complaint::warning("RefusedByGlobal", why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http};
    use daemon::{Clock, Metrics};
    use kinds::labels::Env;
    use parking_lot::Mutex;
    use resource::{MeshName, Peer, ResourceKey, label};
    use serde_json::{Value, json};
    use store::{Expected, Item, Memory, view::Edit};
    use tokio::{sync::mpsc, task::JoinSet};

    /// An API server that takes every event, and shows it.
    fn client() -> (kube::Client, mpsc::UnboundedReceiver<Value>) {
        let (told, seen) = mpsc::unbounded_channel();
        let told = Arc::new(Mutex::new(told));
        let take = move |request: http::Request<kube::client::Body>| {
            let told = told.clone();
            async move {
                let body = request.into_body().collect_bytes().await?;
                told.lock().send(serde_json::from_slice(&body).unwrap()).unwrap();
                Ok::<_, kube::Error>(http::Response::new(Body::from(body)))
            }
        };
        (kube::Client::new(tower::service_fn(take), "default"), seen)
    }

    #[tokio::test(start_paused = true)]
    async fn the_owner_of_what_global_refused_is_told_once_for_each_reason() {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Global };
        let clock = Clock::since(jiff::Timestamp::UNIX_EPOCH);
        let (store, writer) = store::open(Memory::new(1), kinds.clone(), clock.clone()).unwrap();
        let zone = ZoneName::new("east").unwrap();
        let place = Place::Zone { name: zone.clone(), env: Env::Kubernetes };
        let kinds = Arc::new(kinds);
        let kind = kinds::mesh_timeout::KIND.kind;
        let id = kinds.id_of(kind.name).unwrap();
        let timeout = |name: &str, zone: &str, origin: &str| {
            let key = ResourceKey::in_mesh(&MeshName::new("default").unwrap(), name);
            let spec = json!({ "to": [{
                "targetRef": { "kind": "Mesh" }, "default": { "connectionTimeout": "5s" },
            }] });
            let labels = [
                (label::ZONE, zone),
                (label::NAMESPACE, "shop"),
                (label::DISPLAY_NAME, "slow"),
                (label::ORIGIN, origin),
            ];
            let spec = kind.encode(&kind.from_json(spec).unwrap()).unwrap();
            let labels = labels.into_iter().collect();
            let row = kind.resource(key, labels, spec, "".into(), kinds.peer).unwrap();
            Item { kind: id, expected: Expected::Nothing, edit: Edit::Put(Arc::new(row)) }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { Ok(writer.run().await?) });
        // The other one would leave by the same name, were it ours.
        let own = timeout("slow.shop", "east", label::ORIGIN_ZONE);
        let other = timeout("slow-x", "west", label::ORIGIN_GLOBAL);
        store.commit(vec![own, other]).await.unwrap();

        let (client, mut seen) = client();
        let (events, writer) = Events::new(client, "cp-0".into(), clock, &Metrics::default());
        let (stop, state) = (CancellationToken::new(), watch::Sender::new(State::default()));
        let system_namespace = "kuma-system".into();
        let key = ResourceKey::in_mesh(&MeshName::new("default").unwrap(), "slow.shop");
        let row = store.reader().get(id, &key).unwrap();
        let name = transit_name(&Hop::Up(zone.clone()).key(&row.head, Naming::Hashed));
        let teller = Teller { place, zone, kinds, store, system_namespace, events };
        tasks.spawn(teller.run(state.subscribe(), stop.clone()));
        let writing = stop.clone();
        tasks.spawn(async move {
            writer.run(writing).await;
            Ok(())
        });
        let refuse = |why: &str| {
            let reasons = [(name.clone(), why.to_owned())].into();
            state.send_modify(|state| drop(state.refused_by_global.insert(kind.name, reasons)));
        };
        for why in ["it is too many", "it is wrong"] {
            refuse(why);
            let event = seen.recv().await.unwrap();
            let regarding = [&event["regarding"]["namespace"], &event["regarding"]["name"]];
            assert_eq!(regarding, ["shop", "slow"]);
            assert_eq!([&event["reason"], &event["note"]], ["RefusedByGlobal", why]);
            refuse(why);
        }
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap().unwrap();
        }
        assert!(seen.try_recv().is_err(), "it was told again");
    }
}
