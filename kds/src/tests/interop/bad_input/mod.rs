//! What breaks the protocol ends that peer's stream, and nothing else.
//!
//! East means ill. West does not, and a change that is made meanwhile reaches it at once.

mod floods;
mod of_global;
mod protocol;
mod repeated;
mod sizes;
mod strangers;

use super::{
    plain::with_headers,
    world::{Global, PATIENCE, TIMEOUT, Zone, hashed, timeout_of, until},
};
use crate::tests::log::Log;
use proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    frame::{Frame, FrameCodec},
    kuma::mesh::v1alpha1::kds_sync_service_client::KdsSyncServiceClient,
};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, client::Grpc, transport::Channel};

type Down = (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>);
type Up = (mpsc::Sender<DeltaDiscoveryResponse>, Streaming<DeltaDiscoveryRequest>);

const DOWN: &str = "/kuma.mesh.v1alpha1.KDSSyncService/GlobalToZoneSync";
const UP: &str = "/kuma.mesh.v1alpha1.KDSSyncService/ZoneToGlobalSync";

/// A global with two zones.
struct Siege {
    _tasks: JoinSet<()>,
    global: Global,
    /// The connection of east.
    east: Channel,
    west: Zone,
    changes: u32,
    log: Log,
}

impl Siege {
    async fn begin() -> Self {
        let (mut tasks, log) = (JoinSet::new(), Log::listen());
        let global = Global::start(&mut tasks).await;
        let west = Zone::start(&mut tasks, "west", &global.connect);
        west.until_complete().await;
        let east = global.channel().await;
        Self { _tasks: tasks, global, east, west, changes: 0, log }
    }

    /// West gets a change, without waiting for anything.
    async fn serves_on(&mut self) {
        self.changes += 1;
        let (begun, idle) = (Instant::now(), format!("{}s", self.changes));
        self.global.plane.put(TIMEOUT, "calm", &[], timeout_of(&idle)).await;
        let name = hashed("calm", None);
        let there = |idle: &str| self.west.plane.all(TIMEOUT).get(&name) == Some(&timeout_of(idle));
        self.west.plane.until(TIMEOUT, |all| all.get(&name) == Some(&timeout_of(&idle))).await;
        assert!(there(&idle) && begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }

    /// Streams of east have ended for these reasons, and no others of anybody.
    async fn ended(&self, reasons: &[&str]) {
        let all = &self.global.wrong.ended;
        until(all, |all| all.len() >= reasons.len()).await;
        let expected: Vec<_> =
            reasons.iter().map(|reason| ("east".to_owned(), (*reason).to_owned())).collect();
        let found = all.borrow().clone();
        let found: Vec<_> = found.into_iter().map(|(zone, why)| (zone, why.to_owned())).collect();
        assert_eq!(found, expected);
    }

    /// These were logged, each once, as warnings about east, and nothing else of anybody.
    fn warned(&self, reasons: &[&str]) {
        self.log.warned("zone=east", reasons);
    }
}

async fn down(channel: &Channel) -> Result<Down, Status> {
    let (sender, outgoing) = mpsc::channel(100);
    let outgoing = with_headers("east", ReceiverStream::new(outgoing));
    let mut client = KdsSyncServiceClient::new(channel.clone());
    Ok((sender, client.global_to_zone_sync(outgoing).await?.into_inner()))
}

async fn up(channel: &Channel) -> Up {
    let (sender, outgoing) = mpsc::channel(100);
    let outgoing = with_headers("east", ReceiverStream::new(outgoing));
    let mut client = KdsSyncServiceClient::new(channel.clone());
    (sender, client.zone_to_global_sync(outgoing).await.unwrap().into_inner())
}

/// A call on which any bytes can be sent.
async fn raw<M>(channel: &Channel, path: &'static str) -> (mpsc::Sender<Frame>, Streaming<M>)
where
    M: prost::Message + Default + 'static,
{
    let (sender, outgoing) = mpsc::channel(4);
    let outgoing = with_headers("east", ReceiverStream::new(outgoing));
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    let opened = grpc.streaming(outgoing, path, FrameCodec::<M>::default()).await;
    (sender, opened.unwrap().into_inner())
}

async fn next<T: std::fmt::Debug>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    timeout(PATIENCE, stream.message()).await.expect("a message")
}

/// How a stream ends.
async fn end<T: std::fmt::Debug>(mut stream: Streaming<T>) -> Status {
    loop {
        match next(&mut stream).await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok(""),
            Err(status) => return status,
        }
    }
}

/// Takes the first requests of global.
async fn skip_requests(requests: &mut Streaming<DeltaDiscoveryRequest>) {
    for _ in 0..kinds::all().filter(|kind| kind.flow.requested_by_global()).count() {
        let request = next(requests).await.unwrap().unwrap();
        assert_eq!((&*request.response_nonce, request.resource_names_subscribe.len()), ("", 1));
        let node = request.node.unwrap();
        assert_eq!((&*node.id, node.metadata.is_some()), ("east", true));
    }
}

fn response(kind: &str, nonce: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.into(),
        nonce: nonce.into(),
        resources,
        ..DeltaDiscoveryResponse::default()
    }
}
