//! What a zone asks of global.

use crate::{Zone, message::Response, zone::Event};
use anyhow::{Context as _, Result};
use delta::{Extent, Start};
use http::uri::PathAndQuery;
use kds::{dialect, limit};
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{IntoStreamingRequest as _, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

const PATH: PathAndQuery =
    PathAndQuery::from_static("/kuma.mesh.v1alpha1.KDSSyncService/GlobalToZoneSync");
/// More than the first requests of a stream, or the answers that wait.
const REQUESTS: usize = 128;

/// A zone that asks.
pub(crate) struct Asking {
    pub(crate) zone: Arc<Zone>,
    pub(crate) channel: Channel,
}

impl Asking {
    /// Takes what global sends, until it ends the stream.
    pub(crate) async fn run(self) -> Result<()> {
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        let node = self.zone.node();
        for kind in kinds::all().filter(|kind| kind.flow.requested_by_zones()) {
            let start = self
                .zone
                .place(kind.name)
                .map_or(Start::Fresh, |cursor| Start::Resume { cursor, refused: BTreeMap::new() });
            requests.try_send(dialect::first_request(node.clone(), kind.name, &start))?;
        }
        let mut grpc =
            Grpc::new(self.channel.clone()).max_decoding_message_size(limit::OWN_MESSAGE);
        grpc.ready().await?;
        let asked = self.zone.request(ReceiverStream::new(outgoing)).into_streaming_request();
        let codec = ProstCodec::<DeltaDiscoveryRequest, Response>::default();
        let mut responses = grpc.streaming(asked, PATH, codec).await?.into_inner();
        while let Some(response) = responses.message().await? {
            let (extent, cursor) = response.extent()?;
            let kind = response.type_url;
            let ack = dialect::answer(self.zone.name(), &kind, &response.nonce, &[]);
            requests.send(ack).await?;
            self.zone.is_at(&kind, cursor);
            let took = Event::Took {
                kind,
                resources: response.resources.len(),
                removed: response.removed_resources.len(),
                complete: extent != Extent::Part,
            };
            self.zone.tell(took).await;
        }
        None.context("global ended GlobalToZoneSync")
    }
}
