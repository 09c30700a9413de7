//! Mesh: a set of services that may know each other.

use crate::protobuf::{self, Protobuf};
use proto::kuma::mesh::v1alpha1::Mesh as Message;
use resource::{CustomResource, Flow, Kind, NameRule, NoStatus, Scope, Spec, TransitName};

/// See [`Mesh`].
pub const KIND: Kind = Kind::of::<Mesh>();

protobuf::spec! {
    /// A mesh.
    Mesh(Message)
}

impl Spec for Mesh {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "Mesh";
    const PLURAL: &'static str = "meshes";
    const SHORT: &'static str = "m";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::GlobalToZones;
    const TRANSIT_NAME: TransitName = TransitName::Kept;
    const NAME: NameRule = NameRule::Label;
    const CUSTOM: Option<CustomResource> = Some(CustomResource::CLUSTER);
}
