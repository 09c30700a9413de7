//! GlobalSecret: bytes that only administrators may see, of a whole control plane.

mod signing_key;

use crate::protobuf::{self, Protobuf};
use proto::kuma::system::v1alpha1::Secret as Message;
use resource::{
    Access, CustomResource, Export, Flow, Kind, NoStatus, Peer, ResourceKey, Scope, Spec,
    TransitName,
};

/// See [`GlobalSecret`].
pub const KIND: Kind = Kind::of::<GlobalSecret>();

protobuf::spec! {
    /// Secret bytes of no mesh.
    GlobalSecret(Message)
}

/// What every zone would be everybody with.
const WITHHELD: [&str; 4] =
    ["envoy-admin-ca", "admin-user-token", "inter-cp-ca", "user-token-revocations"];
const USER_KEY: &str = "user-token-signing-key";
const ZONE_KEY: &str = "zone-token-signing-key";
/// So begin the names of the public halves of keys that sign zone tokens.
pub const ZONE_PUBLIC_KEY: &str = "zone-token-signing-public-key";

impl Spec for GlobalSecret {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "GlobalSecret";
    const PLURAL: &'static str = "globalsecrets";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::GlobalToZonesOrLocal;
    const TRANSIT_NAME: TransitName = TransitName::Kept;
    const ACCESS: Access = Access::Admins;
    const CUSTOM: Option<CustomResource> = None;

    fn export(&self, key: &ResourceKey, _peer: Peer) -> Export<Self> {
        let name = &*key.name;
        if WITHHELD.contains(&name) || name.starts_with(USER_KEY) {
            return Export::Withheld;
        }
        if !name.starts_with(ZONE_KEY) {
            return Export::AsIs;
        }
        // Zones verify zone tokens, they do not issue them.
        signing_key::public(self.data())
            .map_or(Export::Withheld, |key| Export::Changed(Self::of(key)))
    }

    fn transit_key(key: &ResourceKey, _peer: Peer) -> Option<ResourceKey> {
        let serial = key.name.strip_prefix(ZONE_KEY)?;
        Some(ResourceKey::global(&format!("{ZONE_PUBLIC_KEY}{serial}")))
    }
}

impl GlobalSecret {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn export(name: &str, data: &str) -> Export<GlobalSecret> {
        GlobalSecret::of(data).export(&ResourceKey::global(name), Peer::Zone)
    }

    #[test]
    fn what_makes_a_zone_an_administrator_stays() {
        for name in [
            "envoy-admin-ca",
            "admin-user-token",
            "inter-cp-ca",
            "user-token-revocations",
            "user-token-signing-key-1",
        ] {
            assert_eq!(export(name, "x"), Export::Withheld, "{name}");
        }
        assert_eq!(export("zone-token-revocations", "x"), Export::AsIs);
    }

    #[test]
    fn a_signing_key_leaves_as_its_public_half_under_another_name() {
        let private = include_str!("testdata/private.pem");
        let public = GlobalSecret::of(include_str!("testdata/public.pem"));
        assert_eq!(export("zone-token-signing-key-1", private), Export::Changed(public));
        let name = |name| GlobalSecret::transit_key(&ResourceKey::global(name), Peer::Zone);
        let renamed = ResourceKey::global("zone-token-signing-public-key-1");
        assert_eq!(name("zone-token-signing-key-1"), Some(renamed));
        assert_eq!(name("zone-token-revocations"), None);
    }

    #[test]
    fn a_signing_key_that_cannot_be_read_stays() {
        for key in
            ["", "x", "-----BEGIN RSA PRIVATE KEY-----\nMAAA\n-----END RSA PRIVATE KEY-----\n"]
        {
            assert_eq!(export("zone-token-signing-key-1", key), Export::Withheld, "{key}");
        }
    }
}
