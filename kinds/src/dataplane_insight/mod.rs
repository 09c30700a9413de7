//! DataplaneInsight: what a zone knows about a proxy.

use crate::{
    protobuf::{self, Protobuf},
    stay,
};
use jiff::Timestamp;
use prost_types::{Timestamp as Time, value::Kind as Value};
use proto::kuma::mesh::v1alpha1::DataplaneInsight as Message;
use resource::{
    Access, CustomResource, Encoding as _, Export, Flow, Kind, NoStatus, Peer, ResourceKey, Scope,
    Spec, Violations,
};

/// See [`DataplaneInsight`].
pub const KIND: Kind = Kind::of::<DataplaneInsight>();

/// The field of the metadata that lists what is wrong.
pub const PROBLEMS: &str = "problems";

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
    const CUSTOM: Option<CustomResource> =
        Some(CustomResource { names_mesh: true, content: "status", ..CustomResource::NAMESPACED });

    /// Times that are none, and numbers that JSON does not have, cannot be shown.
    fn validate(&self, violations: &mut Violations) {
        if let Err(error) = Protobuf::<Message>::to_json(self) {
            violations.add("spec", error);
        }
    }

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
    fn stays(&self) -> impl Iterator<Item = (&Option<Time>, &Option<Time>)> {
        self.0.subscriptions.iter().map(|one| (&one.connect_time, &one.disconnect_time))
    }

    /// Whether the proxy is connected to a control plane.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.stays().any(|(began, ended)| stay::is_open(began, ended))
    }

    /// Since when it is connected, or else since when it is not; `None` if it never was.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        stay::since(self.stays())
    }

    /// What is wrong with it, as its zone says.
    #[must_use]
    pub fn problems(&self) -> Vec<&str> {
        let metadata = self.0.metadata.as_ref();
        let list = metadata.and_then(|metadata| metadata.fields.get(PROBLEMS)?.kind.as_ref());
        let Some(Value::ListValue(list)) = list else { return Vec::new() };
        let texts = list.values.iter().filter_map(|value| {
            let Some(Value::StringValue(text)) = &value.kind else { return None };
            Some(&**text)
        });
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::kuma::mesh::v1alpha1::DiscoverySubscription;

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
