//! Keeps the MeshInsights: how many proxies and resources each mesh has, and how they do.
//!
//! Counts are changed by what changed; nothing is counted again. They are written down at most once
//! a second.

use super::{author::Author, insight::Tally};
use kinds::{
    dataplane::{self, Dataplane, Presence},
    dataplane_insight::{self, DataplaneInsight},
    mesh, mesh_insight,
};
use resource::{Access, Kind, MeshName, ResourceKey, Scope};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{
    Backend, Expected, Item, StoreError,
    view::{Edit, Feed, KindId, KindSet, Reader, Update},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long counts may change before they are written down again.
const PAUSE: Duration = Duration::from_secs(1);
/// What a proxy runs that does not say it.
const UNKNOWN: &str = "unknown";

/// See the module.
#[derive(Debug)]
pub struct MeshInsights {
    author: Author,
    reader: Reader,
    feed: Feed,
    ids: Ids,
    meshes: BTreeMap<MeshName, Counts>,
    proxies: BTreeMap<ResourceKey, Proxy>,
    /// What is counted, but for proxies.
    resources: BTreeSet<(KindId, ResourceKey)>,
    /// Whose counts are not written down.
    changed: BTreeSet<MeshName>,
}

#[derive(Clone, Copy, Debug)]
struct Ids {
    mesh: KindId,
    dataplane: KindId,
    insight: KindId,
}

/// What one proxy adds to the counts of its mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Proxy {
    presence: Presence,
    is_gateway: bool,
    version: Arc<str>,
    envoy: Arc<str>,
    issued: Option<Arc<str>>,
    supported: Vec<Arc<str>>,
}

type Tallies = BTreeMap<Arc<str>, Tally>;

/// What is counted of one mesh.
#[derive(Clone, Debug, Default)]
struct Counts {
    resources: BTreeMap<&'static str, usize>,
    all: Tally,
    standard: Tally,
    gateways: Tally,
    versions: Tallies,
    envoys: Tallies,
    issued: Tallies,
    supported: Tallies,
}

impl MeshInsights {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(author: Author, reader: Reader) -> Self {
        let ids = Ids {
            mesh: author.id(mesh::KIND),
            dataplane: author.id(dataplane::KIND),
            insight: author.id(dataplane_insight::KIND),
        };
        let counted = author.kinds.iter().filter(|(_, kind)| is_counted(kind)).map(|(id, _)| id);
        let all = counted.chain([ids.mesh, ids.insight]);
        let feed = Feed::of(&reader, KindSet::from_iter(all));
        // Of meshes that went while this program did not run.
        let (_, known) = reader.rows(author.id(mesh_insight::KIND));
        let changed = known.iter().filter_map(|row| MeshName::new(&row.head.key.name).ok());
        let changed = changed.collect();
        let (meshes, proxies, resources) = Default::default();
        Self { author, reader, feed, ids, meshes, proxies, resources, changed }
    }

    /// Counts until `stop`, or until the store closes.
    pub async fn run(
        mut self,
        backend: impl Backend,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        let mut next = Instant::now();
        loop {
            let due = !self.changed.is_empty();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                updates = self.feed.next() => match updates {
                    Ok(updates) => self.take(&updates),
                    Err(_) => return Ok(()),
                },
                () = sleep_until(next), if due => {
                    next = Instant::now() + PAUSE;
                    let batch = self.items();
                    if !batch.is_empty() {
                        backend.commit(batch).await?;
                    }
                }
            }
        }
    }

    /// Takes note of what changed. To be told something twice changes nothing.
    fn take(&mut self, updates: &[Update]) {
        for Update { kind, key, now, .. } in updates {
            if *kind == self.ids.mesh {
                self.changed.extend(MeshName::new(&key.name));
            } else if [self.ids.dataplane, self.ids.insight].contains(kind) {
                self.look_at(key);
            } else if let Some(mesh) = key.mesh.clone() {
                let place = (*kind, key.clone());
                let (is_news, one) = match now {
                    Some(_) => (self.resources.insert(place), 1),
                    None => (self.resources.remove(&place), -1),
                };
                if is_news {
                    self.count(*kind, mesh, one);
                }
            }
        }
    }

    fn count(&mut self, kind: KindId, mesh: MeshName, one: isize) {
        let found = self.author.kinds.iter().find(|(id, _)| *id == kind);
        let Some((_, Kind { name, .. })) = found else { return };
        let counts = self.meshes.entry(mesh.clone()).or_default();
        let total = counts.resources.entry(name).or_default();
        *total = total.saturating_add_signed(one);
        if *total == 0 {
            counts.resources.remove(name);
        }
        self.changed.insert(mesh);
    }

    /// A proxy, or what is known about it, is another one.
    fn look_at(&mut self, key: &ResourceKey) {
        let Some(mesh) = key.mesh.clone() else { return };
        let counts = self.meshes.entry(mesh.clone()).or_default();
        let row = self.reader.get(self.ids.dataplane, key);
        let insight = self.reader.get(self.ids.insight, key);
        let now = row.and_then(|row| {
            let dataplane = kinds::read::<Dataplane>(&row).ok()?;
            let insight = insight.and_then(|row| kinds::read::<DataplaneInsight>(&row).ok());
            Some(counts.proxy(&dataplane, insight.as_deref()))
        });
        let before = match &now {
            Some(proxy) => self.proxies.insert(key.clone(), proxy.clone()),
            None => self.proxies.remove(key),
        };
        if before == now {
            return;
        }
        if let Some(proxy) = &now {
            counts.add(proxy);
        }
        if let Some(proxy) = &before {
            counts.remove(proxy);
        }
        self.changed.insert(mesh);
    }

    /// Writes down what is not.
    fn items(&mut self) -> Vec<Item> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|mesh| self.item(mesh)).collect()
    }

    fn item(&mut self, mesh: &MeshName) -> Option<Item> {
        let key = ResourceKey::global(mesh.as_str());
        let written = self.author.get(&self.reader, mesh_insight::KIND, &key);
        if self.reader.get(self.ids.mesh, &key).is_none() {
            self.meshes.retain(|of, counts| of != mesh || !counts.is_empty());
            return written.map(|_| self.author.delete(mesh_insight::KIND, key));
        }
        let counts = self.meshes.get(mesh).cloned().unwrap_or_default();
        let spec = mesh_insight::KIND.from_json(counts.shown());
        let item = spec
            .and_then(|spec| self.author.write(mesh_insight::KIND, key, &spec, Expected::Anything));
        let item = item.inspect_err(|error| tracing::error!(%mesh, %error, "not written")).ok()?;
        let Edit::Put(row) = &item.edit else { return None };
        let same = written.is_some_and(|written| written.head.version == row.head.version);
        (!same).then_some(item)
    }
}

