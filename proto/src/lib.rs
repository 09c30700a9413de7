//! Generated messages: those between control planes, those between a proxy and its control plane,
//! and Envoy's API.

#[cfg(test)]
mod captures;
pub mod frame;
mod generated;

pub use self::generated::*;

use prost_reflect::DescriptorPool;
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
    fn messages_know_their_type_url() {
        assert_eq!(Cluster::type_url(), "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    }
}
