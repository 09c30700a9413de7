//! How Dataplanes come and go with their proxies.

use super::{super::presence, world::*};
use kds::admin::{Answerer, Question};
use kinds::{dataplane, dataplane_insight, mesh_zone_address};
use proto::atoll::proxy::v1::{
    AdminAnswer, Hello, Leaving, Pong, Problems, admin_answer, admin_request, from_proxy, to_proxy,
};
use resource::{
    inspect::{Format, What},
    label,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, advance, timeout};
use tonic::Code;

/// The states of the inbounds of web-1; one that is ready says nothing.
fn states(world: &World) -> Vec<Option<Value>> {
    let spec = world.spec(dataplane::KIND, "web-1").unwrap();
    let inbounds = spec["networking"]["inbound"].as_array().unwrap().clone();
    inbounds.iter().map(|inbound| inbound.get("state").cloned()).collect()
}

fn not_ready() -> Option<Value> {
    Some("NotReady".into())
}

#[tokio::test(start_paused = true)]
async fn a_session_writes_the_dataplane_with_the_state_of_what_it_serves() {
    let world = World::new().await;
    let session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let row = world.row(dataplane::KIND, "web-1").unwrap();
    let labels: Vec<_> = row.head.labels.iter().collect();
    let expected = [
        (label::DISPLAY_NAME, "web-1"),
        (label::ENV, "universal"),
        (label::MANAGED_BY, "proxy-session"),
        (label::MESH, "shop"),
        (label::ORIGIN, "zone"),
        (label::WORKLOAD, "web"),
        (label::ZONE, "west"),
    ];
    assert_eq!(labels, expected);
    assert_eq!(states(&world), [None, None]);

    session.state(true, &[("http", false)]).await;
    world.until(|world| states(world) == [not_ready(), None]).await;
    session.state(false, &[("http", true)]).await;
    world.until(|world| states(world) == [not_ready(), not_ready()]).await;
    session.state(true, &[("http", true)]).await;
    world.until(|world| states(world) == [None, None]).await;
    session.state(true, &[]).await;
    world.until(|world| states(world) == [not_ready(), None]).await;
}

