//! What services need to know about a proxy.

use super::hostnames::Name;
use kinds::{
    IntOrString,
    dataplane::{self, Dataplane},
    mesh_identity::{self, MeshIdentity, ProviderType},
    mesh_service::{DataplaneProxies, MeshService, Port},
};
use proto::kuma::mesh::v1alpha1::dataplane::networking::Inbound;
use resource::{Head, Labels, NameRule, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A proxy of this zone.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) head: Arc<Head>,
    pub(super) spec: Arc<Dataplane>,
    /// Who it is, and whether it can prove it; follows from labels, identities and trusts.
    pub(super) who: Who,
}

/// Who a proxy is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// Its SPIFFE IDs, by every identity that selects it and is ready.
    pub(super) ids: BTreeSet<String>,
    /// Whether the identity it gets is ready, and its trust domain is trusted.
    pub(super) proven: bool,
}

/// An identity of the mesh.
#[derive(Debug, PartialEq)]
pub(super) struct Identity {
    pub(super) spec: Arc<MeshIdentity>,
    pub(super) labels: Labels,
    pub(super) ready: bool,
}

impl Proxy {
    /// The workload it is a replica of, if that can be the name of a service.
    pub(super) fn workload(&self) -> Option<&str> {
        workload(&self.head.labels)
    }

    /// The ports of the service of its workload; none if it serves nothing.
    pub(super) fn ports(&self) -> Vec<Port> {
        let mut seen = BTreeSet::new();
        let inbounds = if self.spec.is_gateway() { &[] } else { self.spec.inbounds() };
        // A number can be called once, whatever addresses stand behind it.
        inbounds.iter().filter(|inbound| seen.insert(inbound.port)).map(port).collect()
    }

    /// Whether it can serve every port of `service`.
    pub(super) fn serves(&self, service: &MeshService) -> bool {
        let healthy = |port: &Port| {
            let inbounds = self.spec.inbounds().iter();
            inbounds.filter(|inbound| port.is_served_by(inbound)).any(dataplane::is_healthy)
        };
        service.ports.iter().all(healthy)
    }

    /// Whether it can serve anything.
    pub(super) fn is_healthy(&self) -> bool {
        self.spec.inbounds().iter().any(dataplane::is_healthy)
    }

    /// Who it is. `place` is the same for all proxies of a mesh.
    pub(super) fn identify(
        &self,
        identities: &BTreeMap<Name, Identity>,
        trusted: &BTreeSet<String>,
        place: mesh_identity::Place<'_>,
    ) -> Who {
        let labels = &self.head.labels;
        let ready = identities.values().filter(|it| it.ready && it.spec.selects(labels).is_some());
        let ids = ready.filter_map(|it| it.spec.spiffe_id(place, &it.labels, labels).ok());
        let all = identities.iter().map(|(name, identity)| (name, &*identity.spec));
        let best = mesh_identity::best(all, labels).and_then(|(name, _)| identities.get(name));
        let proven = best.is_some_and(|best| {
            let domain = best.spec.trust_domain(place, &best.labels);
            best.ready && (is_spire(&best.spec) || domain.is_ok_and(|it| trusted.contains(&it)))
        });
        Who { ids: ids.collect(), proven }
    }
}

/// SPIRE knows whom it trusts; nobody tells us.
fn is_spire(identity: &MeshIdentity) -> bool {
    identity.provider.as_ref().is_some_and(|provider| provider.kind == ProviderType::Spire)
}

/// The workload that labels name, if it can be the name of a service.
pub(super) fn workload(labels: &Labels) -> Option<&str> {
    labels.get(label::WORKLOAD).filter(|name| NameRule::Label.check(name).is_ok())
}

fn port(inbound: &Inbound) -> Port {
    Port {
        name: Some(dataplane::section(inbound).into_owned()),
        port: inbound.port,
        target_port: i32::try_from(inbound.port).ok().map(IntOrString::Int),
        app_protocol: dataplane::protocol(inbound).as_str().into(),
    }
}

/// Counts proxies.
pub(super) fn count<'a>(
    proxies: impl Iterator<Item = &'a Proxy>,
    online: &BTreeSet<Name>,
    healthy: impl Fn(&Proxy) -> bool,
) -> DataplaneProxies {
    let mut counts = DataplaneProxies::default();
    for proxy in proxies {
        counts.total += 1;
        counts.connected += u32::from(online.contains(&proxy.head.key.name));
        counts.healthy += u32::from(healthy(proxy));
    }
    counts
}
