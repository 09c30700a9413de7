//! What a change did to which proxies, with a peer that answers when it is told to.

use super::{
    task::{PATIENCE, Program},
    *,
};
use crate::reconcile::Concerned;
use kinds::mesh;
use prost::Message as _;
use proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    frame::Frame,
};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use xds::{Type, ads};

/// An Envoy that takes everything, but answers only while it `listens`.
async fn envoy(
    mut sent: mpsc::Receiver<Frame>,
    requests: mpsc::Sender<Result<DeltaDiscoveryRequest, Status>>,
    mut listens: watch::Receiver<bool>,
) {
    for kind in [Type::Cluster, Type::Listener] {
        let type_url = kind.url().into();
        let first = DeltaDiscoveryRequest { type_url, ..DeltaDiscoveryRequest::default() };
        requests.send(Ok(first)).await.unwrap();
    }
    while let Some(frame) = sent.recv().await {
        let response = DeltaDiscoveryResponse::decode(frame.to_bytes()).unwrap();
        if listens.wait_for(|listens| *listens).await.is_err() {
            return;
        }
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(Ok(answer)).await.unwrap();
    }
}

fn connect(program: &mut Program, name: &str, listens: &watch::Sender<bool>) {
    let Stream { source, changes } = program.connect(name).unwrap();
    let (requests, asked) = mpsc::channel(8);
    let (responses, sent) = mpsc::channel(ads::CAPACITY);
    let meshes = program.meshes.clone();
    program.tasks.spawn(envoy(sent, requests, listens.subscribe()));
    program.tasks.spawn(async move {
        let report = |event| {
            if event == ads::Event::Settled {
                meshes.moved();
            }
        };
        let asked = ReceiverStream::new(asked);
        ads::serve(&*source, changes, asked, responses, report).await.ok();
    });
}

/// Waits until the proxies that `row` concerned are these, and whether they lack something of it.
async fn until(program: &Program, row: &Row, expected: &[(&str, bool)]) {
    let key = resource::ResourceKey::in_mesh(&shop(), &row.name);
    let shown = || {
        let concerned = program.meshes.concerned(row.kind.name, &key).unwrap();
        let shown = |it: Concerned| (it.proxy.to_string(), it.pending);
        concerned.into_iter().map(shown).collect::<Vec<_>>()
    };
    let expected: Vec<_> = expected.iter().map(|(name, it)| ((*name).to_owned(), *it)).collect();
    let mut moves = program.meshes.moves();
    let waiting = async {
        while shown() != expected {
            moves.changed().await.unwrap();
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{:?}", shown());
}

#[tokio::test(start_paused = true)]
async fn a_change_is_pending_in_the_proxies_that_it_concerns_until_they_answer() {
    let mut program = Program::start();
    program.put(&row(mesh::KIND, "shop", json!({}))).await;
    for name in ["cart-1", "pay-2"] {
        program.certified.issued.lock().insert(name.into(), issued(name, 1));
    }
    program.put(&sidecar("pay", 2, json!([http(8080)]))).await;
    let revision = program.put(&sidecar("cart", 1, json!([http(8080)]))).await;
    program.meshes.open();
    program.reached(revision).await;
    let (cart, pay) = (watch::Sender::new(true), watch::Sender::new(true));
    connect(&mut program, "cart-1", &cart);
    connect(&mut program, "pay-2", &pay);

    let service = remote("east", "book");
    program.reached(program.put(&service).await).await;
    until(&program, &service, &[("cart-1", false), ("pay-2", false)]).await;
    pay.send_replace(false);
    let more = remote("east", "more");
    program.reached(program.put(&more).await).await;
    until(&program, &more, &[("cart-1", false), ("pay-2", true)]).await;
    until(&program, &service, &[("cart-1", false), ("pay-2", false)]).await;
    pay.send_replace(true);
    until(&program, &more, &[("cart-1", false), ("pay-2", false)]).await;

    // What concerns one is no matter of the other.
    let inbound = sidecar("cart", 1, json!([http(8081)]));
    program.reached(program.put(&inbound).await).await;
    until(&program, &inbound, &[("cart-1", false)]).await;
    drop(program.tasks);
}

#[tokio::test(start_paused = true)]
async fn what_has_to_be_written_down_first_is_pending_until_it_is_taken() {
    let mut program = Program::start();
    program.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 1));
    program.put(&row(mesh::KIND, "shop", json!({}))).await;
    let revision = program.put(&sidecar("cart", 1, json!([tcp(9000)]))).await;
    program.meshes.open();
    program.reached(revision).await;
    let cart = watch::Sender::new(true);
    connect(&mut program, "cart-1", &cart);
    let allow = permission("allow", &["spiffe://shop.west.mesh.local/workload/pay"]);
    program.reached(program.put(&allow).await).await;
    until(&program, &allow, &[("cart-1", false)]).await;
    let key = resource::ResourceKey::in_mesh(&shop(), "allow");
    let kind = kinds::mesh_traffic_permission::KIND.kind.name;
    let [concerned] = &program.meshes.concerned(kind, &key).unwrap()[..] else { panic!("one") };
    let kinds: Vec<Type> = concerned.names.iter().map(|(kind, _)| *kind).collect();
    assert!(kinds.contains(&Type::Secret), "what came later is of it too: {kinds:?}");
    drop(program.tasks);
}
