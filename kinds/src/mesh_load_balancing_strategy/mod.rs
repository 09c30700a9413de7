//! MeshLoadBalancingStrategy: which endpoint of a destination is chosen.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    AffinityTag, Conf, Connection, Cookie, CrossZone, Failover, FailoverThreshold, FilterState,
    FromZones, HashFunction, HashHeader, HashPolicy, HashPolicyType, LeastRequest, LoadBalancer,
    LoadBalancerType, LocalZone, LocalityAwareness, Maglev, MeshLoadBalancingStrategy,
    QueryParameter, Random, RingHash, RoundRobin, ToZones, ToZonesType,
};

use crate::role;
use resource::{Flow, Json, Kind, Labels, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshLoadBalancingStrategy`].
pub const KIND: Kind = Kind::of::<MeshLoadBalancingStrategy>();

impl Spec for MeshLoadBalancingStrategy {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshLoadBalancingStrategy";
    const PLURAL: &'static str = "meshloadbalancingstrategies";
    const SHORT: &'static str = "mlbs";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::Everywhere;
    const TARGETS: Option<Targets> = Some(Targets { to: true, rules: false });

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        validate::validate(self, violations);
    }

    fn is_producer(&self, labels: &Labels) -> bool {
        role::is_producer(self.to.iter().map(|to| &to.target_ref), labels)
    }
}
