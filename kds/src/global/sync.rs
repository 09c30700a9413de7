//! The two calls by which resources travel.
//!
//! Written by hand where a generated server would do, because what goes down is encoded already.

use super::{Guest, Shared, uploads::check};
use crate::{
    apply::Sender, ended::StreamEnded, fetch::Asking, limit, observe::Call, serve::Offering,
    transit::Hop,
};
use futures::{Stream, future::BoxFuture};
use proto::{
    bounded::Bounded,
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    frame::{Frame, FrameCodec},
};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use store::Backend;
use tokio::sync::mpsc;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{CompressionEncoding, EnabledCompressionEncodings},
    metadata::MetadataMap,
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;
use tower::Service;

/// See [`super::Server`].
pub(super) struct Sync<B> {
    pub(super) shared: Arc<Shared<B>>,
}

impl<B> Clone for Sync<B> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<B> NamedService for Sync<B> {
    const NAME: &'static str = "kuma.mesh.v1alpha1.KDSSyncService";
}

/// The path of the call by which resources go down.
pub(crate) const GLOBAL_TO_ZONE: &str = "/kuma.mesh.v1alpha1.KDSSyncService/GlobalToZoneSync";
/// The path of the call by which resources go up.
pub(crate) const ZONE_TO_GLOBAL: &str = "/kuma.mesh.v1alpha1.KDSSyncService/ZoneToGlobalSync";

type Outgoing<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

impl<B: Backend + 'static> Service<http::Request<Body>> for Sync<B> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        let gzip = CompressionEncoding::Gzip;
        let mut accepted = EnabledCompressionEncodings::default();
        accepted.enable(gzip);
        let guest = request.extensions().get::<Guest>().cloned();
        Box::pin(async move {
            let Some(guest) = guest else {
                return Ok(Status::unauthenticated("no admission").into_http());
            };
            let largest = shared.limit(guest.dialect);
            Ok(match request.uri().path() {
                GLOBAL_TO_ZONE => {
                    let handle = tower::service_fn(move |request| {
                        std::future::ready(shared.global_to_zone(&guest, request))
                    });
                    let codec = FrameCodec::<DeltaDiscoveryRequest>::default();
                    let mut grpc = Grpc::new(Bounded::new(codec, limit::FIELDS))
                        .apply_compression_config(accepted, EnabledCompressionEncodings::default())
                        .apply_max_message_size_config(Some(limit::REQUEST), None);
                    grpc.streaming(handle, request).await
                }
                ZONE_TO_GLOBAL => {
                    let handle = tower::service_fn(move |request| {
                        std::future::ready(shared.zone_to_global(&guest, request))
                    });
                    let codec =
                        ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
                    let mut grpc = Grpc::new(Bounded::new(codec, limit::FIELDS))
                        .apply_compression_config(accepted, EnabledCompressionEncodings::default())
                        .apply_max_message_size_config(Some(largest), None);
                    grpc.streaming(handle, request).await
                }
                _ => Status::unimplemented("no such call").into_http(),
            })
        })
    }
}

impl<B: Backend + 'static> Shared<B> {
    fn global_to_zone(
        self: &Arc<Self>,
        guest: &Guest,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Outgoing<Frame>>, Status> {
        let headers = self.headers(guest.dialect)?;
        let (metadata, _, requests) = request.into_parts();
        let counted = self.count(guest, &metadata, Call::GlobalToZone)?;
        let offering = Offering::new(
            (self.store.reader(), self.store.epoch()),
            self.kinds.clone(),
            Hop::Down,
            (&guest.admitted.zone, guest.dialect),
            self.limit(guest.dialect),
        );
        let (sender, responses) = mpsc::channel(Offering::capacity(&self.kinds));
        let call = (Call::GlobalToZone, counted);
        let zone = guest.admitted.zone.clone();
        let stream = self.start((guest, &metadata), call, responses, |shared, report| async move {
            let holds = shared.present.holds(&zone);
            offering.while_held(holds).run(requests, sender, &report).await
        });
        Ok(answer(headers, Box::pin(stream)))
    }

    fn zone_to_global(
        self: &Arc<Self>,
        guest: &Guest,
        request: Request<Streaming<DeltaDiscoveryResponse>>,
    ) -> Result<Response<Outgoing<DeltaDiscoveryRequest>>, Status> {
        let headers = self.headers(guest.dialect)?;
        let (metadata, _, responses) = request.into_parts();
        let counted = self.count(guest, &metadata, Call::ZoneToGlobal)?;
        let zone = guest.admitted.zone.clone();
        let sender = Sender { who: self.zone(guest, &metadata), dialect: guest.dialect };
        let upload = self.uploads.begin(&zone);
        let (requests, outgoing) = mpsc::channel(limit::REQUESTS);
        let call = (Call::ZoneToGlobal, counted);
        let stream = self.start((guest, &metadata), call, outgoing, |shared, report| async move {
            let mut places = upload.turn().await;
            check(&mut places, &zone, &shared.store);
            // What it was is taken: a stream that ends unexpectedly leaves nothing to go on from.
            let known = std::mem::take(&mut *places);
            let asking = Asking::of_zone(shared.kinds.clone(), sender, &zone, &known);
            let asking = asking.until(upload.newer.clone());
            let mut asking =
                asking.within(shared.settings.quotas.clone()).saying(shared.repeats.clone());
            for request in asking.requests(&shared.introduction()) {
                if requests.send(request).await.is_err() {
                    return StreamEnded::ByPeer;
                }
            }
            let visibility = || shared.admission.visibility(&zone);
            let ended = asking.run(&shared.store, responses, requests, &report, visibility).await;
            *places = asking.places();
            ended
        });
        Ok(answer(headers, Box::pin(stream)))
    }
}

/// With headers that go at once: a call of a zone is open when they have come.
fn answer<S>(headers: MetadataMap, stream: S) -> Response<S> {
    Response::from_parts(headers, stream, tonic::Extensions::default())
}
