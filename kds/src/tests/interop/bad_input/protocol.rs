//! Messages that nobody who follows the protocol sends.

use super::super::{
    plain::{answer, first_request, node, resource, wrapped},
    world::{Global, MESH, TIMEOUT, pipe, timeout_of},
};
use super::{Siege, UP, down, end, next, raw, response, skip_requests, up};
use crate::tests::log::Log;
use bytes::Bytes;
use prost::Message as _;
use prost_types::Timestamp;
use proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    frame::Frame,
    kuma::mesh::v1alpha1::{DataplaneInsight, DiscoverySubscription},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::{Instant, timeout},
};
use tonic::Code;

#[tokio::test(start_paused = true)]
async fn a_request_that_breaks_the_protocol_ends_its_stream() {
    let mut siege = Siege::begin().await;
    let channel = siege.east.clone();
    let good = || first_request("east", "Mesh");
    let named = vec!["default.".to_owned()];
    let cases = [
        (DeltaDiscoveryRequest { node: None, ..good() }, "node: must be present in every request"),
        (
            DeltaDiscoveryRequest { node: Some(node("west")), ..good() },
            r#"node.id: is "west", must be "east""#,
        ),
        (
            DeltaDiscoveryRequest { resource_names_subscribe: named, ..good() },
            r#"resource_names_subscribe: only "*" can be asked for"#,
        ),
    ];
    for (request, why) in cases {
        let (sender, responses) = down(&channel).await.unwrap();
        sender.send(request).await.unwrap();
        let status = end(responses).await;
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, why));
    }
    let (sender, responses) = down(&channel).await.unwrap();
    sender.send(good()).await.unwrap();
    let ack = DeltaDiscoveryRequest { node: None, ..answer("east", "Mesh", "1", None) };
    sender.send(ack).await.unwrap();
    assert_eq!(end(responses).await.code(), Code::InvalidArgument, "also in an ACK");
    siege.ended(&["broken"; 4]).await;
    siege.warned(&["the peer broke the protocol: NoNode"]);
    siege.serves_on().await;
}

fn said(response: DeltaDiscoveryResponse) -> (String, String, Vec<String>, Vec<String>) {
    let names = response.resources.into_iter().map(|one| one.name).collect();
    (response.type_url, response.nonce, names, response.removed_resources)
}

