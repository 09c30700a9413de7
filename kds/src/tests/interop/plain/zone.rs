//! A plain zone.

use super::{Asker, Judge, Offerer, Resources, ZONE_ASKS, first_request};
use proto::kuma::mesh::v1alpha1::{
    ZoneHealthCheckRequest, global_kds_service_client::GlobalKdsServiceClient,
    kds_sync_service_client::KdsSyncServiceClient,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, codec::CompressionEncoding, metadata::MetadataValue, transport::Channel,
};

/// A plain zone on one connection.
pub(crate) struct PlainZone {
    /// What it got.
    pub(crate) held: watch::Sender<Resources>,
    /// What it offers; it has given it its names and labels in transit.
    pub(crate) offers: watch::Sender<Resources>,
    /// The NACKs of global.
    pub(crate) nacks: watch::Sender<Vec<(String, String)>>,
    /// The kinds that global asks for.
    pub(crate) asked: watch::Receiver<BTreeSet<String>>,
    /// How often it was told that global is there.
    pub(crate) health: watch::Receiver<u32>,
    /// Its calls end with it.
    _calls: JoinSet<Result<(), Status>>,
}

/// What a zone says with each call.
pub(crate) fn with_headers<T>(zone: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("client-id", zone.parse().unwrap());
    metadata.insert("kds-version", MetadataValue::from_static("v3"));
    metadata.insert("zone-version", MetadataValue::from_static("v3"));
    metadata.insert("version", MetadataValue::from_static("unknown"));
    metadata.append("features", MetadataValue::from_static("zone-ping-health"));
    metadata.append("features", MetadataValue::from_static("hash-suffix"));
    request
}

impl PlainZone {
    pub(crate) fn connect(
        zone: &'static str,
        channel: Channel,
        offers: Resources,
        judge: Judge,
    ) -> Self {
        let held = watch::Sender::new(Resources::new());
        let (offers, offered) = watch::channel(offers);
        let nacks = watch::Sender::new(Vec::new());
        let (beats, health) = watch::channel(0);
        let gzip = CompressionEncoding::Gzip;
        let sync = KdsSyncServiceClient::new(channel.clone())
            .send_compressed(gzip)
            .accept_compressed(gzip)
            .max_decoding_message_size(10 * 1024 * 1024);
        let others = GlobalKdsServiceClient::new(channel).send_compressed(gzip);
        let mut calls = JoinSet::new();
        let (of, kinds) = (zone.to_owned(), ZONE_ASKS.into());
        let asker = Asker { zone: of.clone(), kinds, held: held.clone(), judge };
        calls.spawn(ask(asker, zone, sync.clone()));
        let (asking, asked) = watch::channel(BTreeSet::new());
        let offerer = Offerer {
            zone: of.clone(),
            identifier: of,
            resources: offered,
            nacks: nacks.clone(),
            asked: asking,
            node: watch::Sender::default(),
        };
        calls.spawn(offer(offerer, zone, sync));
        calls.spawn(beat(zone, others.clone(), beats));
        calls.spawn(listen(zone, others));
        Self { held, offers, nacks, asked, health, _calls: calls }
    }
}

async fn ask(
    asker: Asker,
    zone: &str,
    mut client: KdsSyncServiceClient<Channel>,
) -> Result<(), Status> {
    let (requests, outgoing) = mpsc::channel(100);
    for kind in ZONE_ASKS {
        requests.send(first_request(zone, kind)).await.unwrap();
    }
    let outgoing = with_headers(zone, ReceiverStream::new(outgoing));
    let responses = client.global_to_zone_sync(outgoing).await?.into_inner();
    asker.run(requests, responses).await
}

async fn offer(
    offerer: Offerer,
    zone: &str,
    mut client: KdsSyncServiceClient<Channel>,
) -> Result<(), Status> {
    let (responses, outgoing) = mpsc::channel(100);
    let outgoing = with_headers(zone, ReceiverStream::new(outgoing));
    let requests = client.zone_to_global_sync(outgoing).await?.into_inner();
    offerer.run(requests, responses).await
}

async fn beat(
    zone: &str,
    mut client: GlobalKdsServiceClient<Channel>,
    beats: watch::Sender<u32>,
) -> Result<(), Status> {
    loop {
        let asked = with_headers(zone, ZoneHealthCheckRequest {});
        let interval = client.health_check(asked).await?.into_inner().interval.unwrap();
        beats.send_modify(|beats| *beats += 1);
        let interval = Duration::try_from(interval).unwrap();
        tokio::time::timeout(interval, std::future::pending::<()>()).await.unwrap_err();
    }
}

/// A stream for questions that nobody asks.
async fn listen(zone: &str, mut client: GlobalKdsServiceClient<Channel>) -> Result<(), Status> {
    let (_silent, outgoing) = mpsc::channel(1);
    let outgoing = with_headers(zone, ReceiverStream::new(outgoing));
    let mut asked = client.stream_stats(outgoing).await?.into_inner();
    asked.message().await.map(drop)
}
