//! Discovery responses whose resources are encoded once and shared by all streams.
//!
//! A protobuf message is a sequence of fields in any order, so a response is a small head of its own
//! and, behind it, encoded `resources` fields that other responses contain as well.

use crate::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use bytes::{BufMut, Bytes, BytesMut};
use prost::{Message, encoding};
use std::marker::PhantomData;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

const RESOURCES: u32 = 2;

/// A `DeltaDiscoveryResponse` as it goes on the wire.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Everything but the resources.
    pub head: Bytes,
    /// Whole `resources` fields, made by [`resource`].
    pub resources: Vec<Bytes>,
}

impl Frame {
    /// A frame of `head`, which has no resources of its own, and shared resources.
    #[must_use]
    pub fn new(head: &DeltaDiscoveryResponse, resources: Vec<Bytes>) -> Self {
        Self { head: head.encode_to_vec().into(), resources }
    }

    /// How many bytes it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.resources.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether it is a message without any field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message as one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.len());
        all.put_slice(&self.head);
        for resource in &self.resources {
            all.put_slice(resource);
        }
        all.freeze()
    }
}

/// The `resources` field that holds `resource`.
#[must_use]
pub fn resource(resource: &Resource) -> Bytes {
    let mut field = BytesMut::with_capacity(encoding::message::encoded_len(RESOURCES, resource));
    encoding::message::encode(RESOURCES, resource, &mut field);
    field.freeze()
}

/// Writes frames and reads `M`.
#[derive(Debug)]
pub struct FrameCodec<M>(PhantomData<fn() -> M>);

impl<M> Default for FrameCodec<M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// See [`FrameCodec`].
#[derive(Debug, Default)]
pub struct FrameEncoder(());

/// See [`FrameCodec`].
#[derive(Debug)]
pub struct MessageDecoder<M>(PhantomData<fn() -> M>);

impl<M: Message + Default + 'static> Codec for FrameCodec<M> {
    type Encode = Frame;
    type Decode = M;
    type Encoder = FrameEncoder;
    type Decoder = MessageDecoder<M>;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder(())
    }

    fn decoder(&mut self) -> MessageDecoder<M> {
        MessageDecoder(PhantomData)
    }
}

impl Encoder for FrameEncoder {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(frame.len());
        out.put_slice(&frame.head);
        for resource in &frame.resources {
            out.put_slice(resource);
        }
        Ok(())
    }
}

impl<M: Message + Default> Decoder for MessageDecoder<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        M::decode(bytes).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_and_shared_resources_are_one_message() {
        let shared = |name: &str| Resource { name: name.into(), ..Resource::default() };
        let head = DeltaDiscoveryResponse {
            type_url: "MeshTimeout".into(),
            nonce: "31".into(),
            removed_resources: vec!["old.default".into()],
            ..DeltaDiscoveryResponse::default()
        };
        let fields = vec![resource(&shared("a")), resource(&shared("b"))];
        let bytes = Frame::new(&head, fields).to_bytes();
        let whole = DeltaDiscoveryResponse { resources: vec![shared("a"), shared("b")], ..head };
        assert_eq!(DeltaDiscoveryResponse::decode(bytes).unwrap(), whole);
    }
}
