//! MeshTrace: where proxies tell the way of requests.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    ApiVersion, Backend, BackendType, Conf, Datadog, MeshTrace, OpenTelemetry, Sampling, Tag,
    TagHeader, Zipkin,
};

use crate::Conditions;
use resource::{Flow, Json, Kind, Scope, Spec, Targets, Violations};

/// See [`MeshTrace`].
pub const KIND: Kind = Kind::of::<MeshTrace>();

impl Spec for MeshTrace {
    type Encoding = Json;
    type Status = Conditions;

    const KIND: &'static str = "MeshTrace";
    const PLURAL: &'static str = "meshtraces";
    const SHORT: &'static str = "mtr";
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
