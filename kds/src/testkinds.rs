//! A few kinds, one for each way in which kinds differ here.

use crate::apply::Received;
use proto::envoy::service::discovery::v3::Resource;
use resource::{
    Export, Flow, Json, Kind, NoStatus, Peer, ResourceKey, Scope, Spec, Status, TransitName,
    Violations, ZoneName,
};
use serde::{Deserialize, Serialize};
use store::Kinds;

macro_rules! kind {
    ($spec:ident, $status:ty, $name:literal, $path:literal, $scope:ident, $flow:ident, $rest:tt) => {
        impl Spec for $spec {
            type Encoding = Json;
            type Status = $status;
            const KIND: &'static str = $name;
            const PLURAL: &'static str = $path;
            const SHORT: &'static str = "";
            const SCOPE: Scope = Scope::$scope;
            const FLOW: Flow = Flow::$flow;
            kind! { @ $rest }
        }
    };
    (@ { $($rest:item)* }) => { $($rest)* };
}

#[derive(Debug, Serialize, Deserialize)]
struct Timeout {
    seconds: u64,
}

kind!(Timeout, NoStatus, "MeshTimeout", "meshtimeouts", Mesh, Everywhere, {
    fn validate(&self, violations: &mut Violations) {
        if self.seconds > 99 {
            violations.add("spec.seconds", "must not be above 99");
        }
    }
});

#[derive(Debug, Serialize, Deserialize)]
struct Service {
    port: u16,
}

#[derive(Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
struct Proxies {
    proxies: u32,
}

impl Status for Proxies {}

kind!(Service, Proxies, "MeshService", "meshservices", Mesh, ZoneToZones, {});

#[derive(Debug, Serialize, Deserialize)]
struct Mesh {}

kind!(Mesh, NoStatus, "Mesh", "meshes", Global, GlobalToZones, {
    const TRANSIT_NAME: TransitName = TransitName::Kept;
});

#[derive(Debug, Serialize, Deserialize)]
struct Config {
    config: String,
}

kind!(Config, NoStatus, "Config", "configs", Global, GlobalToZonesOrLocal, {
    const TRANSIT_NAME: TransitName = TransitName::Kept;
    fn export(&self, key: &ResourceKey, _peer: Peer) -> Export<Self> {
        if &*key.name == "kuma-cluster-id" { Export::AsIs } else { Export::Withheld }
    }
});

#[derive(Debug, Serialize, Deserialize)]
struct Secret {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beats: Option<u64>,
}

kind!(Secret, NoStatus, "Secret", "secrets", Mesh, GlobalToZonesOrLocal, {
    const TRANSIT_NAME: TransitName = TransitName::Kept;
    fn export(&self, _key: &ResourceKey, _peer: Peer) -> Export<Self> {
        Export::Changed(Self { key: "public".into(), beats: None })
    }
    fn transit_key(key: &ResourceKey, _peer: Peer) -> Option<ResourceKey> {
        let name = format!("{}-public", key.name).into();
        Some(ResourceKey { mesh: key.mesh.clone(), name })
    }
});

#[derive(Debug, Serialize, Deserialize)]
struct Trust {
    domain: String,
    bundle: u64,
}

kind!(Trust, NoStatus, "MeshTrust", "meshtrusts", Mesh, BothWays, {
    fn keeps_audience_of(&self, before: &Self) -> bool {
        self.domain == before.domain
    }
});

#[derive(Debug, Serialize, Deserialize)]
struct Beacon {
    number: u64,
}

kind!(Beacon, NoStatus, "Beacon", "beacons", Global, BeaconToZones, {
    const TRANSIT_NAME: TransitName = TransitName::Kept;
});

#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    stored: u64,
}

kind!(Echo, NoStatus, "BeaconEcho", "beaconechoes", Global, BeaconToGlobal, {});

pub(crate) const BEACON: Kind = Kind::of::<Beacon>();
pub(crate) const ECHO: Kind = Kind::of::<Echo>();
pub(crate) const TIMEOUT: Kind = Kind::of::<Timeout>();
pub(crate) const SERVICE: Kind = Kind::of::<Service>();
pub(crate) const MESH: Kind = Kind::of::<Mesh>();
pub(crate) const CONFIG: Kind = Kind::of::<Config>();
pub(crate) const SECRET: Kind = Kind::of::<Secret>();
/// Who sees it is decided by others; not among [`kinds`].
pub(crate) const TRUST: Kind = Kind::of::<Trust>();

pub(crate) fn zone(name: &str) -> ZoneName {
    ZoneName::new(name).unwrap()
}

/// All of them.
pub(crate) fn kinds(peer: Peer) -> Kinds {
    Kinds { list: [TIMEOUT, SERVICE, MESH, CONFIG, SECRET, BEACON, ECHO].into(), peer }
}

/// A resource as it came in, whatever its kind.
pub(crate) fn received(resource: Resource) -> Received {
    let of = |kind| Received::read(&kind, resource.clone()).ok();
    of(TIMEOUT).or_else(|| of(MESH)).unwrap()
}
