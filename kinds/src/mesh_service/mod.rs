//! MeshService: a service of one zone, which every zone can call.

mod spec;
#[cfg(test)]
mod tests;

pub use self::spec::{
    Address, DataplaneProxies, DataplaneRef, GENERATED, GeneratorConditions, GeneratorRef,
    Identity, IdentityType, MeshService, Port, Selector, State, Status, Tls, TlsStatus, Vip,
};

use crate::rule;
use resource::{Flow, Json, Kind, NameRule, Scope, Spec, Violations};

/// See [`MeshService`].
pub const KIND: Kind = Kind::of::<MeshService>();

/// What `appProtocol` may be.
pub const PROTOCOLS: [&str; 4] = ["tcp", "http", "http2", "grpc"];

impl Spec for MeshService {
    type Encoding = Json;
    type Status = Status;

    const KIND: &'static str = "MeshService";
    const PLURAL: &'static str = "meshservices";
    const SHORT: &'static str = "msvc";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::ZoneToZones;
    const NAME: NameRule = NameRule::Label;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        if self.selector.dataplane_ref.is_some() && self.selector.dataplane_labels.is_some() {
            violations.add("spec.selector", "dataplaneRef and dataplaneLabels exclude each other");
        }
        for (i, port) in self.ports.iter().enumerate() {
            rule::port(format_args!("spec.ports[{i}].port"), port.port, violations);
            if !PROTOCOLS.contains(&&*port.app_protocol) {
                let path = format_args!("spec.ports[{i}].appProtocol");
                let known = PROTOCOLS.join(", ");
                violations.add(path, format_args!("must be one of {known}"));
            }
        }
    }
}

impl resource::Status for Status {}

impl MeshService {
    /// The same, with what its zone keeps as it was `before`: that goes on until the zone has looked
    /// at what was written.
    #[must_use]
    pub fn kept(&self, before: &Self) -> Self {
        let identities = before.identities.clone();
        Self { state: before.state, identities, ..self.clone() }
    }
}
