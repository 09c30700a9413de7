//! MeshRateLimit: how often a proxy may be called.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{Conf, Headers, Http, Local, MeshRateLimit, OnRateLimit, Rate, Tcp};

use crate::role;
use resource::{Flow, Json, Kind, Labels, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshRateLimit`].
pub const KIND: Kind = Kind::of::<MeshRateLimit>();

impl Spec for MeshRateLimit {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshRateLimit";
    const PLURAL: &'static str = "meshratelimits";
    const SHORT: &'static str = "mrl";
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
