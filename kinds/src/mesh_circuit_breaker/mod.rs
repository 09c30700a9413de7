//! MeshCircuitBreaker: how much a destination is asked at once, and which endpoints are left out.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    Conf, ConnectionLimits, Consecutive, Detectors, FailurePercentage, MeshCircuitBreaker,
    OutlierDetection, SuccessRate,
};

use crate::role;
use resource::{Flow, Json, Kind, Labels, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshCircuitBreaker`].
pub const KIND: Kind = Kind::of::<MeshCircuitBreaker>();

impl Spec for MeshCircuitBreaker {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshCircuitBreaker";
    const PLURAL: &'static str = "meshcircuitbreakers";
    const SHORT: &'static str = "mcb";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::Everywhere;
    const TARGETS: Option<Targets> = Some(Targets { to: true, rules: true });

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