/// What users write, and what is made of it.
fn is_counted(kind: &Kind) -> bool {
    kind.scope == Scope::Mesh && kind.access != Access::ReadOnly
}

/// The one that is there already, so that it is kept once.
fn shared(tallies: &Tallies, name: &str) -> Arc<str> {
    tallies.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone())
}

impl Counts {
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.resources.is_empty()
    }

    fn proxy(&self, dataplane: &Dataplane, insight: Option<&DataplaneInsight>) -> Proxy {
        let is_online = insight.is_some_and(DataplaneInsight::is_online);
        let last = insight.and_then(|insight| insight.0.subscriptions.last());
        let version = last.and_then(|last| last.version.as_ref());
        let proxy = version.and_then(|version| version.kuma_dp.as_ref()).map(|dp| &*dp.version);
        let envoy = version.and_then(|version| version.envoy.as_ref()).map(|it| &*it.version);
        let or_unknown = |text: Option<&str>| match text {
            None | Some("") => UNKNOWN.to_owned(),
            Some(text) => text.to_owned(),
        };
        let mtls = insight.and_then(|insight| insight.0.m_tls.as_ref());
        let issued = mtls.map(|mtls| &*mtls.issued_backend).filter(|issued| !issued.is_empty());
        let supported: BTreeSet<&String> =
            mtls.iter().flat_map(|mtls| &mtls.supported_backends).collect();
        Proxy {
            presence: dataplane.presence(is_online),
            is_gateway: dataplane.is_gateway(),
            version: shared(&self.versions, &or_unknown(proxy)),
            envoy: shared(&self.envoys, &or_unknown(envoy)),
            issued: issued.map(|issued| shared(&self.issued, issued)),
            supported: supported.into_iter().map(|it| shared(&self.supported, it)).collect(),
        }
    }

    fn add(&mut self, proxy: &Proxy) {
        let presence = proxy.presence;
        self.all.add(presence);
        self.sort(proxy).add(presence);
        for (tallies, name) in self.named(proxy) {
            tallies.entry(name.clone()).or_default().add(presence);
        }
        for name in &proxy.supported {
            self.supported.entry(name.clone()).or_default().add(presence);
        }
    }

    fn remove(&mut self, proxy: &Proxy) {
        fn from(tallies: &mut Tallies, name: &Arc<str>, presence: Presence) {
            if let Some(tally) = tallies.get_mut(name) {
                tally.remove(presence);
                if tally.is_empty() {
                    tallies.remove(name);
                }
            }
        }
        let presence = proxy.presence;
        self.all.remove(presence);
        self.sort(proxy).remove(presence);
        for (tallies, name) in self.named(proxy) {
            from(tallies, name, presence);
        }
        for name in &proxy.supported {
            from(&mut self.supported, name, presence);
        }
    }

    const fn sort(&mut self, proxy: &Proxy) -> &mut Tally {
        if proxy.is_gateway { &mut self.gateways } else { &mut self.standard }
    }

    fn named<'a>(
        &'a mut self,
        proxy: &'a Proxy,
    ) -> impl Iterator<Item = (&'a mut Tallies, &'a Arc<str>)> {
        let issued = proxy.issued.as_ref().map(|issued| (&mut self.issued, issued));
        let versions = [(&mut self.versions, &proxy.version), (&mut self.envoys, &proxy.envoy)];
        versions.into_iter().chain(issued)
    }

    fn shown(&self) -> Value {
        let named = |tallies: &Tallies| -> BTreeMap<String, Tally> {
            tallies.iter().map(|(name, tally)| (name.to_string(), *tally)).collect()
        };
        let resources = self.resources.iter().map(|(kind, total)| (*kind, *total));
        let proxies = Some((dataplane::KIND.name, self.all.total()));
        let resources: BTreeMap<&str, Value> = resources
            .chain(proxies.filter(|(_, total)| *total > 0))
            .map(|(kind, total)| (kind, json!({ "total": total })))
            .collect();
        json!({
            "dataplanes": self.all,
            "dataplanesByType": {
                "standard": self.standard,
                "gateway": self.gateways,
                "gatewayDelegated": self.gateways,
            },
            "dpVersions": { "kumaDp": named(&self.versions), "envoy": named(&self.envoys) },
            "mTLS": {
                "issuedBackends": named(&self.issued),
                "supportedBackends": named(&self.supported),
            },
            "resources": resources,
        })
    }
}
