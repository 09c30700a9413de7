//! MeshInsight: how many proxies and resources a mesh has, and how they do.

use crate::protobuf::{self, Protobuf};
use proto::kuma::mesh::v1alpha1::MeshInsight as Message;
use resource::{Access, CustomResource, Flow, Kind, NoStatus, Scope, Spec};

/// See [`MeshInsight`].
pub const KIND: Kind = Kind::of::<MeshInsight>();

protobuf::spec! {
    /// What a control plane counted in the mesh of the same name.
    MeshInsight(Message)
}

impl Spec for MeshInsight {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "MeshInsight";
    const PLURAL: &'static str = "meshinsights";
    const PATH: &'static str = "mesh-insights";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::Local;
    const ACCESS: Access = Access::ReadOnly;
    const CUSTOM: Option<CustomResource> = Some(CustomResource::CLUSTER);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a control plane answered for a mesh with three proxies.
    #[test]
    fn it_has_the_json_of_protobuf() {
        let json: serde_json::Value =
            serde_json::from_str(include_str!("testdata/three_proxies.json")).unwrap();
        let bytes = KIND.encode(&KIND.from_json(json.clone()).unwrap()).unwrap();
        assert_eq!(KIND.to_json(&bytes).unwrap(), json);
    }
}
