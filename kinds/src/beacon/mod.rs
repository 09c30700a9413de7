//! Beacon: what global writes now and then to see how far it gets.
//!
//! It goes the way of every change: the writer of global, its view, the stream to a zone, the zone's
//! store and tables, and one Envoy. How far it came the zone says by a [`beacon_echo`](super::beacon_echo).

use resource::{Access, CustomResource, Flow, Json, Kind, NoStatus, Scope, Spec, TransitName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// See [`Beacon`].
pub const KIND: Kind = Kind::of::<Beacon>();

/// The name of the only one.
pub const NAME: &str = "beacon";

/// One beat. The next one takes its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Beacon {
    /// Greater than that of all before, also of a store that was lost: milliseconds since 1970,
    /// unless the clock went back.
    pub number: u64,
}

impl Spec for Beacon {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "Beacon";
    const PLURAL: &'static str = "beacons";
    const PATH: &'static str = "";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::BeaconToZones;
    const TRANSIT_NAME: TransitName = TransitName::Kept;
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
    fn no_user_and_no_kuma_peer_sees_it() {
        assert_eq!((KIND.path, KIND.access), ("", Access::ReadOnly));
        let flow = KIND.flow;
        assert_eq!([flow.requested_by_zones(), flow.requested_by_global()], [false; 2]);
        assert_eq!(KIND.to_json(br#"{"number":7}"#).unwrap(), serde_json::json!({ "number": 7 }));
    }
}
