//! What became of resources.

use super::*;
use crate::propagation::{Propagate, Proxies, RefusedByProxy, State, Zone};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use store::view::KindId;
use tokio::{sync::watch, time::Instant};

/// Zones as a test says they are.
struct Said {
    zones: Mutex<Vec<Zone>>,
    /// Which zones were looked at, each time.
    looked: Mutex<Vec<Option<Vec<String>>>>,
    moved: watch::Sender<u64>,
}

impl Said {
    fn new(zones: Vec<Zone>) -> Arc<Self> {
        Arc::new(Self {
            zones: Mutex::new(zones),
            looked: Mutex::default(),
            moved: watch::Sender::new(0),
        })
    }

    fn say(&self, zones: Vec<Zone>) {
        *self.zones.lock() = zones;
        self.moved.send_modify(|moved| *moved += 1);
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

    fn changes(&self, _kind: KindId) -> watch::Receiver<u64> {
        self.moved.subscribe()
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
        said.say(vec![applied("east"), pending("west")]);
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
            said.say(zones);
        }
    };
    let (answer, ()) = tokio::join!(cp.get(&path), moving);
    assert_eq!(answer.json()["summary"]["applied"], 3);
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let expected = [None, names(&["north", "west"]), names(&["west"])];
    assert_eq!(*said.looked.lock(), expected);
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
