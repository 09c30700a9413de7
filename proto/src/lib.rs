//! Generated messages: those between control planes, those between a proxy and its control plane,
//! and Envoy's API.

pub mod bounded;
#[cfg(test)]
mod captures;
pub mod frame;
mod generated;

pub use self::generated::*;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use std::sync::LazyLock;

/// Describes every message, so that it can be read from and written as JSON, with the messages in
/// `Any` resolved.
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
        DescriptorPool::decode(bytes.as_slice()).expect("the build wrote a descriptor set")
    });
    &POOL
}

/// `message` in an `Any`, with its type URL.
#[must_use]
pub fn pack<M: prost::Name>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// `message` in the canonical JSON mapping, with the messages in `Any` written out. Fails at an `Any`
/// whose message is not among ours.
pub fn json<M: prost::Name>(message: &M) -> Result<serde_json::Value, serde_json::Error> {
    let descriptor = descriptors().get_message_by_name(&M::full_name());
    let descriptor = descriptor.expect("the pool describes every generated message");
    let message = DynamicMessage::decode(descriptor, &*message.encode_to_vec());
    let message = message.expect("both are the same message");
    let options = SerializeOptions::new();
    message.serialize_with_options(serde_json::value::Serializer, &options)
}

#[cfg(test)]
mod tests {
    use super::envoy::config::cluster::v3::Cluster;
    use prost::{Message, Name};

    #[test]
    fn equal_messages_have_equal_bytes() {
        let cluster = |order: [u8; 4]| {
            let any = |key: u8| (format!("extension-{key}"), prost_types::Any::default());
            let options = order.into_iter().map(any).collect();
            Cluster { typed_extension_protocol_options: options, ..Cluster::default() }
        };
        let (one, two) = (cluster([1, 2, 3, 4]), cluster([4, 2, 1, 3]));
        assert_eq!(one.encode_to_vec(), two.encode_to_vec());
    }

    #[test]
    fn an_any_is_written_out_as_json() {
        let inner = super::pack(&Cluster { name: "a".into(), ..Cluster::default() });
        let options = [("x".to_owned(), inner)].into();
        let cluster = Cluster { typed_extension_protocol_options: options, ..Cluster::default() };
        let expected = serde_json::json!({ "typedExtensionProtocolOptions": { "x": {
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a",
        } } });
        assert_eq!(super::json(&cluster).unwrap(), expected);
    }

    #[test]
    fn messages_know_their_type_url() {
        assert_eq!(Cluster::type_url(), "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    }
}
