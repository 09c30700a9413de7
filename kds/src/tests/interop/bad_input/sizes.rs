//! Messages that are larger than anybody needs.

use super::super::{
    plain::{answer, first_request, resource, with_headers, wrapped},
    world::{TIMEOUT, timeout_of},
};
use super::{DOWN, Siege, UP, down, end, next, raw, response, skip_requests, up};
use crate::limit;
use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    frame::Frame,
    kuma::mesh::v1alpha1::kds_sync_service_client::KdsSyncServiceClient,
};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, body::Body, codec::CompressionEncoding};
use tower::Service as _;

#[tokio::test(start_paused = true)]
async fn a_message_of_200_mb_is_refused_before_it_is_read() {
    let mut siege = Siege::begin().await;
    for path in [DOWN, UP] {
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = taken.clone();
        let chunk = Bytes::from_static(&[0; 16 * 1024]);
        // Not compressed, and so long.
        let head = [&[0][..], &200_000_000_u32.to_be_bytes()].concat();
        let rest = std::iter::repeat_n(chunk, 200_000_000 / (16 * 1024));
        let all = std::iter::once(Bytes::from(head)).chain(rest).map(move |chunk| {
            counted.fetch_add(chunk.len(), Ordering::Relaxed);
            Ok::<_, Infallible>(http_body::Frame::data(chunk))
        });
        let (metadata, _, ()) = with_headers("east", ()).into_parts();
        let mut request = http::Request::builder()
            .method("POST")
            .uri(format!("http://global{path}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(Body::new(StreamBody::new(futures::stream::iter(all))))
            .unwrap();
        request.headers_mut().extend(metadata.into_headers());
        std::future::poll_fn(|context| siege.east.poll_ready(context)).await.unwrap();
        let answered = timeout(super::PATIENCE, siege.east.call(request)).await;
        let body = answered.expect("an answer").unwrap().into_body();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let code = trailers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
        assert_eq!(code, Some(Code::OutOfRange), "{trailers:?}");
        assert!(taken.load(Ordering::Relaxed) < 10_000_000, "{taken:?} bytes were taken");
        siege.serves_on().await;
    }
    siege.ended(&["too-large", "too-large"]).await;
    siege.warned(&["the limit is: 4194304 bytes", "the limit is: 10485760 bytes"]);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_compressed_message_hides_is_refused() {
    let mut siege = Siege::begin().await;
    let (sender, outgoing) = mpsc::channel(1);
    let mut client =
        KdsSyncServiceClient::new(siege.east.clone()).send_compressed(CompressionEncoding::Gzip);
    let outgoing = with_headers("east", ReceiverStream::new(outgoing));
    let requests = client.zone_to_global_sync(outgoing).await.unwrap().into_inner();
    // Some ten thousand bytes on the wire.
    let large = "x".repeat(limit::PLAIN_MESSAGE + 1);
    let large =
        DeltaDiscoveryResponse { system_version_info: large, ..response("Mesh", "1", vec![]) };
    sender.send(large).await.unwrap();
    let status = end(requests).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    siege.ended(&["too-large"]).await;
    siege.warned(&["ResourceExhausted"]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_million_empty_fields_is_not_decoded() {
    let mut siege = Siege::begin().await;
    // Resources without anything: two bytes here, hundreds in memory.
    let head = Bytes::from([0x12, 0].repeat(1_000_000));
    let (sender, requests) = raw::<DeltaDiscoveryRequest>(&siege.east, UP).await;
    sender.send(Frame { head, resources: Vec::new() }).await.unwrap();
    let status = end(requests).await;
    let why = "the message has more than 250000 fields";
    assert_eq!((status.code(), status.message()), (Code::OutOfRange, why));
    // Names that it wants to hear of no more.
    let head = Bytes::from([0x22, 0].repeat(1_000_000));
    let (sender, responses) = raw::<DeltaDiscoveryResponse>(&siege.east, DOWN).await;
    sender.send(Frame { head, resources: Vec::new() }).await.unwrap();
    assert_eq!(end(responses).await.message(), why);
    siege.ended(&["too-large", "too-large"]).await;
    siege.warned(&["more than 250000 fields"; 2]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_names_100_000_resources() {
    let mut siege = Siege::begin().await;
    let names = |range: std::ops::Range<u32>| range.map(|number| format!("{number}.default"));
    let held = |range| names(range).map(|name| (name, "1".to_owned())).collect();
    let request = |kind: &str, range| DeltaDiscoveryRequest {
        initial_resource_versions: held(range),
        ..first_request("east", kind)
    };
    let (sender, responses) = down(&siege.east).await.unwrap();
    sender.send(request("MeshTimeout", 0..100_000)).await.unwrap();
    let why = "initial_resource_versions: has 100000 names, and may have 50000";
    assert_eq!(end(responses).await.message(), why);
    // So many are taken for what it holds.
    let (sender, mut responses) = down(&siege.east).await.unwrap();
    sender.send(request("MeshTimeout", 0..50_000)).await.unwrap();
    let answer = next(&mut responses).await.unwrap().unwrap();
    assert_eq!(answer.removed_resources.len(), 50_000);
    drop((sender, responses));
    siege.serves_on().await;
    // Nor in several requests, each of which is small enough.
    let (sender, responses) = down(&siege.east).await.unwrap();
    sender.send(request("MeshTimeout", 0..30_000)).await.unwrap();
    sender.send(request("MeshRetry", 0..30_000)).await.unwrap();
    assert!(end(responses).await.message().contains("has 60000 names"));
    // Nor by subscribing to them.
    let (sender, responses) = down(&siege.east).await.unwrap();
    let resource_names_subscribe = names(0..100_000).collect();
    let request = first_request("east", "MeshTimeout");
    sender.send(DeltaDiscoveryRequest { resource_names_subscribe, ..request }).await.unwrap();
    assert!(end(responses).await.message().starts_with("resource_names_subscribe: "));
    siege.ended(&["too-much", "closed", "too-much", "broken"]).await;
    siege.warned(&["found: 100000, what: \"names\", most: 50000", "Names unsaid=0"]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_repeated_to_a_peer_is_short() {
    let mut siege = Siege::begin().await;
    let long = "x".repeat(1_000_000);
    let short = |message: &str| assert!(message.len() < 2 * limit::REASON, "{}", message.len());
    let named = |id: &str| {
        let node = Some(super::super::plain::node(id));
        DeltaDiscoveryRequest { node, ..first_request("east", "Mesh") }
    };
    for request in [named(&long), first_request("east", &long)] {
        let (sender, responses) = down(&siege.east).await.unwrap();
        sender.send(request).await.unwrap();
        let status = end(responses).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        short(status.message());
    }
    for (kind, nonce) in [("MeshTimeout", &*long), (&long, "1")] {
        let (sender, requests) = up(&siege.east).await;
        sender.send(response(kind, nonce, Vec::new())).await.unwrap();
        let status = end(requests).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        short(status.message());
    }
    siege.ended(&["broken", "too-much", "too-much", "too-much"]).await;
    siege.warned(&[
        "Node { found: \"xxx",
        "GlobalToZone reason=the peer broke the protocol: TooMuch",
        "ZoneToGlobal reason=the peer broke the protocol: TooMuch",
    ]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_100_000_resources_fits_into_a_message() {
    let mut siege = Siege::begin().await;
    let (sender, mut requests) = up(&siege.east).await;
    skip_requests(&mut requests).await;
    let spec = timeout_of("1s").to_string();
    let bad = |number: u32| Resource { name: format!("{number}.default"), ..Resource::default() };
    let good = wrapped("1", &resource("good", "default", &[], ("", spec.as_bytes())));
    let labels: Vec<(String, String)> =
        (0..300).map(|number| (format!("label-{number}"), String::new())).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (&**key, &**value)).collect();
    let labelled = wrapped("1", &resource("labelled", "default", &labels, ("", spec.as_bytes())));
    let long = Resource { name: "x".repeat(100_000), ..Resource::default() };
    let all = [labelled, long, good].into_iter().chain((0..100_000).map(bad)).collect();
    sender.send(response("MeshTimeout", "1", all)).await.unwrap();
    let nack = next(&mut requests).await.unwrap().unwrap();
    assert!(nack.encoded_len() < 64 * 1024, "{} bytes", nack.encoded_len());
    let text = nack.error_detail.unwrap().message;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        (lines[0], lines[1], lines[2], lines[32]),
        (
            "labelled.default: meta.labels: has 300 entries, and may have 256",
            "resource.name: has 100000 bytes, and may have 512",
            "0.default: resource: is missing",
            "and 99970 more",
        )
    );
    assert_eq!(siege.global.plane.names(TIMEOUT), ["good"], "the rest was taken");
    // So much refused is not remembered one by one: the stream goes on all the same.
    sender.send(response("MeshTimeout", "2", Vec::new())).await.unwrap();
    let ack = next(&mut requests).await.unwrap().unwrap();
    assert_eq!(ack, answer("east", "MeshTimeout", "2", None));
    siege.serves_on().await;
    siege.ended(&[]).await;
    siege.warned(&[
        "labelled.default\" reason=\"meta.labels: has 300 entries, and may have 256\" all=100002",
    ]);
}
