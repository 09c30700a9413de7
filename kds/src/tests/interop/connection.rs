//! What stands around the messages: pings, compression, metadata.

use super::{
    plain::{PlainGlobal, Resources, first_request, resource, with_headers, wrapped},
    plain_global::{self, id, mesh, web},
    world::{Global, MESH, PATIENCE, TIMEOUT, Zone, pipe, timeout_of},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    kuma::mesh::v1alpha1::kds_sync_service_client::KdsSyncServiceClient,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, copy, split},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

const HOUR: Duration = Duration::from_secs(3600);

async fn pause(time: Duration) {
    timeout(time, std::future::pending::<()>()).await.unwrap_err();
}

/// A connection that is pinged as Kuma does.
async fn channel(global: &Global) -> Channel {
    let connect = global.connect.clone();
    let connector = tower::service_fn(move |_| {
        let connect = connect.clone();
        async move { pipe(connect).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://global")
        .http2_keep_alive_interval(Duration::from_secs(15))
        .keep_alive_timeout(Duration::from_secs(15))
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .unwrap()
}

/// A call as a zone makes it that does not ask whether global is there, with other metadata.
async fn call(
    channel: Channel,
    change: impl FnOnce(&mut tonic::metadata::MetadataMap),
) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), tonic::Status>
{
    let (sender, outgoing) = mpsc::channel(100);
    let mut request = with_headers("east", ReceiverStream::new(outgoing));
    request.metadata_mut().remove("features");
    change(request.metadata_mut());
    let opened = KdsSyncServiceClient::new(channel).global_to_zone_sync(request).await;
    Ok((sender, opened?.into_inner()))
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_but_pings_stays_open() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let (sender, mut responses) = call(channel(&global).await, |_| ()).await.unwrap();
    pause(HOUR).await;
    assert_eq!(*global.wrong.ended.borrow(), []);
    sender.send(first_request("east", "Mesh")).await.unwrap();
    let response = timeout(PATIENCE, responses.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(response.resources.len(), 1);
}

/// When a peer sent pings of its own.
type Pings = Arc<Mutex<Vec<Instant>>>;

/// Passes on what a client sends, and notes the pings in it.
async fn listen(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, pings: Pings) {
    const PREFACE: usize = 24;
    const PING: u8 = 6;
    const ACK: u8 = 1;
    let mut preface = [0; PREFACE];
    from.read_exact(&mut preface).await.unwrap();
    to.write_all(&preface).await.unwrap();
    let mut head = [0; 9];
    while from.read_exact(&mut head).await.is_ok() {
        let [a, b, c, kind, flags, ..] = head;
        if kind == PING && flags & ACK == 0 {
            pings.lock().push(Instant::now());
        }
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload).await.unwrap();
        to.write_all(&head).await.unwrap();
        to.write_all(&payload).await.unwrap();
    }
}

/// Leads to the same as `connect`, with somebody who listens.
fn tapped(
    tasks: &mut JoinSet<()>,
    connect: mpsc::Sender<DuplexStream>,
) -> (mpsc::Sender<DuplexStream>, Pings) {
    let (outer, mut incoming) = mpsc::channel::<DuplexStream>(8);
    let pings = Pings::default();
    let noted = pings.clone();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Some(near) = incoming.recv().await {
            let far = pipe(connect.clone()).await.unwrap();
            let ((near_read, mut near_write), (mut far_read, far_write)) =
                (split(near), split(far));
            connections.spawn(listen(near_read, far_write, noted.clone()));
            connections.spawn(async move { drop(copy(&mut far_read, &mut near_write).await) });
        }
    });
    (outer, pings)
}

#[tokio::test(start_paused = true)]
async fn a_zone_of_ours_pings_no_more_often_than_a_plain_global_allows() {
    let mut tasks = JoinSet::new();
    let offers = |idle: &str| {
        let kinds = [("Mesh", mesh()), ("Config", id("c1")), ("MeshTimeout", web(idle))];
        plain_global::all(kinds)
    };
    let (global, connect) = plain_global::start(&mut tasks, offers("0s"));
    let (connect, pings) = tapped(&mut tasks, connect);
    let zone = Zone::start(&mut tasks, "east", &connect);
    // Traffic is no reason for pings either.
    for number in 1..100 {
        global.offers.send_replace(offers(&format!("{number}s")));
        pause(Duration::from_secs(1)).await;
    }
    assert_eq!(zone.plane.names(TIMEOUT).len(), 1);
    pause(HOUR).await;
    let pings = pings.lock().clone();
    let closest = pings.windows(2).map(|two| two[1] - two[0]).min();
    assert!(pings.len() > 100, "a silent global would not be noticed: {} pings", pings.len());
    assert!(closest > Some(Duration::from_secs(15)), "{closest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_says_of_which_zone_it_is() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let refused = call(channel(&global).await, |metadata| drop(metadata.remove("client-id"))).await;
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::PermissionDenied);
    let invented = |metadata: &mut tonic::metadata::MetadataMap| {
        metadata.insert("client-id", "No Name".parse().unwrap());
    };
    let refused = call(channel(&global).await, invented).await;
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(*global.wrong.turned_away.borrow(), ["denied", "denied"]);
    assert_eq!(global.plane.names(MESH), ["default"]);
}

#[tokio::test(start_paused = true)]
async fn names_of_a_zone_that_does_not_hash_get_its_name() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    for (hashes, name) in [(false, "east.web"), (true, "web")] {
        let (sender, outgoing) = mpsc::channel(100);
        let mut request = with_headers("east", ReceiverStream::new(outgoing));
        if !hashes {
            request.metadata_mut().remove("features");
        }
        let mut client = KdsSyncServiceClient::new(channel(&global).await);
        let _requests = client.zone_to_global_sync(request).await.unwrap();
        let spec = timeout_of("1s").to_string();
        let web = resource("web", "default", &[], ("", spec.as_bytes()));
        let response = DeltaDiscoveryResponse {
            type_url: "MeshTimeout".into(),
            nonce: "1".into(),
            resources: vec![wrapped("1", &web)],
            ..DeltaDiscoveryResponse::default()
        };
        sender.send(response).await.unwrap();
        global.plane.until(TIMEOUT, |all| all.keys().eq([name])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_zone_of_ours_says_that_it_reads_gzip() {
    let mut tasks = JoinSet::new();
    let global = PlainGlobal::new(Resources::new(), |_, _| Ok(()));
    let (connect, incoming) = mpsc::channel(8);
    tasks.spawn(global.clone().serve(incoming));
    let _zone = Zone::start(&mut tasks, "east", &connect);
    let mut calls = global.calls.subscribe();
    let all = timeout(PATIENCE, calls.wait_for(|calls| calls.len() == 6)).await;
    for (call, metadata) in all.unwrap().unwrap().iter() {
        let accepted = metadata.get("grpc-accept-encoding").map(|value| value.to_str().unwrap());
        assert!(accepted.is_some_and(|all| all.split(',').any(|one| one == "gzip")), "{call}");
    }
}
