//! What a zone offers to global: Dataplanes.

use crate::{Zone, zone::Event};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use delta::Version;
use http::uri::PathAndQuery;
use kds::{
    form::{Form, encode},
    limit,
    transit::hashed_name,
};
use kinds::dataplane;
use proto::{
    envoy::{
        config::core::v3::ControlPlane,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    },
    frame::{Frame, FrameCodec},
};
use resource::{Labels, MeshName, ResourceKey, ZoneName, label};
use serde_json::json;
use tokio::{
    sync::{SemaphorePermit, mpsc},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{IntoStreamingRequest as _, client::Grpc, transport::Channel};

const PATH: PathAndQuery =
    PathAndQuery::from_static("/kuma.mesh.v1alpha1.KDSSyncService/ZoneToGlobalSync");
const RESPONSES: usize = 64;

/// What a zone has for global.
#[derive(Debug)]
pub struct Offers<'a> {
    /// Its Dataplanes when it connects.
    pub first: Vec<Bytes>,
    /// Given back once global has those.
    pub turn: Option<SemaphorePermit<'a>>,
    /// Each change later, with the moment when it was made.
    pub changes: &'a mut mpsc::Receiver<(Instant, Bytes)>,
}

/// A Dataplane of `zone` as it travels: number `number` in its state `generation`.
pub fn dataplane(zone: &ZoneName, number: usize, generation: usize) -> Result<Bytes> {
    let kind = dataplane::KIND;
    let mesh = MeshName::new("default")?;
    let workload = format!("workload-{}", number / 5);
    let display = format!("{workload}-{number}");
    let spec = kind.from_json(json!({ "networking": {
        "address": format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255),
        "inbound": [{
            "name": "http", "port": 8080, "protocol": "http",
        }],
    } }))?;
    let name = hashed_name(Some(&mesh), &display, [Some(zone.as_str()), None]);
    let state = generation.to_string();
    let labels = [
        ("generation", state.as_str()),
        (label::DISPLAY_NAME, display.as_str()),
        (label::ENV, "universal"),
        (label::MESH, mesh.as_str()),
        (label::ORIGIN, label::ORIGIN_ZONE),
        (label::WORKLOAD, workload.as_str()),
        (label::ZONE, zone.as_str()),
    ];
    let version = (number as u128) << 64 | generation as u128 | 1 << 127;
    Ok(encode(Form {
        key: &ResourceKey { mesh: Some(mesh.clone()), name: name.into() },
        version: Version(version.to_be_bytes()),
        labels: Labels::from_iter(labels),
        spec_type: kind.type_url(),
        spec: kind.encode(&spec)?,
        status: None,
    }))
}

/// Offers what there is, and each change of it once global has taken the one before.
pub(crate) async fn offer(zone: &Zone, channel: Channel, mut offers: Offers<'_>) -> Result<()> {
    let (responses, outgoing) = mpsc::channel(RESPONSES);
    let mut grpc = Grpc::new(channel).max_decoding_message_size(limit::OWN_MESSAGE);
    grpc.ready().await?;
    let asked = zone.request(ReceiverStream::new(outgoing)).into_streaming_request();
    let codec = FrameCodec::<DeltaDiscoveryRequest>::default();
    let mut requests = grpc.streaming(asked, PATH, codec).await?.into_inner();
    let mut sending = Sending { zone, responses, nonce: 0, free: false, in_flight: None };
    loop {
        let change = tokio::select! {
            biased;
            request = requests.message() => {
                let request = request?.context("global ended ZoneToGlobalSync")?;
                sending.answer(request, &mut offers).await?;
                continue;
            }
            Some(change) = offers.changes.recv(), if sending.free => change,
        };
        let mut changes = vec![change];
        while let Ok(further) = offers.changes.try_recv() {
            changes.push(further);
        }
        let (made, resources) = changes.into_iter().unzip();
        sending.send(dataplane::KIND.name, "delta", resources).await?;
        sending.in_flight = Some(made);
        sending.free = false;
    }
}

struct Sending<'a> {
    zone: &'a Zone,
    responses: mpsc::Sender<Frame>,
    nonce: u64,
    /// Global waits for changes.
    free: bool,
    /// What it has not acknowledged.
    in_flight: Option<Vec<Instant>>,
}

impl Sending<'_> {
    async fn answer(
        &mut self,
        request: DeltaDiscoveryRequest,
        offers: &mut Offers<'_>,
    ) -> Result<()> {
        let dataplanes = request.type_url == dataplane::KIND.name;
        if request.response_nonce.is_empty() {
            let first = dataplanes.then(|| std::mem::take(&mut offers.first));
            let resources = first.unwrap_or_default();
            return self.send(&request.type_url, "complete", resources).await;
        }
        if let Some(error) = request.error_detail {
            anyhow::bail!("{}: global refused {}", self.zone.name(), error.message);
        }
        if dataplanes {
            self.free = true;
            offers.turn = None;
            let made = self.in_flight.take().unwrap_or_default();
            self.zone.tell(Event::Sent { made }).await;
        }
        Ok(())
    }

    async fn send(&mut self, kind: &str, extent: &str, resources: Vec<Bytes>) -> Result<()> {
        self.nonce += 1;
        let identifier = self.zone.name().to_string();
        let head = DeltaDiscoveryResponse {
            system_version_info: extent.into(),
            type_url: kind.into(),
            nonce: self.nonce.to_string(),
            control_plane: Some(ControlPlane { identifier }),
            ..DeltaDiscoveryResponse::default()
        };
        Ok(self.responses.send(Frame::new(&head, resources)).await?)
    }
}