#[tokio::test(start_paused = true)]
async fn strange_requests_are_answered_as_a_plain_global_does() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let (sender, mut responses) = down(&global.channel().await).await.unwrap();
    let nothing = |kind: &str, nonce: &str| (kind.to_owned(), nonce.to_owned(), vec![], vec![]);
    // Kinds that nobody knows, and that only zones own.
    for (kind, nonce) in [("Invention", "1"), ("Dataplane", "2"), ("Zone", "3")] {
        sender.send(first_request("east", kind)).await.unwrap();
        assert_eq!(said(next(&mut responses).await.unwrap().unwrap()), nothing(kind, nonce));
        sender.send(answer("east", kind, nonce, None)).await.unwrap();
    }
    sender.send(first_request("east", "Mesh")).await.unwrap();
    let mesh = ("Mesh".into(), "4".into(), vec!["default.".into()], vec![]);
    assert_eq!(said(next(&mut responses).await.unwrap().unwrap()), mesh);
    // An ACK of something else; the right one; a second first request.
    for nonce in ["99", "no number", "4"] {
        sender.send(answer("east", "Mesh", nonce, None)).await.unwrap();
    }
    sender.send(first_request("east", "Mesh")).await.unwrap();
    assert_eq!(said(next(&mut responses).await.unwrap().unwrap()), nothing("Mesh", "5"));
    // Versions are honoured: what is known is not sent, what is not there is removed.
    global.plane.put(TIMEOUT, "web", &[], timeout_of("1s")).await;
    let mut request = first_request("east", "MeshTimeout");
    request.initial_resource_versions = [("gone.default".into(), "abc".into())].into();
    sender.send(request).await.unwrap();
    let (_, _, names, removed) = said(next(&mut responses).await.unwrap().unwrap());
    assert_eq!((names.len(), removed), (1, vec!["gone.default".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_and_deletes_nothing() {
    let mut siege = Siege::begin().await;
    let (global, channel) = (&siege.global, siege.east.clone());
    let spec = timeout_of("1s").to_string();
    let labels = [("kuma.io/display-name", "web")];
    let kept = resource("kept", "default", &labels, ("", spec.as_bytes()));
    {
        let (sender, mut requests) = up(&channel).await;
        skip_requests(&mut requests).await;
        sender.send(response("MeshTimeout", "1", vec![wrapped("1", &kept)])).await.unwrap();
        let ack = next(&mut requests).await.unwrap().unwrap();
        assert_eq!(ack, answer("east", "MeshTimeout", "1", None));
    }
    assert_eq!(global.plane.names(TIMEOUT), ["kept"]);

    // On its next stream, in its first response.
    let (sender, mut requests) = up(&channel).await;
    skip_requests(&mut requests).await;
    let mut garbage = wrapped("1", &kept);
    garbage.resource.as_mut().unwrap().value = vec![0xff; 9];
    let mut other = wrapped("1", &kept);
    other.name = "other.default".into();
    other.resource.as_mut().unwrap().type_url = "type.googleapis.com/Other".into();
    let nothing = Resource { name: "nothing.default".into(), ..Resource::default() };
    let mut bare = kept.clone();
    bare.spec = None;
    bare.meta.as_mut().unwrap().name = "bare".into();
    let mut homeless = kept.clone();
    homeless.meta.as_mut().unwrap().mesh = "No".into();
    let mut unnamed = kept;
    unnamed.meta.as_mut().unwrap().name.clear();
    let [bare, homeless, unnamed] = [bare, homeless, unnamed].map(|it| wrapped("1", &it));
    let all = vec![garbage, other, nothing, bare, homeless, unnamed];
    sender.send(response("MeshTimeout", "1", all)).await.unwrap();
    let nack = next(&mut requests).await.unwrap().unwrap();
    assert_eq!(nack.resource_names_subscribe, ["*"]);
    let error = nack.error_detail.unwrap();
    assert_eq!(error.code, 0);
    let starts = [
        "kept.default: resource: malformed KumaResource: ",
        r#"other.default: resource.type_url: "type.googleapis.com/Other" is not a KumaResource"#,
        "nothing.default: resource: is missing",
        "bare.default: spec: is missing",
        r#"kept.No: meta.mesh: "No" is not a DNS label: "#,
        r#".default: meta.name: "" is not a resource name: "#,
    ];
    let lines: Vec<&str> = error.message.lines().collect();
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    assert_eq!(global.plane.names(TIMEOUT), ["kept"], "refused is not absent");
    siege.warned(&["name=\"kept.default\" reason=\"resource: malformed KumaResource: "]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_was_not_asked_for_is_refused() {
    let (mut tasks, log) = (JoinSet::new(), Log::listen());
    let global = Global::start(&mut tasks).await;
    let (sender, mut requests) = up(&global.channel().await).await;
    skip_requests(&mut requests).await;
    let mesh = resource("evil", "", &[], ("kuma.mesh.v1alpha1.Mesh", b""));
    for kind in ["Mesh", "Invention"] {
        sender.send(response(kind, "1", vec![wrapped("1", &mesh)])).await.unwrap();
        let nack = next(&mut requests).await.unwrap().unwrap();
        let why = format!("kind {kind:?} was not asked for");
        assert_eq!(nack.error_detail.unwrap().message, why);
    }
    assert_eq!(global.plane.names(MESH), ["default"]);
    log.warned("zone=east", &["kind \\\"Mesh\\\" was not asked for"]);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_answered_ends_its_stream() {
    let mut siege = Siege::begin().await;
    let channel = siege.east.clone();
    let (sender, requests) = up(&channel).await;
    sender.send(response("MeshTimeout", "", vec![])).await.unwrap();
    let status = end(requests).await;
    assert_eq!(status.message(), "nonce: must not be empty");
    // A peer that only ends its stream is not told that all is well: plain ones would take that for
    // the end of all streams.
    let (sender, requests) = up(&channel).await;
    drop(sender);
    assert_eq!(end(requests).await.code(), Code::Cancelled);
    siege.ended(&["broken", "closed"]).await;
    siege.warned(&["the peer broke the protocol: NoNonce"]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_its_stream_or_its_connection() {
    let mut siege = Siege::begin().await;
    let garbage = || Frame { head: Bytes::from_static(&[0xff; 99]), resources: Vec::new() };
    let (sender, responses) = raw::<DeltaDiscoveryResponse>(&siege.east, super::DOWN).await;
    sender.send(garbage()).await.unwrap();
    assert_eq!(end(responses).await.code(), Code::InvalidArgument);
    let (sender, requests) = raw::<DeltaDiscoveryRequest>(&siege.east, UP).await;
    sender.send(garbage()).await.unwrap();
    assert_eq!(end(requests).await.code(), Code::Internal);
    siege.ended(&["unreadable", "unreadable"]).await;
    siege.warned(&[
        "GlobalToZone reason=the stream failed",
        "ZoneToGlobal reason=the stream failed",
    ]);
    // What is not even HTTP.
    let mut connection = pipe(siege.global.connect.clone()).await.unwrap();
    connection.write_all(&[0x16; 4096]).await.unwrap();
    siege.serves_on().await;
    let mut all = Vec::new();
    timeout(super::PATIENCE, connection.read_to_end(&mut all)).await.unwrap().ok();
    siege.serves_on().await;
}

/// As an older zone, which does not ask whether global is there.
async fn down_without_health(siege: &Siege) -> super::Down {
    let (sender, outgoing) = tokio::sync::mpsc::channel(100);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut request = super::with_headers("east", outgoing);
    request.metadata_mut().remove("features");
    let mut client = super::KdsSyncServiceClient::new(siege.east.clone());
    (sender, client.global_to_zone_sync(request).await.unwrap().into_inner())
}

#[tokio::test(start_paused = true)]
async fn who_never_answers_is_let_go_whatever_else_it_says() {
    let mut siege = Siege::begin().await;
    for stray in [false, true] {
        let (sender, mut responses) = down_without_health(&siege).await;
        sender.send(first_request("east", "Mesh")).await.unwrap();
        next(&mut responses).await.unwrap().unwrap();
        let begun = Instant::now();
        siege.serves_on().await;
        let status = loop {
            match timeout(Duration::from_secs(100), responses.message()).await {
                Err(_) if stray => {
                    sender.send(answer("east", "Mesh", "99", None)).await.unwrap();
                }
                Err(_) => {}
                Ok(Ok(response)) => panic!("{response:?}"),
                Ok(Err(status)) => break status,
            }
            assert!(begun.elapsed() < Duration::from_secs(400), "stray: {stray}");
        };
        assert_eq!(status.code(), Code::DeadlineExceeded, "stray: {stray}");
    }
    siege.ended(&["silent", "silent"]).await;
    siege.warned(&["the peer did not answer in time"; 2]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_nonce_that_was_used_before_is_refused_and_the_next_one_passes() {
    let mut siege = Siege::begin().await;
    let (sender, mut requests) = up(&siege.east).await;
    skip_requests(&mut requests).await;
    let named = |name: &str| {
        let spec = timeout_of("1s").to_string();
        let labels = [("kuma.io/display-name", name)];
        wrapped("1", &resource(name, "default", &labels, ("", spec.as_bytes())))
    };
    let mut said = Vec::new();
    for (nonce, name) in [("1", "a"), ("1", "b"), ("2", "c")] {
        sender.send(response("MeshTimeout", nonce, vec![named(name)])).await.unwrap();
        let answer = next(&mut requests).await.unwrap().unwrap();
        said.push((answer.response_nonce, answer.error_detail.map(|error| error.message)));
        siege.serves_on().await;
    }
    let refused = Some(r#"nonce: "1" was used before"#.to_owned());
    assert_eq!(said, [("1".into(), None), ("1".into(), refused), ("2".into(), None)]);
    assert_eq!(siege.global.plane.names(TIMEOUT), ["a", "c", "calm"]);
    assert_eq!(*siege.global.wrong.declined.borrow(), 1);
    siege.ended(&[]).await;
    siege.warned(&["nonce: \\\"1\\\" was used before"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_twice_counts_once() {
    let mut siege = Siege::begin().await;
    let (sender, mut requests) = up(&siege.east).await;
    skip_requests(&mut requests).await;
    let of = |idle: &str| {
        let spec = timeout_of(idle).to_string();
        let labels = [("kuma.io/display-name", "web")];
        wrapped(idle, &resource("web", "default", &labels, ("", spec.as_bytes())))
    };
    // A resource twice in a response, and a kind twice without waiting for an answer.
    let both = vec![of("1s"), of("2s")];
    sender.send(response("MeshTimeout", "1", both)).await.unwrap();
    sender.send(response("MeshTimeout", "2", vec![])).await.unwrap();
    let nack = next(&mut requests).await.unwrap().unwrap();
    let why = "web.default: meta.name: occurs twice in the response";
    assert_eq!(nack.error_detail.unwrap().message, why);
    let ack = next(&mut requests).await.unwrap().unwrap();
    assert_eq!(ack, answer("east", "MeshTimeout", "2", None));
    assert_eq!(siege.global.plane.all(TIMEOUT)["web"], timeout_of("1s"), "not a state anew");
    siege.serves_on().await;
    siege.ended(&[]).await;
    siege
        .warned(&["name=\"web.default\" reason=\"meta.name: occurs twice in the response\" all=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_from_1970_is_believed_and_no_time_at_all_is_refused() {
    const INSIGHT: resource::Kind = kinds::dataplane_insight::KIND;
    let mut siege = Siege::begin().await;
    let (sender, mut requests) = up(&siege.east).await;
    skip_requests(&mut requests).await;
    let insight = |name: &str, seconds: i64, nanos: i32| {
        let connect_time = Some(Timestamp { seconds, nanos });
        let subscription = DiscoverySubscription { connect_time, ..Default::default() };
        let insight = DataplaneInsight { subscriptions: vec![subscription], ..Default::default() };
        let spec = ("kuma.mesh.v1alpha1.DataplaneInsight", &*insight.encode_to_vec());
        wrapped("1", &resource(name, "default", &[], spec))
    };
    let all = vec![
        insight("a-1970", 0, 0),
        insight("before", -1_000_000_000, 0),
        insight("never", i64::MIN, 0),
        insight("nowhere", i64::MAX, -1),
    ];
    sender.send(response("DataplaneInsight", "1", all)).await.unwrap();
    let nack = next(&mut requests).await.unwrap().unwrap();
    let shown = siege.global.plane.all(INSIGHT);
    assert_eq!(shown.keys().collect::<Vec<_>>(), ["a-1970", "before"]);
    let time = &shown["a-1970"]["subscriptions"][0]["connectTime"];
    assert_eq!(time, "1970-01-01T00:00:00Z");
    let text = nack.error_detail.map(|error| error.message).unwrap_or_default();
    let names: Vec<_> = text.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(names, ["never.default", "nowhere.default"], "{text}");
    siege.serves_on().await;
    siege.ended(&[]).await;
    siege.warned(&["name=\"never.default\" reason=\"spec: timestamp out of range\" all=2"]);
}
