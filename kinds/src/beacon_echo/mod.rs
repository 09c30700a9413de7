//! BeaconEcho: how far the beacons of global came in a zone.

use resource::{Access, CustomResource, Flow, Json, Kind, NoStatus, Scope, Spec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// See [`BeaconEcho`].
pub const KIND: Kind = Kind::of::<BeaconEcho>();

/// The name of a zone's only one.
pub const NAME: &str = "echo";

/// The numbers of the newest beacons that came so far; none at all is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeaconEcho {
    /// In the store of the zone.
    pub stored: u64,
    /// In the tables from which proxies get what concerns them.
    #[serde(default)]
    pub reconciled: u64,
    /// At an Envoy, if the zone has a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// The Envoy that is asked, connected or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proxy {
    /// Its Dataplane, as `mesh/name`.
    pub name: String,
    /// The newest that it answered, or one that was asked before it.
    pub answered: u64,
}

impl Spec for BeaconEcho {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "BeaconEcho";
    const PLURAL: &'static str = "beaconechoes";
    const PATH: &'static str = "";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::BeaconToGlobal;
    const ACCESS: Access = Access::ReadOnly;
    const CUSTOM: Option<CustomResource> = None;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_without_proxies_says_so() {
        let echo = BeaconEcho { stored: 9, reconciled: 7, proxy: None };
        let text = serde_json::to_string(&echo).unwrap();
        assert_eq!(text, r#"{"stored":9,"reconciled":7}"#);
        let read: BeaconEcho = serde_json::from_str(r#"{"stored":9}"#).unwrap();
        assert_eq!(read, BeaconEcho { stored: 9, ..BeaconEcho::default() });
    }
}
