//! ZoneInsight: what global knows about a zone.

use crate::{
    protobuf::{self, Protobuf},
    stay,
};
use jiff::Timestamp;
use prost_types::Timestamp as Time;
use proto::kuma::system::v1alpha1::ZoneInsight as Message;
use resource::{Access, CustomResource, Flow, Kind, Scope, Spec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// See [`ZoneInsight`].
pub const KIND: Kind = Kind::of::<ZoneInsight>();

protobuf::spec! {
    /// When a zone was connected, and what it runs.
    ZoneInsight(Message)
}

/// What is not in the spec because only a zone of ours says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Why the zone applies nothing of this global, if so: an operator of the zone has to confirm it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

impl resource::Status for Status {}

impl Spec for ZoneInsight {
    type Encoding = Protobuf<Message>;
    type Status = Status;

    const KIND: &'static str = "ZoneInsight";
    const PLURAL: &'static str = "zoneinsights";
    const PATH: &'static str = "zone-insights";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::Local;
    const ACCESS: Access = Access::ReadOnly;
    const CUSTOM: Option<CustomResource> = Some(CustomResource::CLUSTER);
}

impl ZoneInsight {
    fn stays(&self) -> impl Iterator<Item = (&Option<Time>, &Option<Time>)> {
        self.0.subscriptions.iter().map(|one| (&one.connect_time, &one.disconnect_time))
    }

    /// Whether the zone is connected.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.stays().any(|(began, ended)| stay::is_open(began, ended))
    }

    /// Since when it is connected, or else since when it is not; `None` if it never was.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        stay::since(self.stays())
    }
}
