//! MeshZoneAddress: where other zones reach the services of a zone.

use crate::rule;
use resource::{Flow, Json, Kind, NoStatus, Scope, Spec, Violations};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// See [`MeshZoneAddress`].
pub const KIND: Kind = Kind::of::<MeshZoneAddress>();

/// The public address of an ingress of a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeshZoneAddress {
    /// An IP or a DNS name.
    #[schemars(length(min = 1))]
    pub address: String,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
}

impl Spec for MeshZoneAddress {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshZoneAddress";
    const PLURAL: &'static str = "meshzoneaddresses";
    const SHORT: &'static str = "mza";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::ZoneToZones;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        rule::address("spec.address", &self.address, violations);
        rule::port("spec.port", self.port, violations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_can_be_dialled() {
        for (spec, expected) in [
            (r#"{"address":"203.0.113.10","port":10001}"#, ""),
            (r#"{"address":"ingress.example","port":65535}"#, ""),
            (
                r#"{"address":"0.0.0.0","port":0}"#,
                "spec.address: must not be 0.0.0.0 or ::; spec.port: port must be in the range [1, 65535]",
            ),
            (
                r#"{"address":"","port":65536}"#,
                "spec.address: must not be empty; spec.port: port must be in the range [1, 65535]",
            ),
        ] {
            let error = KIND.decode(spec.as_bytes()).err();
            assert_eq!(error.map(|error| error.to_string()).unwrap_or_default(), expected);
        }
    }
}
