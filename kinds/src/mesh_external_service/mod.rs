//! MeshExternalService: a service outside the mesh.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    Endpoint, Extension, Match, MatchType, MeshExternalService, Protocol, SanMatch, SanMatchType,
    Status, Tls, Verification, VerificationMode,
};

use resource::{Flow, Json, Kind, NameRule, Scope, Spec, Violations};

/// See [`MeshExternalService`].
pub const KIND: Kind = Kind::of::<MeshExternalService>();

impl Spec for MeshExternalService {
    type Encoding = Json;
    type Status = Status;

    const KIND: &'static str = "MeshExternalService";
    const PLURAL: &'static str = "meshexternalservices";
    const SHORT: &'static str = "extsvc";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::BothWays;
    const NAME: NameRule = NameRule::Label;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        validate::validate(self, violations);
    }
}

impl resource::Status for Status {}
