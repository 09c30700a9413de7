//! The calls by which a zone shows that it is there, and by which global asks for its proxies.

use super::{Guest, Shared};
use crate::{
    admin::Wire,
    ended::StreamEnded,
    idle::Idle,
    metadata::{held, shine},
    observe::{Call, Event, Report},
};
use futures::{Stream, StreamExt as _};
use proto::kuma::mesh::v1alpha1::{
    ClustersRequest, ClustersResponse, StatsRequest, StatsResponse, XdsConfigRequest,
    XdsConfigResponse, ZoneHealthCheckRequest, ZoneHealthCheckResponse,
    global_kds_service_server::GlobalKdsService,
};
use resource::Feature;
use std::{pin::Pin, sync::Arc};
use store::Backend;
use tonic::{Request, Response, Status, Streaming};

/// See [`super::Server`].
pub(super) struct Calls<B> {
    pub(super) shared: Arc<Shared<B>>,
}

type Outgoing<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

#[tonic::async_trait]
impl<B: Backend + 'static> GlobalKdsService for Calls<B> {
    type StreamXDSConfigsStream = Outgoing<XdsConfigRequest>;
    type StreamStatsStream = Outgoing<StatsRequest>;
    type StreamClustersStream = Outgoing<ClustersRequest>;

    async fn stream_xds_configs(
        &self,
        request: Request<Streaming<XdsConfigResponse>>,
    ) -> Result<Response<Self::StreamXDSConfigsStream>, Status> {
        self.ask(Call::Config, request)
    }

    async fn stream_stats(
        &self,
        request: Request<Streaming<StatsResponse>>,
    ) -> Result<Response<Self::StreamStatsStream>, Status> {
        self.ask(Call::Stats, request)
    }

    async fn stream_clusters(
        &self,
        request: Request<Streaming<ClustersResponse>>,
    ) -> Result<Response<Self::StreamClustersStream>, Status> {
        self.ask(Call::Clusters, request)
    }

    async fn health_check(
        &self,
        request: Request<ZoneHealthCheckRequest>,
    ) -> Result<Response<ZoneHealthCheckResponse>, Status> {
        let guest = guest(request.extensions())?;
        let held = held(request.metadata());
        self.shared.present.heard(&guest.admitted.zone, request.metadata(), held.is_some())?;
        let report = Report::new(self.shared.observer.clone(), guest.admitted.zone.clone());
        report.tell(Event::HealthChecked { held: held.as_deref() });
        let interval = self.shared.settings.health_interval.try_into().ok();
        let mut response = Response::new(ZoneHealthCheckResponse { interval });
        if let Some(beacon) = self.shared.beacon().filter(|_| guest.dialect.has(Feature::Beacon)) {
            shine(response.metadata_mut(), beacon);
        }
        Ok(response)
    }
}

impl<B: Backend + 'static> Calls<B> {
    fn ask<W: Wire>(
        &self,
        call: Call,
        request: Request<Streaming<W>>,
    ) -> Result<Response<Outgoing<W::Request>>, Status> {
        let (metadata, extensions, mut answers) = request.into_parts();
        let guest = guest(&extensions)?;
        let counted = self.shared.count(&guest, &metadata, call)?;
        let (connection, questions) =
            self.shared.admin.connect::<W>(&guest.admitted.zone, guest.dialect);
        let stream =
            self.shared.start((&guest, &metadata), (call, counted), questions, |_, _| async move {
                let mut idle = Idle::default();
                loop {
                    match answers.next().await {
                        Some(Ok(answer)) => {
                            if let Err(broken) = idle.note(connection.answered(answer)) {
                                return StreamEnded::Broken(broken);
                            }
                        }
                        Some(Err(status)) => return StreamEnded::Failed(status),
                        None => return StreamEnded::ByPeer,
                    }
                }
            });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn guest(extensions: &tonic::Extensions) -> Result<Guest, Status> {
    let guest = extensions.get::<Guest>().cloned();
    guest.ok_or_else(|| Status::unauthenticated("no admission"))
}
