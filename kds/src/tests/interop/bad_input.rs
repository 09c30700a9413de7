//! What breaks the protocol ends that peer's stream, and nothing else.

use super::{
    plain::{answer, first_request, node, resource, with_headers, wrapped},
    world::{Global, MESH, PATIENCE, TIMEOUT, Zone, timeout_of},
};
use proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    kuma::mesh::v1alpha1::{
        ZoneHealthCheckRequest, global_kds_service_client::GlobalKdsServiceClient,
        kds_sync_service_client::KdsSyncServiceClient,
    },
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

type Down = (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>);
type Up = (mpsc::Sender<DeltaDiscoveryResponse>, Streaming<DeltaDiscoveryRequest>);

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

/// Others are served as before.
async fn serves_on(tasks: &mut JoinSet<()>, global: &Global) {
    let zone = Zone::start(tasks, "west", &global.connect);
    zone.until_complete().await;
    assert_eq!(zone.plane.names(MESH), ["default"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_breaks_the_protocol_ends_its_stream() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let channel = global.channel().await;
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
    serves_on(&mut tasks, &global).await;
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

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_and_deletes_nothing() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let channel = global.channel().await;
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
    serves_on(&mut tasks, &global).await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_was_not_asked_for_is_refused() {
    let mut tasks = JoinSet::new();
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
}

#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_answered_ends_its_stream() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let channel = global.channel().await;
    let (sender, requests) = up(&channel).await;
    sender.send(response("MeshTimeout", "", vec![])).await.unwrap();
    let status = end(requests).await;
    assert_eq!(status.message(), "nonce: must not be empty");
    // A peer that only ends its stream is not told that all is well: plain ones would take that for
    // the end of all streams.
    let (sender, requests) = up(&channel).await;
    drop(sender);
    assert_eq!(end(requests).await.code(), Code::Cancelled);
    serves_on(&mut tasks, &global).await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_show_who_it_is_gets_nothing() {
    let mut tasks = JoinSet::new();
    let global = Global::with_door(&mut tasks, false).await;
    let channel = global.channel().await;
    let refused = down(&channel).await.map(drop).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "no token"));

    let mut health = GlobalKdsServiceClient::new(channel.clone());
    let refused = health.health_check(with_headers("east", ZoneHealthCheckRequest {})).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);

    let mut request = with_headers("east", ZoneHealthCheckRequest {});
    request.metadata_mut().insert("authorization", "Bearer west-token".parse().unwrap());
    let refused = health.health_check(request).await.unwrap_err();
    let why = r#"client-id is "east", the credential is of "west""#;
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, why));
    serves_on(&mut tasks, &global).await;
}
