//! What a change did to which proxies, with a peer that answers when it is told to.

use super::{
    task::{PATIENCE, Program},
    *,
};
use crate::{
    dataplanes::{Dataplanes, Parts},
    identities::Issuer,
    propagation::{ALL, Answers, FORGOTTEN, NOT_YET, Own},
    reconcile::{Concerned, Lacking, Meshes},
};
use daemon::{Clock, Metrics};
use kds::admin::{Answerer as _, Question, When};
use kinds::{
    labels::{Env, Place},
    mesh,
};
use prost::Message as _;
use proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    frame::Frame,
};
use resource::inspect::What;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::Backend as _;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
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

/// The kinds of which proxies lack changes, and how many do.
fn lacking(program: &Program) -> Vec<(&'static str, usize)> {
    let lacking = program.meshes.lacking().into_iter().map(|(kind, it)| (kind, it.proxies));
    lacking.filter(|(_, proxies)| *proxies > 0).collect()
}

/// The proxy `cart-1`, which listens.
async fn with_one() -> (Program, watch::Sender<bool>) {
    let mut program = Program::start();
    program.put(&row(mesh::KIND, "shop", json!({}))).await;
    program.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 1));
    let revision = program.put(&sidecar("cart", 1, json!([http(8080)]))).await;
    program.meshes.open();
    program.reached(revision).await;
    let cart = watch::Sender::new(true);
    connect(&mut program, "cart-1", &cart);
    (program, cart)
}

/// The proxies `cart-1` and `pay-2`, which listen.
async fn with_two() -> (Program, [watch::Sender<bool>; 2]) {
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
    (program, [cart, pay])
}

