//! Workload: the proxies of one workload in a zone, counted.

use crate::mesh_service::DataplaneProxies;
use resource::{Flow, Json, Kind, Scope, Spec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// See [`Workload`].
pub const KIND: Kind = Kind::of::<Workload>();

/// A workload. All there is to say about it is its status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {}

/// What its zone knows about a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// How many proxies it has; all three are always there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane_proxies: Option<Proxies>,
}

/// How many proxies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proxies {
    /// Connected to their control plane.
    pub connected: u32,
    /// Able to serve.
    pub healthy: u32,
    /// Known.
    pub total: u32,
}

impl From<DataplaneProxies> for Proxies {
    fn from(DataplaneProxies { connected, healthy, total }: DataplaneProxies) -> Self {
        Self { connected, healthy, total }
    }
}

impl resource::Status for Status {}

impl Spec for Workload {
    type Encoding = Json;
    type Status = Status;

    const KIND: &'static str = "Workload";
    const PLURAL: &'static str = "workloads";
    const SHORT: &'static str = "wl";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::ZoneToGlobal;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written_even_if_zero() {
        let status =
            Status { dataplane_proxies: Some(Proxies { connected: 1, healthy: 0, total: 1 }) };
        let json = r#"{"dataplaneProxies":{"connected":1,"healthy":0,"total":1}}"#;
        assert_eq!(serde_json::to_string(&status).unwrap(), json);
        assert_eq!(KIND.to_json(b"{}").unwrap(), serde_json::json!({}));
    }
}
