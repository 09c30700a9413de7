//! MeshFaultInjection: faults that are made on purpose.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{Abort, Conf, Delay, Fault, MeshFaultInjection, ResponseBandwidth};

use crate::role;
use resource::{Flow, Json, Kind, Labels, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshFaultInjection`].
pub const KIND: Kind = Kind::of::<MeshFaultInjection>();

impl Spec for MeshFaultInjection {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshFaultInjection";
    const PLURAL: &'static str = "meshfaultinjections";
    const SHORT: &'static str = "mfi";
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
