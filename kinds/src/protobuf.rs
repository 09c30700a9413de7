//! Specs that are protobuf messages.

use crate::protobuf_schema;
use prost::{Message, Name};
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use resource::{BoxError, Encoding};
use serde_json::Value;
use std::marker::PhantomData;

/// A spec that is the message `M` and nothing else.
pub trait Wraps<M>: From<M> {
    /// The message.
    fn message(&self) -> &M;
}

/// Declares a spec that wraps a message.
macro_rules! spec {
    ($(#[$doc:meta])* $name:ident($message:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name(
            /// The message.
            pub $message,
        );

        impl From<$message> for $name {
            fn from(message: $message) -> Self {
                Self(message)
            }
        }

        impl $crate::protobuf::Wraps<$message> for $name {
            fn message(&self) -> &$message {
                &self.0
            }
        }
    };
}
pub(crate) use spec;

/// Protobuf, and its canonical JSON mapping in the API.
#[derive(Debug)]
pub struct Protobuf<M>(PhantomData<M>);

impl<M: Message + Name + Default, S: Wraps<M>> Encoding<S> for Protobuf<M> {
    const INLINE: bool = true;

    fn type_url() -> String {
        M::type_url()
    }

    fn decode(bytes: &[u8]) -> Result<S, BoxError> {
        Ok(M::decode(bytes)?.into())
    }

    fn encode(spec: &S) -> Result<Vec<u8>, BoxError> {
        Ok(spec.message().encode_to_vec())
    }

    fn schema() -> Option<schemars::Schema> {
        Some(protobuf_schema::of(&descriptor::<M>()))
    }

    fn from_json(json: Value) -> Result<S, BoxError> {
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message = DynamicMessage::deserialize_with_options(descriptor::<M>(), json, &options)?;
        Ok(M::decode(&*message.encode_to_vec())?.into())
    }

    fn to_json(spec: &S) -> Result<Value, BoxError> {
        let bytes = spec.message().encode_to_vec();
        let message = DynamicMessage::decode(descriptor::<M>(), &*bytes)?;
        let serializer = serde_json::value::Serializer;
        Ok(message.serialize_with_options(serializer, &SerializeOptions::new())?)
    }
}

fn descriptor<M: Name>() -> MessageDescriptor {
    proto::descriptors()
        .get_message_by_name(&M::full_name())
        .expect("the pool describes every generated message")
}
