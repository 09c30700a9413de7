//! MeshTimeout: how long a proxy waits before it gives up.

mod spec;
#[cfg(test)]
mod tests;
mod validate;
mod xds;

pub use self::spec::{Conf, Http, MeshTimeout};

use crate::role;
use ::xds::policy::PolicyKind;
use resource::{Flow, Json, Labels, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshTimeout`].
pub const KIND: PolicyKind = PolicyKind::of::<MeshTimeout>();

impl Spec for MeshTimeout {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshTimeout";
    const PLURAL: &'static str = "meshtimeouts";
    const SHORT: &'static str = "mt";
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
