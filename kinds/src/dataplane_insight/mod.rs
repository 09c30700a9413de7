//! DataplaneInsight: what a zone knows about a proxy.

use crate::protobuf::{self, Protobuf};
use proto::kuma::mesh::v1alpha1::{DataplaneInsight as Message, DiscoverySubscription};
use resource::{Access, Export, Flow, Kind, NoStatus, Peer, ResourceKey, Scope, Spec};

/// See [`DataplaneInsight`].
pub const KIND: Kind = Kind::of::<DataplaneInsight>();

protobuf::spec! {
    /// When a proxy was connected, and what it runs.
    DataplaneInsight(Message)
}

impl Spec for DataplaneInsight {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "DataplaneInsight";
    const PLURAL: &'static str = "dataplaneinsights";
    const PATH: &'static str = "dataplane-insights";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::ZoneToGlobal;
    const ACCESS: Access = Access::ReadOnly;

    /// Without the heartbeats, which change often and mean nothing elsewhere.
    fn export(&self, _key: &ResourceKey, _peer: Peer) -> Export<Self> {
        if self.0.subscriptions.iter().all(|subscription| subscription.generation == 0) {
            return Export::AsIs;
        }
        let mut quiet = self.clone();
        for subscription in &mut quiet.0.subscriptions {
            subscription.generation = 0;
        }
        Export::Changed(quiet)
    }
}

impl DataplaneInsight {
    /// Whether the proxy is connected to a control plane.
    #[must_use]
    pub fn is_online(&self) -> bool {
        let open = |subscription: &DiscoverySubscription| {
            subscription.connect_time.is_some() && subscription.disconnect_time.is_none()
        };
        self.0.subscriptions.iter().any(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insight(generation: u32) -> DataplaneInsight {
        let subscription = DiscoverySubscription { generation, ..Default::default() };
        DataplaneInsight(Message { subscriptions: vec![subscription], ..Default::default() })
    }

    #[test]
    fn heartbeats_stay_in_the_zone() {
        let export =
            |insight: DataplaneInsight| insight.export(&ResourceKey::global("web-1"), Peer::Global);
        assert_eq!(export(insight(3)), Export::Changed(insight(0)));
        assert_eq!(export(insight(0)), Export::AsIs);
    }

    #[test]
    fn a_proxy_is_online_while_one_subscription_is_open() {
        let mut insight = insight(0);
        assert!(!insight.is_online());
        insight.0.subscriptions[0].connect_time = Some(prost_types::Timestamp::default());
        assert!(insight.is_online());
        insight.0.subscriptions[0].disconnect_time = Some(prost_types::Timestamp::default());
        assert!(!insight.is_online());
    }
}
