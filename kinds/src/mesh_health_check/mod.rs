//! MeshHealthCheck: how proxies find out which endpoints are healthy.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{Conf, Grpc, Headers, Http, MeshHealthCheck, Tcp};

use crate::role;
use resource::{Flow, Json, Kind, Labels, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshHealthCheck`].
pub const KIND: Kind = Kind::of::<MeshHealthCheck>();

impl Spec for MeshHealthCheck {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshHealthCheck";
    const PLURAL: &'static str = "meshhealthchecks";
    const SHORT: &'static str = "mhc";
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
