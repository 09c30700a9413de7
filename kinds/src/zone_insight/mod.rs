//! ZoneInsight: what global knows about a zone.

use crate::protobuf::{self, Protobuf};
use proto::kuma::system::v1alpha1::{KdsSubscription, ZoneInsight as Message};
use resource::{Access, Flow, Kind, NoStatus, Scope, Spec};

/// See [`ZoneInsight`].
pub const KIND: Kind = Kind::of::<ZoneInsight>();

protobuf::spec! {
    /// When a zone was connected, and what it runs.
    ZoneInsight(Message)
}

impl Spec for ZoneInsight {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "ZoneInsight";
    const PLURAL: &'static str = "zoneinsights";
    const PATH: &'static str = "zone-insights";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::Local;
    const ACCESS: Access = Access::ReadOnly;
}

impl ZoneInsight {
    /// Whether the zone is connected.
    #[must_use]
    pub fn is_online(&self) -> bool {
        let open = |subscription: &KdsSubscription| {
            subscription.connect_time.is_some() && subscription.disconnect_time.is_none()
        };
        self.0.subscriptions.iter().any(open)
    }
}
