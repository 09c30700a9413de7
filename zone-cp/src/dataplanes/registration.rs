//! What is written about a proxy: its Dataplane, its insight, and the address of a zone ingress.

use crate::identities::Issuer;
use daemon::Clock;
use jiff::Timestamp;
use kinds::{
    dataplane::{self, Dataplane},
    dataplane_insight::{self, DataplaneInsight},
    labels::{self, Place},
    mesh_zone_address::{self, MeshZoneAddress},
};
use proto::kuma::mesh::v1alpha1::dataplane::networking::{
    inbound,
    listener::{self, Type as ListenerType},
};
use proto::{
    atoll::proxy::v1::{Hello, State},
    kuma::mesh::v1alpha1::{
        DataplaneInsight as InsightMessage, DiscoverySubscription, EnvoyVersion, KumaDpVersion,
        Version, dataplane_insight::Mtls,
    },
};
use resource::{AnySpec, Kind, Labels, MeshName, Resource, ResourceKey, Violations, label};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use store::{
    Backend, Expected, Item, Kinds, StoreError,
    view::{Edit, KindId, Reader, Revision},
};

/// Marks what is here only while its proxy is.
pub(super) const MANAGER: &str = "proxy-session";
/// As many subscriptions of an insight are kept.
const SUBSCRIPTIONS: usize = 2;

/// Writes about proxies.
pub(super) struct Registry<B> {
    pub(super) store: B,
    pub(super) reader: Reader,
    kinds: Kinds,
    pub(super) place: Place,
    instance: String,
    issuer: Issuer,
    clock: Clock,
    dataplane: KindId,
    insight: KindId,
    address: KindId,
}

/// A proxy as it announced itself.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    pub(super) key: ResourceKey,
    pub(super) labels: Labels,
    pub(super) spec: Dataplane,
    /// The Dataplane as JSON, for Envoy's node.
    pub(super) json: String,
    pub(super) ingress: bool,
}

/// Why an announcement was not taken: what is wrong, with its place.
#[derive(Debug, thiserror::Error)]
#[error("the Dataplane is not valid: {0}")]
pub(super) struct NotValid(String);

impl From<Violations> for NotValid {
    fn from(violations: Violations) -> Self {
        Self(violations.to_string())
    }
}

impl<B: Backend> Registry<B> {
    /// `None` if the store lacks a kind.
    pub(super) fn new(
        store: B,
        kinds: &Kinds,
        place: Place,
        instance: String,
        issuer: Issuer,
        clock: Clock,
    ) -> Option<Self> {
        let id = |kind: Kind| kinds.id_of(kind.name);
        Some(Self {
            reader: store.reader(),
            store,
            dataplane: id(dataplane::KIND)?,
            insight: id(dataplane_insight::KIND)?,
            address: id(mesh_zone_address::KIND)?,
            kinds: kinds.clone(),
            place,
            instance,
            issuer,
            clock,
        })
    }

    /// The Dataplanes that are here only while their proxies are.
    pub(super) fn of_sessions(&self) -> Vec<ResourceKey> {
        let (_, rows) = self.reader.rows(self.dataplane);
        rows.iter().filter(|row| is_ours(row)).map(|row| row.head.key.clone()).collect()
    }

    /// The Dataplane that is stored.
    pub(super) fn stored(&self, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.reader.get(self.dataplane, key)
    }

