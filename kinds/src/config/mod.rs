//! Config: settings that a control plane keeps for itself.

use crate::protobuf::{self, Protobuf};
use proto::kuma::system::v1alpha1::Config as Message;
use resource::{
    Access, CustomResource, Export, Flow, Kind, NoStatus, Peer, ResourceKey, Scope, Spec,
    TransitName,
};

/// See [`Config`].
pub const KIND: Kind = Kind::of::<Config>();

protobuf::spec! {
    /// One setting.
    Config(Message)
}

impl Spec for Config {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "Config";
    const PLURAL: &'static str = "configs";
    const PATH: &'static str = "";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::GlobalToZonesOrLocal;
    const TRANSIT_NAME: TransitName = TransitName::Kept;
    const ACCESS: Access = Access::ReadOnly;
    const CUSTOM: Option<CustomResource> = None;

    fn export(&self, key: &ResourceKey, _peer: Peer) -> Export<Self> {
        if &*key.name == CLUSTER_ID { Export::AsIs } else { Export::Withheld }
    }
}

/// Names the config that holds the id of the global control plane: the only one that leaves it.
pub const CLUSTER_ID: &str = "kuma-cluster-id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cluster_id_leaves_global() {
        let spec = KIND.from_json(serde_json::json!({ "config": "x" })).unwrap();
        let export = |name: &str| KIND.export(&spec, &ResourceKey::global(name), Peer::Zone);
        assert!(matches!(export("kuma-cluster-id"), Export::AsIs));
        assert!(matches!(export("kuma-internal"), Export::Withheld));
    }
}