#[tokio::test(start_paused = true)]
async fn a_change_is_pending_in_the_proxies_that_it_concerns_until_they_answer() {
    let (program, [_cart, pay]) = with_two().await;

    let service = remote("east", "book");
    program.reached(program.put(&service).await).await;
    until(&program, &service, &[("cart-1", false), ("pay-2", false)]).await;
    pay.send_replace(false);
    let more = remote("east", "more");
    program.reached(program.put(&more).await).await;
    until(&program, &more, &[("cart-1", false), ("pay-2", true)]).await;
    assert_eq!(lacking(&program), [("MeshService", 1)]);
    assert!(program.meshes.lacking()["MeshService"].since.is_some());
    until(&program, &service, &[("cart-1", false), ("pay-2", false)]).await;
    pay.send_replace(true);
    until(&program, &more, &[("cart-1", false), ("pay-2", false)]).await;
    assert_eq!(program.meshes.lacking()["MeshService"], Lacking::default());

    // What concerns one is no matter of the other.
    let inbound = sidecar("cart", 1, json!([http(8081)]));
    program.reached(program.put(&inbound).await).await;
    until(&program, &inbound, &[("cart-1", false)]).await;
    drop(program.tasks);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_lacks_everything_until_it_had_it_once() {
    let (mut program, [cart, pay]) = with_two().await;
    let first = remote("east", "first");
    program.reached(program.put(&first).await).await;
    until(&program, &first, &[("cart-1", false), ("pay-2", false)]).await;
    cart.send_replace(false);
    pay.send_replace(false);
    let more = remote("east", "more");
    program.reached(program.put(&more).await).await;
    until(&program, &more, &[("cart-1", true), ("pay-2", true)]).await;
    assert_eq!(lacking(&program), [("MeshService", 2)]);
    cart.send_replace(true);
    until(&program, &more, &[("cart-1", false), ("pay-2", true)]).await;

    let again = watch::Sender::new(false);
    connect(&mut program, "pay-2", &again);
    until(&program, &first, &[("cart-1", false), ("pay-2", true)]).await;
    assert_eq!(lacking(&program), [("MeshService", 1)]);
    again.send_replace(true);
    until(&program, &first, &[("cart-1", false), ("pay-2", false)]).await;
    until(&program, &more, &[("cart-1", false), ("pay-2", false)]).await;
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

/// What global is answered.
fn answers(program: &Program, meshes: &Meshes) -> Answers {
    let clock = Clock::since(start());
    let (place, kinds) =
        (Place::Zone { name: "west".parse().unwrap(), env: Env::Universal }, kinds());
    let (kinds, (issuer, _)) = (Arc::new(kinds), Issuer::new(clock.clone()));
    let parts = Parts {
        store: program.store.clone(),
        kinds: kinds.clone(),
        place,
        instance: "cp-1".into(),
        meshes: meshes.clone(),
        issuer,
        cluster: None,
        names: Arc::default(),
        metrics: Metrics::default(),
        clock: clock.clone(),
    };
    let envoys = Dataplanes::new(parts, CancellationToken::new()).unwrap().questions();
    let (reader, meshes) = (program.store.reader(), meshes.clone());
    let zone = "west".parse().unwrap();
    Answers(Own { zone, kinds, reader, clock, meshes, envoys })
}

#[tokio::test(start_paused = true)]
async fn global_is_told_at_once_or_when_the_proxies_have_answered_or_after_some_seconds() {
    let (program, cart) = with_one().await;
    let service = remote("east", "book");
    program.reached(program.put(&service).await).await;
    until(&program, &service, &[("cart-1", false)]).await;
    let answers = answers(&program, &program.meshes);
    let ask = |kind: &str, name: &str, when| {
        let key = resource::ResourceKey::in_mesh(&shop(), name);
        let (answer, began) =
            (answers.answer(Question::propagation(kind, &key, when)), Instant::now());
        async move {
            let answer = answer.await.map(|it| serde_json::from_slice::<Value>(&it).unwrap());
            (answer, began.elapsed().as_secs())
        }
    };
    let applied = |after| {
        let took = json!([{"proxy": "cart-1", "at": (start() + Duration::from_secs(after))}]);
        Ok(json!({"state": "Applied", "concerned": 1, "applied": 1, "took": took}))
    };
    assert_eq!(ask("MeshService", &service.name, When::Settled).await, (applied(0), 0));

    cart.send_replace(false);
    let more = remote("east", "more");
    program.reached(program.put(&more).await).await;
    let (late, after) = ask("MeshService", &more.name, When::Settled).await;
    let late = late.unwrap();
    assert_eq!(
        (&late["state"], &late["pending"], after),
        (&json!("Pending"), &json!(["cart-1"]), 8)
    );
    let answering = async {
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(3)).await;
        cart.send_replace(true);
    };
    let asking = ask("MeshService", &more.name, When::Settled);
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer, (applied(8 + 3), 3));
    let before = ask("MeshService", &service.name, When::Now).await;
    assert_eq!(before, (applied(0), 0), "what came later is something else");

    for (kind, name, why) in [
        ("MeshService", "none", "the zone does not have it"),
        ("Mesh", "shop", "the zone does not have it"),
        ("Thing", "a", "the zone does not know the kind"),
    ] {
        assert_eq!(ask(kind, name, When::Now).await, (Err(why.to_owned()), 0));
    }
    let other = Question::about(
        "Dataplane",
        &resource::ResourceKey::global("a"),
        What::Config { endpoints: false },
    );
    assert_eq!(answers.answer(other).await, Err("Dataplane \"a\" is not connected".into()));
    drop(program.tasks);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_long_ago_is_applied_if_every_proxy_took_everything() {
    let (program, cart) = with_one().await;
    let first = remote("east", "first");
    program.reached(program.put(&first).await).await;
    let mut last = first.clone();
    for number in 0..256 {
        last = remote("east", &format!("more{number}"));
        program.reached(program.put(&last).await).await;
    }
    until(&program, &last, &[("cart-1", false)]).await;
    let key = resource::ResourceKey::in_mesh(&shop(), &first.name);
    assert_eq!(program.meshes.concerned("MeshService", &key), None);
    let answers = answers(&program, &program.meshes);
    let ask = async || {
        let answer = answers.answer(Question::propagation("MeshService", &key, When::Now)).await;
        serde_json::from_slice::<Value>(&answer.unwrap()).unwrap()
    };
    let all = json!({"state": "Applied", "concerned": 0, "applied": 0, "note": ALL});
    assert_eq!(ask().await, all);
    cart.send_replace(false);
    let late = remote("east", "late");
    program.reached(program.put(&late).await).await;
    until(&program, &late, &[("cart-1", true)]).await;
    assert_eq!(ask().await, json!({"concerned": 0, "applied": 0, "note": FORGOTTEN}));
    drop(program.tasks);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_worked_out_yet_is_pending_and_not_applied() {
    let program = Program::start();
    program.put(&row(mesh::KIND, "shop", json!({}))).await;
    let service = remote("east", "book");
    program.reached(program.put(&service).await).await;
    let config = kinds().id_of(kinds::config::KIND.name).unwrap();
    let (reader, clock) = (program.store.reader(), Clock::since(start()));
    let zone = "west".parse().unwrap();
    // Nobody runs these.
    let meshes = Meshes::new(zone, program.certified.clone(), clock, reader, config);
    let key = resource::ResourceKey::in_mesh(&shop(), &service.name);
    let question = Question::propagation("MeshService", &key, When::Now);
    let answer = answers(&program, &meshes).answer(question.clone()).await.unwrap();
    let pending = json!({"state": "Pending", "concerned": 0, "applied": 0, "note": NOT_YET});
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), pending);
    let answer = answers(&program, &program.meshes).answer(question).await.unwrap();
    let applied = json!({"state": "Applied", "concerned": 0, "applied": 0});
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), applied);
    drop(program.tasks);
}