    /// Reads an announcement.
    pub(super) fn read(&self, hello: &Hello) -> Result<Announced, NotValid> {
        let mesh =
            MeshName::new(&hello.mesh).map_err(|error| NotValid(format!("mesh: {error}")))?;
        let key = ResourceKey::in_mesh(&mesh, &hello.name);
        let json: Value = serde_json::from_str(&hello.dataplane)
            .map_err(|error| NotValid(format!("not JSON: {error}")))?;
        let said = |field: &str, expected: &str| match json.get(field).and_then(Value::as_str) {
            Some(said) if said != expected => {
                Err(NotValid(format!("{field}: {said:?} is not {expected:?}")))
            }
            _ => Ok(()),
        };
        said("type", dataplane::KIND.name)?;
        said("mesh", &hello.mesh)?;
        said("name", &hello.name)?;
        let labels: BTreeMap<String, String> = match json.get("labels") {
            None => BTreeMap::new(),
            Some(labels) => serde_json::from_value(labels.clone())
                .map_err(|error| NotValid(format!("labels: {error}")))?,
        };
        let labels: Labels = labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        let spec = dataplane::KIND.from_json(json).map_err(|error| NotValid(error.to_string()))?;
        let existing = self.stored(&key);
        let request = labels::Request {
            kind: dataplane::KIND,
            key: &key,
            labels: &labels,
            existing: existing.as_ref().map(|row| &row.head.labels),
            spec: &spec,
        };
        let mut labels = labels::computed(&request, &self.place)?;
        // A Dataplane that a user wrote stays when its proxy goes.
        if existing.as_ref().is_none_or(|row| is_ours(row)) {
            labels = labels.with(label::MANAGED_BY, MANAGER);
        }
        let spec = Dataplane::clone(
            spec.downcast_ref().expect("a kind's table holds only specs of that kind"),
        );
        let ingress = spec.has_listener(ListenerType::ZoneIngress);
        Ok(Announced { key, labels, spec, json: hello.dataplane.clone(), ingress })
    }

    /// The proxy is there: writes its Dataplane, its insight and its address at once.
    pub(super) async fn arrive(
        &self,
        announced: &Announced,
        hello: &Hello,
        session: &str,
    ) -> Result<Revision, StoreError> {
        let state = hello.state.clone().unwrap_or_default();
        let mut batch = vec![self.dataplane(announced, &state)];
        batch.push(self.insight(announced, hello, session));
        batch.extend(self.address(announced, hello, state.ready));
        self.commit(batch).await
    }

    /// The proxy's state changed.
    pub(super) async fn change(
        &self,
        announced: &Announced,
        hello: &Hello,
        state: &State,
    ) -> Result<Revision, StoreError> {
        let mut batch = vec![self.dataplane(announced, state)];
        batch.extend(self.address(announced, hello, state.ready));
        self.commit(batch).await
    }

    /// The proxy is gone. A Dataplane that a user wrote stays, and is not ready.
    pub(super) async fn withdraw(&self, key: &ResourceKey) -> Result<(), StoreError> {
        let delete = |kind, expected| Item { kind, expected, edit: Edit::Delete(key.clone()) };
        let mut batch = vec![delete(self.insight, Expected::Anything)];
        if let Some(row) = self.stored(key) {
            if is_ours(&row) {
                batch.push(delete(self.dataplane, Expected::Version(row.head.version)));
            } else if let Ok(spec) = kinds::read::<Dataplane>(&row) {
                let spec = with_state(&spec, &State::default());
                batch.push(self.put(self.dataplane, key, row.head.labels.clone(), Arc::new(spec)));
            }
        }
        if let Some(row) = self.reader.get(self.address, key).filter(|row| is_ours(row)) {
            batch.push(delete(self.address, Expected::Version(row.head.version)));
        }
        self.commit(batch).await.map(drop)
    }

    async fn commit(&self, batch: Vec<Item>) -> Result<Revision, StoreError> {
        let committed = self.store.commit(batch).await?;
        self.store.wait_for(committed.revision).await?;
        Ok(committed.revision)
    }

    fn put(&self, kind: KindId, key: &ResourceKey, labels: Labels, spec: AnySpec) -> Item {
        let (_, known) =
            self.kinds.iter().find(|(id, _)| *id == kind).expect("ids are of the list");
        let bytes = known.encode(&spec).expect("a spec that was read can be written");
        let row = known.resource(key.clone(), labels, bytes, "".into(), self.kinds.peer);
        let row = row.expect("a spec that was valid stays valid whatever its state");
        Item { kind, expected: Expected::Anything, edit: Edit::Put(Arc::new(row)) }
    }

    fn dataplane(&self, announced: &Announced, state: &State) -> Item {
        let spec = with_state(&announced.spec, state);
        self.put(self.dataplane, &announced.key, announced.labels.clone(), Arc::new(spec))
    }

