//! Zone: a control plane that has proxies.

use crate::protobuf::{self, Protobuf};
use proto::kuma::system::v1alpha1::Zone as Message;
use resource::{CustomResource, Flow, Kind, NameRule, NoStatus, Scope, Spec};

/// See [`Zone`].
pub const KIND: Kind = Kind::of::<Zone>();

protobuf::spec! {
    /// A zone.
    Zone(Message)
}

impl Spec for Zone {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "Zone";
    const PLURAL: &'static str = "zones";
    const SHORT: &'static str = "z";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::Local;
    const NAME: NameRule = NameRule::Label;
    const CUSTOM: Option<CustomResource> = Some(CustomResource::CLUSTER);
}

impl Zone {
    /// Whether other zones see what it has; a zone is enabled unless it says otherwise.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.enabled.unwrap_or(true)
    }
}
