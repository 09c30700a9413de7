//! MeshTLS: how proxies speak TLS with each other.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{Conf, MeshTLS, Mode, TlsCipher};

use resource::{Flow, Json, Kind, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshTLS`].
pub const KIND: Kind = Kind::of::<MeshTLS>();

impl Spec for MeshTLS {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshTLS";
    const PLURAL: &'static str = "meshtlses";
    const SHORT: &'static str = "mtls";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::Everywhere;
    const TARGETS: Option<Targets> = Some(Targets { to: false, rules: true });

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        validate::validate(self, violations);
    }
}
