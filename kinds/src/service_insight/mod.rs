//! ServiceInsight: how the services of a mesh do. Nobody makes one any more; what an older global
//! has is passed on.

use crate::protobuf::{self, Protobuf};
use proto::kuma::mesh::v1alpha1::ServiceInsight as Message;
use resource::{Access, CustomResource, Flow, Kind, NoStatus, Scope, Spec};

/// See [`ServiceInsight`].
pub const KIND: Kind = Kind::of::<ServiceInsight>();

protobuf::spec! {
    /// How the proxies of each service do.
    ServiceInsight(Message)
}

impl Spec for ServiceInsight {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "ServiceInsight";
    const PLURAL: &'static str = "serviceinsights";
    const PATH: &'static str = "service-insights";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::GlobalToZones;
    const ACCESS: Access = Access::ReadOnly;
    const CUSTOM: Option<CustomResource> = Some(CustomResource::CLUSTER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_json_of_protobuf() {
        let json = serde_json::json!({ "services": { "cart": {
            "status": "partially_degraded",
            "dataplanes": { "total": 2, "online": 1, "offline": 1 },
            "issuedBackends": { "ca-1": 2 },
            "serviceType": "gateway_delegated",
            "addressPort": "cart.mesh:80",
            "zones": ["east"],
        } } });
        let bytes = KIND.encode(&KIND.from_json(json.clone()).unwrap()).unwrap();
        assert_eq!(KIND.to_json(&bytes).unwrap(), json);
    }
}
