//! MeshMetric: which metrics proxies offer, and to whom.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    Application, Backend, BackendType, Conf, MeshMetric, OpenTelemetry, Profile, ProfileName,
    Profiles, Prometheus, Selector, SelectorType, Sidecar, Tls, TlsMode,
};

use crate::Conditions;
use resource::{Flow, Json, Kind, Scope, Spec, Targets, Violations};

/// See [`MeshMetric`].
pub const KIND: Kind = Kind::of::<MeshMetric>();

impl Spec for MeshMetric {
    type Encoding = Json;
    type Status = Conditions;

    const KIND: &'static str = "MeshMetric";
    const PLURAL: &'static str = "meshmetrics";
    const SHORT: &'static str = "mm";
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
