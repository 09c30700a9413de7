//! MeshAccessLog: where proxies write down what they did.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    Attribute, Backend, BackendType, Conf, Field, File, Format, FormatType, MeshAccessLog,
    OpenTelemetry, Tcp,
};

use crate::{Conditions, role};
use resource::{Flow, Json, Kind, Labels, Scope, Spec, Targets, Violations};

/// See [`MeshAccessLog`].
pub const KIND: Kind = Kind::of::<MeshAccessLog>();

impl Spec for MeshAccessLog {
    type Encoding = Json;
    type Status = Conditions;

    const KIND: &'static str = "MeshAccessLog";
    const PLURAL: &'static str = "meshaccesslogs";
    const SHORT: &'static str = "mal";
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
