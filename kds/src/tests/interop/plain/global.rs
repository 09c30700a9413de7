//! A plain global.

use super::{Asker, GLOBAL_ASKS, Judge, Offerer, Resources, first_request};
use futures::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    },
    kuma::mesh::v1alpha1::{
        ClustersRequest, ClustersResponse, StatsRequest, StatsResponse, XdsConfigRequest,
        XdsConfigResponse, ZoneHealthCheckRequest, ZoneHealthCheckResponse,
        global_kds_service_server::{GlobalKdsService, GlobalKdsServiceServer},
        kds_sync_service_server::{KdsSyncService, KdsSyncServiceServer},
    },
};
use std::{
    collections::BTreeSet,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming, codec::CompressionEncoding, metadata::MetadataMap,
    transport::Server,
};

/// A plain global for one zone at a time.
#[derive(Clone)]
pub(crate) struct PlainGlobal {
    /// What it offers.
    pub(crate) offers: watch::Sender<Resources>,
    /// What it got.
    pub(crate) held: watch::Sender<Resources>,
    /// The NACKs of the zone, by kind.
    pub(crate) nacks: watch::Sender<Vec<(String, String)>>,
    /// The kinds that the zone asks for.
    pub(crate) asked: watch::Sender<BTreeSet<String>>,
    /// The zone, as it says in its first requests.
    pub(crate) node: watch::Sender<Node>,
    /// Set while the zone is not let in.
    pub(crate) refuses: Arc<AtomicBool>,
    /// The metadata of each call of a zone, by its name.
    pub(crate) calls: watch::Sender<Vec<(&'static str, MetadataMap)>>,
    /// How often it says that it is to be asked whether it is there.
    pub(crate) interval: watch::Sender<prost_types::Duration>,
    /// Sends anything to the zone.
    pub(crate) says: watch::Sender<Option<mpsc::Sender<DeltaDiscoveryResponse>>>,
    judge: Judge,
    streams: Arc<Mutex<JoinSet<Result<(), Status>>>>,
}

type Outgoing<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

impl PlainGlobal {
    pub(crate) fn new(offers: Resources, judge: Judge) -> Self {
        Self {
            offers: watch::Sender::new(offers),
            held: watch::Sender::new(Resources::new()),
            nacks: watch::Sender::new(Vec::new()),
            asked: watch::Sender::new(BTreeSet::new()),
            node: watch::Sender::default(),
            refuses: Arc::default(),
            calls: watch::Sender::new(Vec::new()),
            interval: watch::Sender::default(),
            says: watch::Sender::default(),
            judge,
            streams: Arc::default(),
        }
    }

    pub(crate) async fn serve(self, incoming: mpsc::Receiver<DuplexStream>) {
        let gzip = CompressionEncoding::Gzip;
        let sync = KdsSyncServiceServer::new(self.clone())
            .accept_compressed(gzip)
            .send_compressed(gzip)
            .max_decoding_message_size(10 * 1024 * 1024);
        let others = GlobalKdsServiceServer::new(self).accept_compressed(gzip);
        let incoming = ReceiverStream::new(incoming).map(io::Result::Ok);
        let server = Server::builder().add_service(sync).add_service(others);
        server.serve_with_incoming(incoming).await.unwrap();
    }

    /// Ends all streams without a word of why, as it may.
    pub(crate) fn end_streams(&self) {
        self.streams.lock().abort_all();
    }

    fn note<T>(&self, call: &'static str, request: &Request<T>) -> String {
        let metadata = request.metadata().clone();
        let zone = metadata.get("client-id").unwrap().to_str().unwrap().to_owned();
        self.calls.send_modify(|calls| calls.push((call, metadata)));
        zone
    }

    /// As one that had deleted the zone.
    fn admit(&self) -> Result<(), Status> {
        let refuses = self.refuses.load(Ordering::Relaxed);
        if refuses { Err(Status::permission_denied("zone was deleted")) } else { Ok(()) }
    }
}

/// A response whose headers come with its first message, and not before.
async fn late<M: Send + 'static>(
    mut messages: mpsc::Receiver<M>,
) -> Result<Response<Outgoing<M>>, Status> {
    let first = messages.recv().await.ok_or_else(|| Status::cancelled("gone"))?;
    let all = stream::once(std::future::ready(first)).chain(ReceiverStream::new(messages));
    Ok(Response::new(Box::pin(all.map(Ok))))
}

#[tonic::async_trait]
impl KdsSyncService for PlainGlobal {
    type GlobalToZoneSyncStream = Outgoing<DeltaDiscoveryResponse>;
    type ZoneToGlobalSyncStream = Outgoing<DeltaDiscoveryRequest>;

    async fn global_to_zone_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::GlobalToZoneSyncStream>, Status> {
        let zone = self.note("GlobalToZoneSync", &request);
        self.admit()?;
        let (responses, outgoing) = mpsc::channel(100);
        self.says.send_replace(Some(responses.clone()));
        let (resources, identifier) = (self.offers.subscribe(), "global".into());
        let (nacks, asked, node) = (self.nacks.clone(), self.asked.clone(), self.node.clone());
        let offerer = Offerer { zone, identifier, resources, nacks, asked, node };
        self.streams.lock().spawn(offerer.run(request.into_inner(), responses));
        late(outgoing).await
    }

    async fn zone_to_global_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryResponse>>,
    ) -> Result<Response<Self::ZoneToGlobalSyncStream>, Status> {
        let zone = self.note("ZoneToGlobalSync", &request);
        self.admit()?;
        let (requests, outgoing) = mpsc::channel(100);
        for kind in GLOBAL_ASKS {
            requests.send(first_request(&zone, kind)).await.unwrap();
        }
        let (held, judge) = (self.held.clone(), self.judge);
        let asker = Asker { zone, kinds: GLOBAL_ASKS.into(), held, judge };
        self.streams.lock().spawn(asker.run(requests, request.into_inner()));
        late(outgoing).await
    }
}

#[tonic::async_trait]
impl GlobalKdsService for PlainGlobal {
    type StreamXDSConfigsStream = Outgoing<XdsConfigRequest>;
    type StreamStatsStream = Outgoing<StatsRequest>;
    type StreamClustersStream = Outgoing<ClustersRequest>;

    async fn stream_xds_configs(
        &self,
        request: Request<Streaming<XdsConfigResponse>>,
    ) -> Result<Response<Self::StreamXDSConfigsStream>, Status> {
        self.note("StreamXDSConfigs", &request);
        // Headers may never come.
        std::future::pending().await
    }

    async fn stream_stats(
        &self,
        request: Request<Streaming<StatsResponse>>,
    ) -> Result<Response<Self::StreamStatsStream>, Status> {
        self.note("StreamStats", &request);
        Err(Status::unimplemented("an older one"))
    }

    async fn stream_clusters(
        &self,
        request: Request<Streaming<ClustersResponse>>,
    ) -> Result<Response<Self::StreamClustersStream>, Status> {
        self.note("StreamClusters", &request);
        Err(Status::cancelled("not needed"))
    }

    async fn health_check(
        &self,
        request: Request<ZoneHealthCheckRequest>,
    ) -> Result<Response<ZoneHealthCheckResponse>, Status> {
        self.note("HealthCheck", &request);
        let interval = Some(*self.interval.borrow());
        Ok(Response::new(ZoneHealthCheckResponse { interval }))
    }
}
