//! The stream by which an Envoy gets its configuration.

use super::{
    auth::Bearer,
    desk::{Admitted, Desk},
    insight::Versions,
    limits, session,
};
use crate::reconcile::{NotServed, Traits};
use futures::{StreamExt, TryStreamExt, stream};
use kds::limit::STALE;
use prost_types::{Struct, Value, value::Kind};
use proto::{
    envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest},
    frame::Frame,
};
use std::sync::Arc;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tonic::{Status, Streaming};
use tracing::{info, warn};
use xds::{ads::Event, bootstrap::SPIRE_SOCKET};

/// Serves one stream until it ends.
pub(super) async fn serve(
    desk: Arc<Desk>,
    bearer: Bearer,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Frame>,
) -> Result<(), Status> {
    let first = timeout(limits::HELLO, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no request in time"))??;
    let Some(first) = first else { return Ok(()) };
    let node = first.node.clone();
    let node = node.ok_or_else(|| Status::invalid_argument("node: must be set at first"))?;
    desk.check_open()?;
    let asks = Asks::read(&node)?;
    let refused = |status: &Status| {
        warn!(node = node.id, reason = status.message(), "Envoy refused");
    };
    // A program of ours keeps its Dataplane by its session.
    let json = if asks.is_ours { "" } else { asks.dataplane };
    let admitted = desk.admit(&bearer, (asks.mesh, asks.name), json).inspect_err(refused)?;
    let Admitted { key, sent, .. } = &admitted;
    let alone = (!asks.is_ours).then(|| (sent.clone(), asks.versions()));
    let (taken, written) = desk
        .registry
        .begin_stream(key, alone)
        .ok_or_else(|| Status::resource_exhausted("too many streams of this proxy"))?;
    if let Some(written) = written {
        written.await.map_err(|_| Status::unavailable("the store is closed"))?;
    }
    // What the store says is in the tables a moment later.
    desk.meshes.wait_for(desk.registry.shelf.reader.revision()).await;
    let traits = Traits { binds_vips: asks.binds_vips, has_agent: asks.has_agent };
    let connected = desk.meshes.connect(&admitted.proxy(), traits);
    let (source, changes) = connected.map_err(|error| not_served(&error)).inspect_err(refused)?;
    info!(dataplane = %key, "Envoy connected");
    let id = node.id.clone();
    let rest = requests.map(move |request| same_node(request?, &id));
    let requests = stream::once(std::future::ready(Ok(first))).chain(rest);
    let requests = requests.inspect_ok(|request| taken.holds(request));
    let (owed, owes) = watch::channel(None);
    let report = |event| match event {
        Event::Beacon(_) => drop(owed.send_replace(Some(Instant::now()))),
        Event::Answered(number) => {
            owed.send_replace(None);
            desk.meshes.beacons().answered(key, number);
        }
        Event::Settled => desk.meshes.moved(),
        Event::Sent { .. } | Event::Acked { .. } | Event::Refused { .. } => taken.report(event),
    };
    let served = xds::ads::serve(&*source, changes, requests, responses, report);
    tokio::select! {
        biased;
        () = desk.stop.cancelled() => Err(Status::unavailable("the control plane stops")),
        error = desk.tokens.end_of(&bearer) => Err(error.status()),
        () = overdue(owes) => {
            warn!(dataplane = %key, "Envoy does not answer");
            Err(Status::deadline_exceeded("Envoy does not answer"))
        }
        ended = served => Ok(ended?),
    }
}

/// Comes when Envoy has owed the answer to a beacon for too long: its stream is opened anew then.
async fn overdue(mut owes: watch::Receiver<Option<Instant>>) {
    loop {
        let since = *owes.borrow_and_update();
        tokio::select! {
            biased;
            changed = owes.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = sleep_until(since.unwrap_or_else(Instant::now) + STALE), if since.is_some() => return,
        }
    }
}

fn not_served(error: &NotServed) -> Status {
    match error {
        NotServed::Incomplete => Status::unavailable(error.to_string()),
        NotServed::NoMesh(_) | NotServed::NoDataplane(_) => Status::not_found(error.to_string()),
    }
}

/// Who a stream is for is settled by its first request.
fn same_node(request: DeltaDiscoveryRequest, id: &str) -> Result<DeltaDiscoveryRequest, Status> {
    match &request.node {
        Some(node) if !node.id.is_empty() && node.id != id => {
            Err(Status::permission_denied("node.id: must stay the same"))
        }
        Some(_) | None => Ok(request),
    }
}

/// What a node says about itself. It is believed where it says nothing about who it is.
struct Asks<'a> {
    mesh: &'a str,
    name: &'a str,
    dataplane: &'a str,
    binds_vips: bool,
    has_agent: bool,
    /// It has, or will have, a session.
    is_ours: bool,
    metadata: Option<&'a Struct>,
}

impl<'a> Asks<'a> {
    fn read(node: &'a Node) -> Result<Self, Status> {
        let (mesh, name) = node
            .id
            .split_once('.')
            .ok_or_else(|| Status::invalid_argument("node.id: must be <mesh>.<name>"))?;
        let metadata = node.metadata.as_ref();
        let features = field(metadata, "features").and_then(|value| match &value.kind {
            Some(Kind::ListValue(list)) => Some(list.values.as_slice()),
            _ => None,
        });
        let binds_vips = features
            .unwrap_or_default()
            .iter()
            .any(|feature| text(Some(feature)) == session::BINDS_VIPS);
        let version = object(field(metadata, "version"));
        let dataplane = text(field(metadata, "dataplane.resource"));
        let is_ours = field(version, "atoll").is_some();
        // The cluster of its agent came with the same answer.
        let has_agent = !text(field(metadata, SPIRE_SOCKET)).is_empty();
        Ok(Self { mesh, name, dataplane, binds_vips, has_agent, is_ours, metadata })
    }

    fn versions(&self) -> Versions {
        let version = object(field(self.metadata, "version"));
        let of = |program| {
            let text = text(field(object(field(version, program)), "version"));
            text.chars().take(limits::TEXT).collect()
        };
        Versions { proxy: of("kumaDp"), envoy: of("envoy") }
    }
}

fn field<'a>(fields: Option<&'a Struct>, name: &str) -> Option<&'a Value> {
    fields?.fields.get(name)
}

fn object(value: Option<&Value>) -> Option<&Struct> {
    match &value?.kind {
        Some(Kind::StructValue(fields)) => Some(fields),
        _ => None,
    }
}

fn text(value: Option<&Value>) -> &str {
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn an_envoy_that_answers_beacons_is_kept_and_one_that_owes_an_answer_is_not() {
        let (owed, owes) = watch::channel(None);
        let overdue = overdue(owes);
        tokio::pin!(overdue);
        for _ in 0..100 {
            owed.send_replace(Some(Instant::now()));
            assert!(timeout(STALE / 2, &mut overdue).await.is_err(), "it has its time");
            owed.send_replace(None);
            assert!(timeout(STALE * 2, &mut overdue).await.is_err(), "it answered");
        }
        let since = Instant::now();
        owed.send_replace(Some(since));
        timeout(STALE * 2, &mut overdue).await.unwrap();
        assert_eq!(since.elapsed(), STALE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_ends_is_not_overdue() {
        let (owed, owes) = watch::channel(Some(Instant::now()));
        drop(owed);
        let waited = timeout(Duration::from_secs(3600), overdue(owes)).await;
        assert!(waited.is_err());
    }
}