    /// Where other zones come in, while a zone ingress is ready.
    fn address(&self, announced: &Announced, hello: &Hello, ready: bool) -> Option<Item> {
        let advertised = hello.advertised.as_ref().filter(|_| announced.ingress)?;
        let existing = self.reader.get(self.address, &announced.key);
        // One that a user wrote is the user's.
        if existing.as_ref().is_some_and(|row| !is_ours(row)) {
            return None;
        }
        if !ready {
            let edit = Edit::Delete(announced.key.clone());
            return Some(Item { kind: self.address, expected: Expected::Anything, edit });
        }
        let listeners = announced.spec.listeners().iter();
        let own = listeners.filter(|it| it.r#type() == ListenerType::ZoneIngress).map(|it| it.port);
        let port = Some(advertised.port).filter(|port| *port != 0).or_else(|| own.min())?;
        let spec = MeshZoneAddress { address: advertised.host.clone(), port };
        let mut violations = Violations::default();
        resource::Spec::validate(&spec, &mut violations);
        if !violations.is_empty() {
            tracing::warn!(dataplane = %announced.key, %violations, "advertised address refused");
            return None;
        }
        let labels = labels::own(mesh_zone_address::KIND, &announced.key, &self.place);
        let labels = labels.with(label::MANAGED_BY, MANAGER);
        Some(self.put(self.address, &announced.key, labels, Arc::new(spec)))
    }

    fn insight(&self, announced: &Announced, hello: &Hello, session: &str) -> Item {
        let key = &announced.key;
        let before = self.reader.get(self.insight, key);
        let before = before.and_then(|row| kinds::read::<DataplaneInsight>(&row).ok());
        let mut message = before.map_or_else(InsightMessage::default, |it| it.0.clone());
        let now = Some(timestamp(self.clock.now()));
        for subscription in &mut message.subscriptions {
            subscription.disconnect_time = subscription.disconnect_time.or(now);
        }
        message.subscriptions.push(DiscoverySubscription {
            id: session.to_owned(),
            control_plane_instance_id: self.instance.clone(),
            connect_time: now,
            version: Some(Version {
                kuma_dp: Some(KumaDpVersion {
                    version: hello.version.clone(),
                    kuma_cp_compatible: true,
                    ..KumaDpVersion::default()
                }),
                envoy: Some(EnvoyVersion {
                    version: hello.envoy_version.clone(),
                    kuma_dp_compatible: true,
                    ..EnvoyVersion::default()
                }),
                ..Version::default()
            }),
            ..DiscoverySubscription::default()
        });
        let extra = message.subscriptions.len().saturating_sub(SUBSCRIPTIONS);
        message.subscriptions.drain(..extra);
        message.m_tls = self.certificate(key, &announced.labels);
        let labels = labels::own(dataplane_insight::KIND, key, &self.place);
        self.put(self.insight, key, labels, Arc::new(DataplaneInsight(message)))
    }

    fn certificate(&self, key: &ResourceKey, labels: &Labels) -> Option<Mtls> {
        let issued = self.issuer.svid(key, labels).ok()?;
        Some(Mtls {
            certificate_expiration_time: Some(timestamp(issued.svid.not_after)),
            last_certificate_regeneration: Some(timestamp(issued.svid.not_before)),
            certificate_regenerations: 1,
            issued_backend: issued.identity.to_string(),
            supported_backends: Vec::new(),
        })
    }
}

/// Whether a resource is here only while its proxy is.
fn is_ours(row: &Resource) -> bool {
    row.head.labels.get(label::MANAGED_BY) == Some(MANAGER)
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

/// The Dataplane with what its proxy says about itself.
fn with_state(spec: &Dataplane, state: &State) -> Dataplane {
    let mut spec = spec.clone();
    let Some(networking) = &mut spec.0.networking else { return spec };
    for it in &mut networking.inbound {
        if it.state == inbound::State::Ignored as i32 {
            continue;
        }
        let answers = state.inbounds.get(&*dataplane::section(it)).copied().unwrap_or(true);
        let ready = state.ready && answers;
        it.state = if ready { inbound::State::Ready } else { inbound::State::NotReady } as i32;
        if let Some(health) = &mut it.health {
            health.ready = ready;
        }
    }
    let ready = if state.ready { listener::State::Ready } else { listener::State::NotReady };
    for it in &mut networking.listeners {
        it.state = ready as i32;
    }
    spec
}
