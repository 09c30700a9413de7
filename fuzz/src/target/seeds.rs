//! A control plane with one of each.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use jiff::Timestamp;
use kinds::labels::{self, Env, Place};
use resource::{Kind, MeshName, Peer, Resource, ResourceKey, Scope, ZoneName};
use serde_json::Value;
use std::{future::Future, pin::Pin, sync::Arc};
use store::{Backend as _, Expected, Item, Kinds, Local, Memory, StoreError, open, view::Edit};
use tokio::runtime::{Builder, Runtime};

const NOW: i64 = 1_795_457_058;

/// Kinds and specs as other control planes print them, and of kinds that are not in that list.
const SPECS: &str = include_str!("../../../kinds/testdata/wire.txt");
const MORE: &str = r#"Mesh {}
Config {"config":"c1"}
Secret {"data":"c2VjcmV0"}
GlobalSecret {"data":"c2VjcmV0"}
Zone {"enabled":true}
Dataplane {"networking":{"address":"10.0.0.1","inbound":[{"port":80}]}}
DataplaneInsight {}
MeshTrafficPermission {"rules":[{"default":{"allow":[{"spiffeID":{"type":"Prefix","value":"spiffe://a/b"}}]}}]}
"#;

/// A kind and a spec of it, as JSON.
pub(super) fn specs() -> impl Iterator<Item = (&'static str, Value)> {
    let lines = SPECS.lines().chain(MORE.lines());
    lines.filter_map(|line| {
        let (kind, spec) = line.split_once(' ')?;
        Some((kind, serde_json::from_str(spec).ok()?))
    })
}

/// A store in memory with its writer, run by who asks.
pub(super) struct Plane {
    pub(super) kinds: Arc<Kinds>,
    pub(super) store: Local,
    writing: Pin<Box<dyn Future<Output = Result<(), StoreError>>>>,
}

pub(super) fn zone(name: &str) -> Result<ZoneName> {
    Ok(ZoneName::new(name)?)
}

pub(super) fn key(kind: &Kind, name: &str) -> Result<ResourceKey> {
    Ok(match kind.scope {
        Scope::Global => ResourceKey::global(name),
        Scope::Mesh => ResourceKey::in_mesh(&MeshName::new("default")?, name),
    })
}

/// A runtime in which time passes only when nothing else happens.
pub(super) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_time().start_paused(true).build()?)
}

pub(super) fn clock() -> Result<daemon::Clock> {
    let now = Timestamp::from_second(NOW)?;
    Ok(daemon::Clock::of(move || now))
}

impl Plane {
    /// That of a zone, or of global.
    pub(super) fn new(of: Option<&str>) -> Result<Self> {
        let peer = if of.is_none() { Peer::Zone } else { Peer::Global };
        let kinds = Arc::new(Kinds { list: kinds::all().collect(), peer });
        let (store, writer) = open(Memory::new(1), (*kinds).clone(), clock()?)?;
        Ok(Self { kinds, store, writing: Box::pin(writer.run()) })
    }

    /// Does something while the store's writer runs.
    pub(super) async fn with<T>(&mut self, doing: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            done = doing => Ok(done),
            ended = &mut self.writing => {
                ended?;
                anyhow::bail!("the store's writer ended")
            }
        }
    }

    /// One of each kind that is written at `place`, called `name`.
    pub(super) fn one_of_each(&self, place: &Place, name: &str) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for (kind, spec) in specs() {
            let Some((id, kind)) = self.kinds.iter().find(|(_, known)| known.name == kind) else {
                continue;
            };
            if matches!(place, Place::Zone { .. }) && !kind.flow.requested_by_global() {
                continue;
            }
            let name = match kind.name {
                "Mesh" => "default",
                "Config" => "kuma-cluster-id",
                _ => name,
            };
            let key = key(kind, name)?;
            let row = row(kind, key, place, spec, self.kinds.peer)?;
            let edit = Edit::Put(Arc::new(row));
            items.push(Item { kind: id, expected: Expected::Anything, edit });
        }
        Ok(items)
    }

    pub(super) async fn fill(&mut self, place: &Place, name: &str) -> Result<()> {
        let (items, store) = (self.one_of_each(place, name)?, self.store.clone());
        self.with(store.commit(items)).await??;
        Ok(())
    }
}

pub(super) fn place(of: Option<&str>) -> Result<Place> {
    Ok(match of {
        None => Place::Global,
        Some(name) => Place::Zone { name: zone(name)?, env: Env::Universal },
    })
}

fn row(kind: &Kind, key: ResourceKey, place: &Place, spec: Value, peer: Peer) -> Result<Resource> {
    let labels = labels::own(*kind, &key, place);
    let spec = kind.from_json(spec).and_then(|spec| kind.encode(&spec));
    let spec = spec.with_context(|| format!("a spec of {}", kind.name))?;
    Ok(kind.resource(key, labels, spec, Bytes::new(), peer)?)
}