#[tokio::test(start_paused = true)]
async fn an_insight_says_since_when_and_with_what() {
    let world = World::new().await;
    let session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let insight = world.spec(dataplane_insight::KIND, "web-1").unwrap();
    let subscription = &insight["subscriptions"][0];
    assert_eq!(subscription["controlPlaneInstanceId"], "cp-1");
    assert_eq!(subscription["version"]["envoy"]["version"], "1.40.0");
    assert_eq!(subscription["version"]["kumaDp"]["version"], "0.1.0");
    assert!(subscription.get("disconnectTime").is_none(), "{subscription}");
    drop(session);
    let ended = |world: &World| {
        let insight = world.spec(dataplane_insight::KIND, "web-1").unwrap();
        insight["subscriptions"][0].get("disconnectTime").is_some()
    };
    world.until(ended).await;
    world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let insight = world.spec(dataplane_insight::KIND, "web-1").unwrap();
    assert_eq!(insight["subscriptions"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_withdrawn_at_once() {
    let world = World::new().await;
    let mut session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let began = Instant::now();
    session.say(from_proxy::Message::Leaving(Leaving {})).await;
    let ended = session.next().await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Ok, "ended"), "it is confirmed");
    assert_eq!(world.dataplanes(), [""; 0]);
    assert_eq!(world.spec(dataplane_insight::KIND, "web-1"), None);
    assert!(began.elapsed() < Duration::from_millis(1), "{:?}", began.elapsed());
}

/// Lets a control plane be old enough to miss somebody.
async fn later() {
    advance(presence::START).await;
}

#[tokio::test(start_paused = true)]
async fn who_vanishes_is_withdrawn_after_a_while() {
    let world = World::new().await;
    later().await;
    let session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    drop(session);
    let gone = Instant::now();
    world.until(|world| world.dataplanes().is_empty()).await;
    assert_eq!(gone.elapsed().as_secs(), presence::ABSENCE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_in_time_was_never_away() {
    let world = World::new().await;
    later().await;
    let version = |world: &World| world.row(dataplane::KIND, "web-1").map(|row| row.head.version);
    let session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let before = version(&world);
    drop(session);
    advance(Duration::from_secs(4)).await;
    let _session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    advance(Duration::from_secs(60)).await;
    assert_eq!(version(&world), before);
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_comes_back_waits_for_its_proxies() {
    let world = World::new().await;
    for name in ["web-1", "web-2"] {
        world.session(&token(&claims()), hello(&web(name))).await.unwrap();
    }
    let started = Instant::now();
    let world = world.restart().await;
    assert_eq!(world.dataplanes(), ["web-1", "web-2"]);
    advance(Duration::from_secs(20)).await;
    let _session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    world.until(|world| world.dataplanes() == ["web-1"]).await;
    assert_eq!(started.elapsed().as_secs(), presence::START.as_secs());
}

#[tokio::test(start_paused = true)]
async fn when_most_vanish_together_nobody_is_withdrawn() {
    let world = World::new().await;
    later().await;
    let mut sessions = Vec::new();
    for name in ["web-1", "web-2", "web-3", "web-4"] {
        sessions.push(world.session(&token(&claims()), hello(&web(name))).await.unwrap());
    }
    let stays = sessions.pop();
    sessions.clear();
    advance(Duration::from_secs(600)).await;
    settle().await;
    assert_eq!(world.dataplanes().len(), 4);
    for name in ["web-1", "web-2"] {
        sessions.push(world.session(&token(&claims()), hello(&web(name))).await.unwrap());
    }
    world.until(|world| world.dataplanes() == ["web-1", "web-2", "web-4"]).await;
    drop(stays);
}

#[tokio::test(start_paused = true)]
async fn a_dataplane_that_somebody_deletes_comes_back_while_its_proxy_is_there() {
    let world = World::new().await;
    let session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let edit = store::view::Edit::Delete(key("web-1"));
    let expected = store::Expected::Anything;
    let item = store::Item { kind: id(dataplane::KIND), expected, edit };
    store::Backend::commit(&world.store, vec![item]).await.unwrap();
    world.until(|world| world.dataplanes() == ["web-1"]).await;
    drop(session);
}

#[tokio::test(start_paused = true)]
async fn an_ingress_is_advertised_while_it_is_ready() {
    let world = World::new().await;
    later().await;
    let session = world.session(&token(&ingress_claims()), ingress_hello()).await.unwrap();
    let address = || world.spec(mesh_zone_address::KIND, "ingress-1");
    assert_eq!(address(), Some(json!({ "address": "203.0.113.10", "port": 10001 })));
    let row = world.row(mesh_zone_address::KIND, "ingress-1").unwrap();
    assert!(row.head.labels.contain([
        (label::ZONE, "west"),
        (label::ORIGIN, "zone"),
        (label::MANAGED_BY, "proxy-session"),
    ]));
    let advertised = |world: &World| world.row(mesh_zone_address::KIND, "ingress-1").is_some();
    session.state(false, &[]).await;
    world.until(|world| !advertised(world)).await;
    assert_eq!(world.dataplanes(), ["ingress-1"], "the ingress itself is still there");
    session.state(true, &[]).await;
    world.until(advertised).await;
    drop(session);
    world.until(|world| !advertised(world)).await;
    assert_eq!(world.dataplanes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn who_says_a_name_for_an_address_is_told_that_nobody_calls_it() {
    let world = World::new().await;
    let mut hello = ingress_hello();
    hello.advertised.as_mut().unwrap().host = "in.example.org".into();
    let mut session = world.session(&token(&ingress_claims()), hello).await.unwrap();
    let problem = "the advertised address: \"in.example.org\" is a name and not an IP address, so \
                   nobody can call it";
    assert_eq!(session.problems().await, [problem]);

    let mut web = web("web-1");
    web["networking"]["address"] = "web.example.org".into();
    let mut session = world.session(&token(&claims()), self::hello(&web)).await.unwrap();
    let problem = "networking.address: \"web.example.org\" is a name and not an IP address, so \
                   nobody can call it";
    assert_eq!(session.problems().await, [problem]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_somebody_wrote_is_left_alone() {
    let world = World::new().await;
    let by_hand = json!({ "address": "198.51.100.1", "port": 1 });
    let (kind, row) = row(mesh_zone_address::KIND, key("ingress-1"), by_hand.clone());
    world.put(kind, row).await;
    let mut session = world.session(&token(&ingress_claims()), ingress_hello()).await.unwrap();
    let problems = vec![
        "MeshZoneAddress shop/ingress-1 was written by somebody else, so the address of this ingress is not advertised".to_owned(),
    ];
    let told = session.next().await.unwrap();
    assert_eq!(told, to_proxy::Message::Problems(Problems { problems, unready: vec![] }));
    assert_eq!(world.spec(kind, "ingress-1"), Some(by_hand.clone()));
    session.say(from_proxy::Message::Leaving(Leaving {})).await;
    world.until(|world| world.dataplanes().is_empty()).await;
    assert_eq!(world.spec(kind, "ingress-1"), Some(by_hand));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_back_takes_the_place_of_its_own_session() {
    let world = World::new().await;
    let mut old = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let began = Instant::now();
    let new = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(1), "nobody had to be asked");
    assert_eq!(old.next().await.unwrap_err().code(), Code::Aborted);
    old.to_zone.closed().await;
    drop(old);
    advance(Duration::from_secs(60)).await;
    assert_eq!(world.dataplanes(), ["web-1"], "the end of the old one is nobody's absence");
    drop(new);
}

fn other_process() -> Hello {
    Hello { instance: "another process".into(), ..hello(&web("web-1")) }
}

#[tokio::test(start_paused = true)]
async fn a_second_process_is_refused_while_the_first_one_answers() {
    let world = World::new().await;
    let mut first = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let answers = async {
        assert!(matches!(first.next().await.unwrap(), to_proxy::Message::Ping(_)));
        first.say(from_proxy::Message::Pong(Pong {})).await;
    };
    let token = token(&claims());
    let (refused, ()) = tokio::join!(world.refusal(&token, other_process()), answers);
    let text = "another proxy runs as Dataplane shop/web-1, and answers";
    assert_eq!(refused, (Code::AlreadyExists, text.to_owned()));
    first.state(false, &[]).await;
    world.until(|world| states(world) == [not_ready(), not_ready()]).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_process_crashed_locks_nobody_out() {
    let world = World::new().await;
    let dead = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let began = Instant::now();
    let new = world.session(&token(&claims()), other_process()).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 2);
    new.state(false, &[]).await;
    world.until(|world| states(world) == [not_ready(), not_ready()]).await;
    // It was only slow, and is not listened to any more.
    let _sent = dead.to_zone.try_send(Default::default());
    assert_eq!(world.dataplanes(), ["web-1"]);
}

#[tokio::test(start_paused = true)]
async fn questions_about_an_envoy_go_to_its_session() {
    let world = World::new().await;
    let questions = world.dataplanes.questions();
    let ask = |name: &str, format| {
        let what = What::Stats { format, used_only: true };
        questions.answer(Question::about("Dataplane", &key(name), what))
    };
    let away = ask("web-1", Format::Text).await;
    assert_eq!(away, Err(r#"Dataplane "web-1" is not connected"#.into()));

    let mut session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let answers = async {
        let to_proxy::Message::Admin(request) = session.next().await.unwrap() else {
            panic!("a question")
        };
        let asked = (request.what(), request.query.as_str());
        assert_eq!(asked, (admin_request::What::Stats, "format=json&usedonly"));
        let result = Some(admin_answer::Result::Body(b"{}".to_vec()));
        session.say(from_proxy::Message::Admin(AdminAnswer { id: request.id, result })).await;
    };
    let (answer, ()) = tokio::join!(ask("web-1", Format::Json), answers);
    assert_eq!(answer, Ok("{}".into()));
    let late = timeout(PATIENCE, ask("web-1", Format::Text)).await.unwrap();
    assert_eq!(late, Err(r#""web-1" did not answer in time"#.into()));
}
