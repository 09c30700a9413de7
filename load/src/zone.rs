//! A simulated zone.

use crate::{Offers, Target, down::Asking, up};
use anyhow::{Context as _, Result};
use delta::Cursor;
use http::uri::PathAndQuery;
use kds::{dialect::Introduction, metadata::of_zone};
use parking_lot::Mutex;
use proto::{
    envoy::config::core::v3::Node,
    kuma::{
        mesh::v1alpha1::{
            ClustersRequest, ClustersResponse, StatsRequest, StatsResponse, XdsConfigRequest,
            XdsConfigResponse, ZoneHealthCheckRequest, ZoneHealthCheckResponse,
        },
        system::v1alpha1::KumaCpVersion,
    },
};
use resource::ZoneName;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{IntoStreamingRequest as _, Request, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

const SERVICE: &str = "/kuma.mesh.v1alpha1.GlobalKDSService";

/// What happened to a zone, and when.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When the zone was done with it.
    pub at: Instant,
    /// Its number.
    pub zone: usize,
    /// What it was.
    pub event: Event,
}

/// What happens to a zone.
#[derive(Clone, Debug)]
pub enum Event {
    /// It took a response of global and acknowledged it.
    Took {
        /// Of which kind.
        kind: String,
        /// With so many resources.
        resources: usize,
        /// Without so many others.
        removed: usize,
        /// It has all there is of this kind.
        complete: bool,
    },
    /// Global acknowledged changes.
    Sent {
        /// When each was made.
        made: Vec<Instant>,
    },
}

/// A zone that holds nothing but its places in the history of global.
#[derive(Debug)]
pub struct Zone {
    number: usize,
    name: ZoneName,
    token: String,
    places: Mutex<BTreeMap<String, Cursor>>,
    events: mpsc::Sender<Seen>,
}

impl Zone {
    /// The zone with this number, which tells `events` what happens to it.
    #[must_use]
    pub fn new(number: usize, name: ZoneName, token: String, events: mpsc::Sender<Seen>) -> Self {
        Self { number, name, token, places: Mutex::default(), events }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &ZoneName {
        &self.name
    }

    /// From now on it is a zone that was never there: it wants everything again.
    pub fn forget(&self) {
        self.places.lock().clear();
    }

    pub(crate) fn place(&self, kind: &str) -> Option<Cursor> {
        self.places.lock().get(kind).copied()
    }

    pub(crate) fn is_at(&self, kind: &str, cursor: Option<Cursor>) {
        if let Some(cursor) = cursor {
            self.places.lock().insert(kind.to_owned(), cursor);
        }
    }

    pub(crate) async fn tell(&self, event: Event) {
        let seen = Seen { at: Instant::now(), zone: self.number, event };
        // Nobody measures any more.
        self.events.send(seen).await.ok();
    }

    /// What it says about itself in first requests.
    pub(crate) fn node(&self) -> Node {
        let introduction = Introduction {
            features: kds::dialect::own_features(),
            version: KumaCpVersion { version: "load".into(), ..KumaCpVersion::default() },
            config: r#"{"store":{"type":"memory"}}"#.into(),
            instance: format!("{}-1", self.name),
        };
        introduction.node(&self.name)
    }

    /// One connection with `target`, with the calls that every zone makes, until one of them ends.
    pub async fn connect(self: &Arc<Self>, target: &Target, offers: Offers<'_>) -> Result<()> {
        let channel = target.channel().await?;
        let asking = Asking { zone: Arc::clone(self), channel: channel.clone() };
        tokio::select! {
            biased;
            ended = asking.run() => ended,
            ended = up::offer(self, channel.clone(), offers) => ended,
            ended = self.health(channel.clone()) => ended,
            ended = self.wait::<XdsConfigResponse, XdsConfigRequest>(&channel, "StreamXDSConfigs") => ended,
            ended = self.wait::<StatsResponse, StatsRequest>(&channel, "StreamStats") => ended,
            ended = self.wait::<ClustersResponse, ClustersRequest>(&channel, "StreamClusters") => ended,
        }
    }

    /// A request with what a zone says in each call.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = of_zone(&self.name, "load", Some(&self.token));
        request
    }

    async fn health(&self, channel: Channel) -> Result<()> {
        let path = PathAndQuery::try_from(format!("{SERVICE}/HealthCheck"))?;
        loop {
            let mut grpc = Grpc::new(channel.clone());
            grpc.ready().await?;
            let codec = ProstCodec::<ZoneHealthCheckRequest, ZoneHealthCheckResponse>::default();
            let asked = self.request(ZoneHealthCheckRequest {});
            let answer = grpc.unary(asked, path.clone(), codec).await?.into_inner();
            let interval = answer.interval.and_then(|said| Duration::try_from(said).ok());
            let pause = interval.context("HealthCheck: no interval")?;
            timeout(pause, std::future::pending::<()>()).await.ok();
        }
    }

    /// A stream of questions, of which none comes.
    async fn wait<A, Q>(&self, channel: &Channel, call: &str) -> Result<()>
    where
        A: prost::Message + Send + Sync + 'static,
        Q: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("{SERVICE}/{call}"))?;
        let (_answers, outgoing) = mpsc::channel::<A>(1);
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await?;
        let asked = self.request(ReceiverStream::new(outgoing)).into_streaming_request();
        let codec = ProstCodec::<A, Q>::default();
        let mut questions = grpc.streaming(asked, path, codec).await?.into_inner();
        questions.message().await?;
        anyhow::bail!("{call} ended")
    }
}
