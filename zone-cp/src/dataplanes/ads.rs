//! ADS of Envoy: delta only, for the Dataplane that its token admits.

use super::{
    LARGEST_MESSAGE, Shared,
    auth::{Accepted, Wanted, admit},
    proxy_key,
};
use crate::reconcile::{NotServed, Traits};
use futures::{Stream, StreamExt as _, future::BoxFuture};
use prost_types::value::Kind;
use proto::{
    envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest},
    frame::{Frame, FrameCodec},
};
use resource::{MeshName, ResourceKey, label};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use store::Backend;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, NamedService},
};
use tower::Service;
use xds::ads;

/// What the first request may take.
const PATIENCE: Duration = Duration::from_secs(10);
const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The feature of a node that binds a listener on each VIP.
const BINDS_VIPS: &str = "feature-bind-outbounds";

/// The service of ADS. Written by hand where a generated server would do, because what is sent is
/// encoded already.
pub(super) struct Ads<B> {
    pub(super) shared: Arc<Shared<B>>,
}

impl<B> Clone for Ads<B> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<B> NamedService for Ads<B> {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

type Outgoing = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

impl<B: Backend + 'static> Service<axum::http::Request<Body>> for Ads<B> {
    type Response = axum::http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            if request.uri().path() != DELTA {
                return Ok(Status::unimplemented("only delta ADS is served").into_http());
            }
            let handle =
                tower::service_fn(move |request| std::future::ready(start(&shared, request)));
            let codec = FrameCodec::<DeltaDiscoveryRequest>::default();
            let mut grpc =
                Grpc::new(codec).apply_max_message_size_config(Some(LARGEST_MESSAGE), None);
            Ok(grpc.streaming(handle, request).await)
        })
    }
}

fn start<B: Backend + 'static>(
    shared: &Arc<Shared<B>>,
    request: Request<Streaming<DeltaDiscoveryRequest>>,
) -> Result<Response<Outgoing>, Status> {
    let accepted = shared.tokens.accept(request.metadata())?;
    let requests = request.into_inner();
    let (frames, outgoing) = mpsc::channel(ads::CAPACITY);
    let (ended, end) = tokio::sync::oneshot::channel();
    let serving = shared.clone();
    shared.spawn(async move {
        let stop = serving.stop.clone();
        let status = tokio::select! {
            biased;
            () = stop.cancelled() => Status::unavailable("the control plane stops"),
            status = serve(&serving, &accepted, requests, frames) => status,
        };
        tracing::debug!(reason = status.message(), "ADS stream ended");
        // Who is gone needs no status.
        ended.send(status).ok();
    });
    let end = async move { Err(end.await.unwrap_or_else(|_| Status::internal("stream failed"))) };
    let outgoing = ReceiverStream::new(outgoing).map(Ok).chain(futures::stream::once(end));
    Ok(Response::new(Box::pin(outgoing)))
}

/// Serves a stream, and says how it ended.
async fn serve<B: Backend + 'static>(
    shared: &Arc<Shared<B>>,
    accepted: &Accepted,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    frames: mpsc::Sender<Frame>,
) -> Status {
    let first = match timeout(PATIENCE, requests.message()).await {
        Ok(Ok(Some(first))) => first,
        Ok(Ok(None)) => return Status::ok(""),
        Ok(Err(status)) => return status,
        Err(_) => return Status::deadline_exceeded("no first request"),
    };
    let node = first.node.clone().unwrap_or_default();
    let key = match shared.node(accepted, &node) {
        Ok(key) => key,
        Err(status) => return status,
    };
    let Some(proxy) = proxy_key(&key) else { return Status::invalid_argument("no mesh") };
    let traits = Traits { binds_vips: has_feature(&node, BINDS_VIPS) };
    let (source, changes) = match shared.meshes.connect(&proxy, traits) {
        Ok(connected) => connected,
        Err(error @ (NotServed::Incomplete | NotServed::NoMesh(_) | NotServed::NoDataplane(_))) => {
            return Status::unavailable(error.to_string());
        }
    };
    tracing::info!(dataplane = %key, "Envoy connected");
    let requests = futures::stream::once(std::future::ready(Ok(first))).chain(requests);
    let report = |event: ads::Event| match event {
        ads::Event::Refused { kind, text, .. } => {
            tracing::warn!(dataplane = %key, kind = ?kind, text, "Envoy refused its configuration");
            let text = format!("Envoy refused {}: {text}", kind.name());
            shared.lives.lock().problem(&key, kind.name(), Some(text));
        }
        ads::Event::Acked { kind, .. } => shared.lives.lock().problem(&key, kind.name(), None),
        ads::Event::Sent { .. } => {}
    };
    match ads::serve(&*source, changes, requests, frames, report).await {
        Ok(()) => Status::ok(""),
        Err(error) => error.into(),
    }
}

impl<B: Backend + 'static> Shared<B> {
    /// The Dataplane that a node is, if the token lets it be that.
    fn node(&self, accepted: &Accepted, node: &Node) -> Result<ResourceKey, Status> {
        let unknown = || Status::invalid_argument(format!("{:?} is no node id", node.id));
        // A mesh has no dots.
        let (mesh, name) = node.id.split_once('.').ok_or_else(unknown)?;
        let mesh = MeshName::new(mesh).map_err(|_| unknown())?;
        let key = ResourceKey::in_mesh(&mesh, name);
        let row = self.registry.stored(&key);
        let row = row.ok_or_else(|| Status::unavailable(format!("there is no Dataplane {key}")))?;
        let labels = &row.head.labels;
        let ingress = labels.get(label::LISTENER_ZONE_INGRESS) == Some(label::ENABLED);
        let needs_workload = self.issuer.needs_workload(&mesh, labels);
        admit(&accepted.claims, &Wanted { key: &key, labels, ingress, needs_workload })?;
        Ok(key)
    }
}

fn has_feature(node: &Node, wanted: &str) -> bool {
    let features = node.metadata.as_ref().and_then(|metadata| metadata.fields.get("features"));
    let Some(Kind::ListValue(list)) = features.and_then(|value| value.kind.as_ref()) else {
        return false;
    };
    list.values.iter().any(|value| match &value.kind {
        Some(Kind::StringValue(feature)) => feature == wanted,
        _ => false,
    })
}
