//! MeshRetry: what is tried again, and when.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    BackOff, Conf, Grpc, GrpcRetryOn, HostSelection, Http, MeshRetry, Predicate,
    RateLimitedBackOff, ResetFormat, ResetHeader, Tcp,
};

use crate::role;
use resource::{Flow, Json, Kind, Labels, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshRetry`].
pub const KIND: Kind = Kind::of::<MeshRetry>();

impl Spec for MeshRetry {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshRetry";
    const PLURAL: &'static str = "meshretries";
    const SHORT: &'static str = "mr";
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
