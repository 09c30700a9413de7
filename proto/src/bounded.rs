//! Messages that are looked at before they are decoded: a field of two bytes may take hundreds in
//! memory, so the size of a message alone bounds little.

use prost::{
    bytes::Buf,
    encoding::{DecodeContext, decode_key, skip_field},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};

/// A codec that reads only messages of so many fields.
#[derive(Clone, Copy, Debug)]
pub struct Bounded<C> {
    codec: C,
    fields: usize,
}

impl<C> Bounded<C> {
    /// Reads with `codec` what has at most `fields` fields, each element of a list being one. Those
    /// of messages within are not counted.
    #[must_use]
    pub const fn new(codec: C, fields: usize) -> Self {
        Self { codec, fields }
    }
}

impl<C: Codec> Codec for Bounded<C> {
    type Encode = C::Encode;
    type Decode = C::Decode;
    type Encoder = C::Encoder;
    type Decoder = Bounded<C::Decoder>;

    fn encoder(&mut self) -> C::Encoder {
        self.codec.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Bounded { codec: self.codec.decoder(), fields: self.fields }
    }
}

impl<D: Decoder<Error = Status>> Decoder for Bounded<D> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        if has_more_fields(bytes.chunk(), self.fields) {
            let reason = format!("the message has more than {} fields", self.fields);
            return Err(Status::out_of_range(reason));
        }
        self.codec.decode(bytes)
    }
}

/// Whether a message has more fields than `most`. What is no message has none from there on.
fn has_more_fields(mut message: &[u8], most: usize) -> bool {
    for _ in 0..most {
        let skipped = decode_key(&mut message)
            .and_then(|(tag, wire)| skip_field(wire, tag, &mut message, DecodeContext::default()));
        if skipped.is_err() {
            return false;
        }
    }
    message.has_remaining()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::service::discovery::v3::DeltaDiscoveryResponse;
    use prost::Message as _;

    #[test]
    fn fields_are_counted_before_anything_is_decoded() {
        let names = |count| vec!["a.default".to_owned(); count];
        let message = |count| {
            let removed_resources = names(count);
            DeltaDiscoveryResponse { removed_resources, ..DeltaDiscoveryResponse::default() }
        };
        let bytes = |count| message(count).encode_to_vec();
        assert!(!has_more_fields(&bytes(9), 9));
        assert!(has_more_fields(&bytes(10), 9));
        assert!(!has_more_fields(&[], 0));
        // Garbage is left to those who decode.
        assert!(!has_more_fields(&[0xff; 99], 9));
    }
}
