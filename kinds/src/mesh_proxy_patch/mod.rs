//! MeshProxyPatch: changes of the Envoy configuration of proxies.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    Change, ClusterMatch, Conf, FilterMatch, FilterOperation, JsonPatch, ListenerMatch,
    MeshProxyPatch, Modification, Operation, VirtualHostChange, VirtualHostMatch,
};

use resource::{Flow, Json, Kind, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshProxyPatch`].
pub const KIND: Kind = Kind::of::<MeshProxyPatch>();

impl Spec for MeshProxyPatch {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshProxyPatch";
    const PLURAL: &'static str = "meshproxypatches";
    const SHORT: &'static str = "mpp";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::Everywhere;
    const TARGETS: Option<Targets> = Some(Targets { to: false, rules: false });

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        validate::validate(self, violations);
    }
}
