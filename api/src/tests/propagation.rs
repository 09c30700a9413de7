//! What became of resources.

use super::*;
use crate::propagation::{Patience, Propagate, Proxies, RefusedByProxy, State, Zone};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use store::view::KindId;
use tokio::{sync::watch, time::Instant};

/// Zones as a test says they are.
struct Said {
    zones: Mutex<Vec<Zone>>,
    /// Which zones were looked at, each time.
    looked: Mutex<Vec<Option<Vec<String>>>>,
    /// What each zone says of its proxies, in turn, and after how many seconds.
    proxies: Mutex<BTreeMap<String, VecDeque<(u64, Proxies)>>>,
    /// Which zones were asked about their proxies, and when.
    asked: Mutex<Vec<(u64, String, Patience)>>,
    began: Instant,
    /// By kind; nobody but who waits for that one is told.
    moved: Mutex<BTreeMap<KindId, watch::Sender<u64>>>,
}

impl Said {
    fn new(zones: Vec<Zone>) -> Arc<Self> {
        Arc::new(Self {
            zones: Mutex::new(zones),
            looked: Mutex::default(),
            proxies: Mutex::default(),
            asked: Mutex::default(),
            began: Instant::now(),
            moved: Mutex::default(),
        })
    }

    /// Zones are so now, and `kind` has moved in them.
    fn say(&self, kind: KindId, zones: Vec<Zone>) {
        *self.zones.lock() = zones;
        if let Some(moved) = self.moved.lock().get(&kind) {
            moved.send_modify(|moved| *moved += 1);
        }
    }

    fn proxies(&self, zone: &str, answers: impl IntoIterator<Item = (u64, Proxies)>) {
        self.proxies.lock().insert(zone.into(), answers.into_iter().collect());
    }
}

impl Propagate for Said {
    fn of(
        &self,
        _kind: KindId,
        key: &ResourceKey,
        only: Option<&BTreeSet<String>>,
    ) -> Option<Vec<Zone>> {
        let zones = self.zones.lock().clone().into_iter();
        let zones = zones.filter(|zone| only.is_none_or(|only| only.contains(&zone.zone)));
        self.looked.lock().push(only.map(|only| only.iter().cloned().collect()));
        (&*key.name != "stays").then(|| zones.collect())
    }

    fn changes(&self, kind: KindId) -> watch::Receiver<u64> {
        let mut moved = self.moved.lock();
        moved.entry(kind).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    fn proxies(
        &self,
        _kind: KindId,
        _key: &ResourceKey,
        zone: &str,
        patience: Patience,
    ) -> Option<BoxFuture<'static, Proxies>> {
        let now = self.began.elapsed().as_secs();
        let (after, proxies) = self.proxies.lock().get_mut(zone)?.pop_front()?;
        self.asked.lock().push((now, zone.into(), patience));
        Some(Box::pin(async move {
            tokio::time::sleep_until(Instant::now() + Duration::from_secs(after)).await;
            proxies
        }))
    }
}

async fn cp(said: &Arc<Said>) -> Cp {
    let cp = Cp::with(global(), None, None, Some(said.clone())).await;
    for name in ["slow", "stays"] {
        cp.store("MeshTimeout", in_shop(name), &[], spec()).await;
    }
    cp
}

fn spec() -> Value {
    let idle = json!({"connectionTimeout": "1s"});
    json!({"targetRef": {"kind": "Mesh"},
        "to": [{"targetRef": {"kind": "Mesh"}, "default": idle}]})
}

fn pending(zone: &str) -> Zone {
    let reason = Some("the zone never was connected".into());
    Zone { reason, since: Some(NOW.parse().unwrap()), ..Zone::new(zone, State::Pending) }
}

fn applied(zone: &str) -> Zone {
    Zone { since: Some(NOW.parse().unwrap()), ..Zone::new(zone, State::Applied) }
}

const PATH: &str = "/meshes/shop/meshtimeouts/slow/_propagation";

