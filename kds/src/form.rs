//! The bytes of a resource on a stream, so that peers that see the same form share them.

use crate::transit::transit_name;
use bytes::Bytes;
use delta::Version;
use prost_types::Any;
use proto::{
    envoy::service::discovery::v3::Resource,
    kuma::mesh::v1alpha1::{KumaResource, kuma_resource::Meta},
};
use resource::{Labels, MeshName, ResourceKey};

/// What of a resource leaves.
#[derive(Debug)]
pub struct Form<'a> {
    /// Its name in transit.
    pub key: &'a ResourceKey,
    /// Which content it is.
    pub version: Version,
    /// Its labels in transit.
    pub labels: Labels,
    /// The type URL of the spec; empty where the protocol has none.
    pub spec_type: String,
    /// The spec, encoded.
    pub spec: Bytes,
    /// The status as JSON, for kinds that have one.
    pub status: Option<Bytes>,
}

/// A whole `resources` field, to be placed behind the head of any response.
#[must_use]
pub fn encode(form: Form<'_>) -> Bytes {
    let mesh = form.key.mesh.as_ref().map_or("", MeshName::as_str);
    let meta = Meta {
        name: form.key.name.to_string(),
        mesh: mesh.into(),
        version: String::new(),
        labels: form.labels.iter().map(|(key, value)| (key.into(), value.into())).collect(),
    };
    let any = |type_url: String, value: Bytes| Any { type_url, value: value.into() };
    let resource = KumaResource {
        meta: Some(meta),
        spec: Some(any(form.spec_type, form.spec)),
        status: form.status.map(|status| any(String::new(), status)),
    };
    proto::frame::resource(&Resource {
        version: hex(form.version),
        name: transit_name(form.key),
        resource: Some(proto::pack(&resource)),
        ..Resource::default()
    })
}

/// A version as it stands on the wire: lower-case hexadecimal digits.
#[must_use]
pub fn hex(Version(bytes): Version) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// Reads what [`hex`] wrote.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Version> {
    resource::Version::parse(text).map(|version| Version(version.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use proto::{envoy::service::discovery::v3::DeltaDiscoveryResponse, frame::Frame};

    #[test]
    fn a_resource_is_wrapped_as_the_protocol_has_it() {
        let key = ResourceKey { mesh: MeshName::new("default").ok(), name: "web-x".into() };
        let bytes = encode(Form {
            key: &key,
            version: Version([0xa5; 16]),
            labels: Labels::from_iter([("kuma.io/origin", "global")]),
            spec_type: String::new(),
            spec: Bytes::from_static(b"{}"),
            status: Some(Bytes::from_static(br#"{"vip":{}}"#)),
        });
        let frame = Frame { head: Bytes::new(), resources: vec![bytes] }.to_bytes();
        let response = DeltaDiscoveryResponse::decode(frame).unwrap();
        let any = |value: &[u8]| Some(Any { type_url: String::new(), value: value.into() });
        let expected = KumaResource {
            meta: Some(Meta {
                name: "web-x".into(),
                mesh: "default".into(),
                version: String::new(),
                labels: [("kuma.io/origin".into(), "global".into())].into(),
            }),
            spec: any(b"{}"),
            status: any(br#"{"vip":{}}"#),
        };
        let expected = Any {
            type_url: "type.googleapis.com/kuma.mesh.v1alpha1.KumaResource".into(),
            value: expected.encode_to_vec(),
        };
        let resource = Resource {
            name: "web-x.default".into(),
            version: "a5".repeat(16),
            resource: Some(expected),
            ..Resource::default()
        };
        assert_eq!(response.resources, [resource]);
        assert_eq!(parse_hex(&hex(Version([0x0b; 16]))), Some(Version([0x0b; 16])));
    }
}
