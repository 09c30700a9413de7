//! MeshPassthrough: what applications may reach outside the mesh.

mod spec;
#[cfg(test)]
mod tests;
mod validate;
mod xds;

pub use self::spec::{Conf, Match, MatchType, MeshPassthrough, PassthroughMode, Protocol};

use ::xds::policy::PolicyKind;
use resource::{Flow, Json, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshPassthrough`].
pub const KIND: PolicyKind = PolicyKind::of::<MeshPassthrough>();

impl Spec for MeshPassthrough {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshPassthrough";
    const PLURAL: &'static str = "meshpassthroughs";
    const SHORT: &'static str = "mp";
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