#[tokio::test(start_paused = true)]
async fn the_propagation_of_a_resource_is_told_by_zone_with_a_summary() {
    let said =
        Said::new(vec![applied("east"), pending("west"), Zone::new("x", State::NotForThisZone)]);
    let cp = cp(&said).await;
    let mut answer = cp.get(PATH).await.json();
    let version = answer["version"].take();
    assert_eq!(cp.get("/meshes/shop/meshtimeouts/slow").await.header("etag"), version.to_string());
    let expected = json!({
        "type": "MeshTimeout", "mesh": "shop", "name": "slow", "version": null,
        "changed": NOW, "settled": false,
        "summary": {"applied": 1, "pending": 1, "refused": 0, "notForThisZone": 1},
        "zones": [
            {"zone": "east", "state": "Applied", "since": NOW},
            {"zone": "west", "state": "Pending", "since": NOW,
                "reason": "the zone never was connected"},
            {"zone": "x", "state": "NotForThisZone"},
        ],
    });
    assert_eq!(answer, expected);
    let west = cp.get(&format!("{PATH}?zones=west")).await.json();
    assert_eq!(west["zones"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_refuses_is_refused_in_its_zone() {
    let refused = RefusedByProxy {
        proxy: "shop/web-1".into(),
        what: "Listener in_http".into(),
        reason: "no such filter".into(),
    };
    let state = Some(State::Refused);
    let proxies =
        Proxies { state, concerned: 2, applied: 1, refused: vec![refused], ..Proxies::default() };
    let east = Zone { proxies: Some(proxies), ..applied("east") };
    let cp = cp(&Said::new(vec![east, pending("west")])).await;
    let answer = cp.get(&format!("{PATH}?wait=30s")).await.json();
    assert_eq!(answer["settled"], true, "nothing is to be waited for");
    assert_eq!(
        answer["summary"],
        json!({"applied": 0, "pending": 1, "refused": 1, "notForThisZone": 0})
    );
    let refused = json!([{
        "proxy": "shop/web-1", "what": "Listener in_http", "reason": "no such filter",
    }]);
    let proxies = json!({"state": "Refused", "concerned": 2, "applied": 1, "refused": refused});
    assert_eq!(answer["zones"][0]["proxies"], proxies);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_answered_when_nothing_is_pending_or_the_time_is_over() {
    let said = Said::new(vec![pending("east")]);
    let cp = cp(&said).await;
    let start = Instant::now();
    let late = cp.get(&format!("{PATH}?wait=5s")).await;
    assert_eq!((start.elapsed().as_secs(), late.json()["settled"].clone()), (5, json!(false)));
    let long = cp.get(&format!("{PATH}?wait=1h")).await;
    assert_eq!((start.elapsed().as_secs(), long.status), (35, 200), "within bounds");
    let path = format!("{PATH}?wait=30s&zones=east");
    let moving = async {
        tokio::task::yield_now().await;
        said.say(cp.id("MeshTimeout"), vec![applied("east"), pending("west")]);
    };
    let (answer, ()) = tokio::join!(cp.get(&path), moving);
    assert_eq!((start.elapsed().as_secs(), answer.json()["settled"].clone()), (35, json!(true)));
}

#[tokio::test(start_paused = true)]
async fn who_waits_looks_again_only_at_what_is_pending() {
    let said = Said::new(vec![applied("east"), pending("north"), pending("west")]);
    let cp = cp(&said).await;
    let path = format!("{PATH}?wait=30s");
    let moving = async {
        for zones in [
            vec![applied("east"), applied("north"), pending("west")],
            vec![applied("east"), applied("north"), applied("west")],
        ] {
            tokio::task::yield_now().await;
            said.say(cp.id("MeshTimeout"), zones);
        }
    };
    let (answer, ()) = tokio::join!(cp.get(&path), moving);
    assert_eq!(answer.json()["summary"]["applied"], 3);
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let expected = [None, names(&["north", "west"]), names(&["west"])];
    assert_eq!(*said.looked.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_not_woken_by_another_kind() {
    let said = Said::new(vec![pending("east")]);
    let cp = cp(&said).await;
    let start = Instant::now();
    let path = format!("{PATH}?wait=30s");
    let moving = async {
        tokio::task::yield_now().await;
        said.say(cp.id("MeshRetry"), vec![applied("east")]);
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(7)).await;
        assert_eq!(said.looked.lock().len(), 1, "looked at once more");
        said.say(cp.id("MeshTimeout"), vec![applied("east")]);
    };
    let (answer, ()) = tokio::join!(cp.get(&path), moving);
    assert_eq!((start.elapsed().as_secs(), answer.json()["settled"].clone()), (7, json!(true)));
    assert_eq!(said.looked.lock().len(), 2);
}

fn of(state: State, concerned: usize, applied: usize) -> Proxies {
    Proxies { state: Some(state), concerned, applied, ..Proxies::default() }
}

#[tokio::test(start_paused = true)]
async fn zones_are_asked_about_their_proxies_only_if_somebody_wants_to_know() {
    let zones = vec![applied("east"), applied("north"), applied("old"), pending("west")];
    let said = Said::new(zones);
    said.proxies("east", [(3, of(State::Applied, 2, 2))]);
    said.proxies("north", [(2, Proxies::default())]);
    said.proxies("old", [(0, Proxies::only(State::Unknown, "a plain zone"))]);
    said.proxies("west", [(0, of(State::Applied, 1, 1))]);
    let cp = cp(&said).await;
    let plain = cp.get(PATH).await.json();
    assert_eq!((plain["zones"][0].get("proxies"), said.asked.lock().len()), (None, 0));
    let start = Instant::now();
    let answer = cp.get(&format!("{PATH}?proxies=true")).await.json();
    assert_eq!(start.elapsed().as_secs(), 3, "all at once");
    let proxies: Vec<_> = (0..4).map(|zone| answer["zones"][zone]["proxies"].clone()).collect();
    let untold = "nobody says what the proxies took";
    let expected = [
        json!({"state": "Applied", "concerned": 2, "applied": 2}),
        json!({"state": "Unknown", "concerned": 0, "applied": 0, "note": untold}),
        json!({"state": "Unknown", "concerned": 0, "applied": 0, "note": "a plain zone"}),
        Value::Null,
    ];
    assert_eq!(proxies, expected);
    let summary =
        json!({"applied": 1, "pending": 1, "refused": 0, "notForThisZone": 0, "unknown": 2});
    assert_eq!((&answer["summary"], &answer["settled"]), (&summary, &json!(false)));
    assert!(said.asked.lock().iter().all(|(_, _, patience)| *patience == Patience::Now));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_proxies_asks_their_zone_again_and_not_more_often_than_that() {
    let said = Said::new(vec![applied("east"), pending("west")]);
    let away = || Proxies::only(State::Pending, "the zone is not connected");
    let (waits, all) = (of(State::Pending, 2, 1), of(State::Applied, 2, 2));
    said.proxies("east", [(0, away()), (0, away()), (8, waits), (2, all)]);
    said.proxies("west", [(0, of(State::Applied, 0, 0))]);
    let cp = cp(&said).await;
    let start = Instant::now();
    let path = format!("{PATH}?proxies=true&wait=30s");
    let moving = async {
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(11)).await;
        said.say(cp.id("MeshTimeout"), vec![applied("east"), applied("west")]);
    };
    let (answer, ()) = tokio::join!(cp.get(&path), moving);
    let answer = answer.json();
    assert_eq!((start.elapsed().as_secs(), &answer["settled"]), (12, &json!(true)));
    assert_eq!(answer["summary"]["applied"], 2);
    let asked: Vec<_> = said.asked.lock().iter().map(|(at, zone, _)| (*at, zone.clone())).collect();
    let expected = [(0, "east"), (1, "east"), (2, "east"), (10, "east"), (11, "west")];
    assert_eq!(asked, expected.map(|(at, zone)| (at, zone.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_does_not_answer_in_time_is_pending() {
    let said = Said::new(vec![applied("east")]);
    said.proxies("east", [(60, of(State::Applied, 2, 2)), (60, of(State::Applied, 2, 2))]);
    let cp = cp(&said).await;
    let start = Instant::now();
    let answer = cp.get(&format!("{PATH}?proxies=true&wait=5s")).await.json();
    assert_eq!((start.elapsed().as_secs(), &answer["summary"]["pending"]), (5, &json!(1)));
    let answer = cp.get(&format!("{PATH}?proxies=true")).await.json();
    assert_eq!((start.elapsed().as_secs(), &answer["settled"]), (20, &json!(false)));
    let note = "the zone was asked and has not answered yet";
    assert_eq!(answer["zones"][0]["proxies"]["note"], note);
}

#[tokio::test(start_paused = true)]
async fn a_resource_is_gone_when_it_is_deleted_and_zones_took_note() {
    let said = Said::new(vec![applied("east"), Zone::new("x", State::NotForThisZone)]);
    let cp = cp(&said).await;
    let there = cp.get(&format!("{PATH}?deleted=true")).await.json();
    assert_eq!((&there["deleted"], &there["settled"]), (&json!(false), &json!(false)));
    assert_eq!(
        there["zones"],
        json!([
            {"zone": "east", "state": "Pending", "reason": "it is not deleted here"},
            {"zone": "x", "state": "NotForThisZone"},
        ])
    );
    let start = Instant::now();
    let path = format!("{PATH}?deleted=true&wait=30s");
    let deleting = async {
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(2)).await;
        said.say(cp.id("MeshRetry"), vec![pending("east")]);
        let path = "/meshes/shop/meshtimeouts/slow";
        assert_eq!(cp.as_user(&[access::ADMIN], "DELETE", path, None).await.status, 200);
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(2)).await;
        said.say(cp.id("MeshTimeout"), vec![applied("east")]);
    };
    let (answer, ()) = tokio::join!(cp.get(&path), deleting);
    let expected = json!({
        "type": "MeshTimeout", "mesh": "shop", "name": "slow", "deleted": true, "settled": true,
        "summary": {"applied": 1, "pending": 0, "refused": 0, "notForThisZone": 0},
        "zones": [{"zone": "east", "state": "Applied", "since": NOW}],
    });
    assert_eq!((start.elapsed().as_secs(), answer.json()), (4, expected));
    assert_eq!(cp.get(PATH).await.status, 404, "who does not ask for its end");
    let both = cp.get(&format!("{PATH}?deleted=true&proxies=true")).await;
    assert_eq!(both.status, 400);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_is_refused_with_its_reason() {
    let cp = cp(&Said::new(vec![applied("east")])).await;
    let title = "Could not look at the propagation of a resource";
    let bad = |field: &str, reason: &str| {
        let fields = vec![(field.to_owned(), reason.to_owned())];
        (400, format!("{title}: Resource is not valid"), fields)
    };
    for (query, refusal) in [
        ("zones=north", bad("zones", "there is no zone \"north\"")),
        ("zones=,", bad("zones", "must be names of zones, or all")),
        ("wait=5", bad("wait", "\"5\" has no unit (ms, s, m, h, d)")),
    ] {
        assert_eq!(cp.get(&format!("{PATH}?{query}")).await.refusal(), refusal);
    }
    assert_eq!(cp.get(&format!("{PATH}?zones=all")).await.status, 200);
    let stays = cp.get("/meshes/shop/meshtimeouts/stays/_propagation").await;
    let why = format!("{title}: resources of kind MeshTimeout stay where they are");
    assert_eq!(stays.refusal(), (404, why, vec![]));
    let missing = cp.get("/meshes/shop/meshtimeouts/none/_propagation").await;
    assert_eq!(missing.status, 404);
    let denied = cp.as_user(&["mesh:other:reader"], "GET", PATH, None).await;
    assert_eq!(denied.status, 403);
}
