//! Secret: bytes that only administrators may see, of one mesh.

use crate::protobuf::{self, Protobuf};
use proto::kuma::system::v1alpha1::Secret as Message;
use resource::{Access, CustomResource, Flow, Kind, NoStatus, Scope, Spec, TransitName};

/// See [`Secret`].
pub const KIND: Kind = Kind::of::<Secret>();

protobuf::spec! {
    /// Secret bytes.
    Secret(Message)
}

impl Spec for Secret {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "Secret";
    const PLURAL: &'static str = "secrets";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::GlobalToZonesOrLocal;
    const TRANSIT_NAME: TransitName = TransitName::Kept;
    const ACCESS: Access = Access::Admins;
    const CUSTOM: Option<CustomResource> = None;
}

impl Secret {
    /// A secret of `data`.
    #[must_use]
    pub fn of(data: impl Into<Vec<u8>>) -> Self {
        Self(Message { data: Some(data.into()) })
    }

    /// The bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.0.data.as_deref().unwrap_or_default()
    }
}
