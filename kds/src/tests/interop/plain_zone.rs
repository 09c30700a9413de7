//! Plain zones at our global.

use super::{
    plain::{GLOBAL_ASKS, PlainZone, Resources, ZONE_ASKS, name_of, resource},
    world::{
        Global, MESH, PATIENCE, SECRET, SERVICE, TIMEOUT, Zone, hashed, names, timeout_of, until,
    },
};
use prost_types::Any;
use proto::kuma::mesh::v1alpha1::KumaResource;
use resource::Labels;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

fn takes_all(_kind: &str, _resource: &KumaResource) -> Result<(), String> {
    Ok(())
}

fn offers(kind: &str, all: impl IntoIterator<Item = KumaResource>) -> Resources {
    let named = all.into_iter().map(|one| (name_of(&one), one)).collect();
    [(kind.to_owned(), named)].into()
}

/// A service of `zone`, as that sends it.
fn service(name: &str, zone: &str, port: u16) -> KumaResource {
    let labels = [
        ("kuma.io/display-name", name),
        ("kuma.io/env", "universal"),
        ("kuma.io/mesh", "default"),
        ("kuma.io/origin", "zone"),
        ("kuma.io/zone", zone),
    ];
    let spec = json!({ "state": "Available", "ports": [{ "port": port }] }).to_string();
    let spec = ("", spec.as_bytes());
    let mut service = resource(&hashed(name, Some(zone)), "default", &labels, spec);
    let status = br#"{"vip":{"ip":"241.0.0.1"},"tls":{},"dataplaneProxies":{}}"#;
    service.status = Some(Any { type_url: String::new(), value: status.to_vec() });
    service
}

fn spec_of(resource: &KumaResource) -> (String, Value) {
    let spec = resource.spec.clone().unwrap();
    (spec.type_url, serde_json::from_slice(&spec.value).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_plain_zone_gets_what_it_asks_for_and_what_changes() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    global.plane.put(TIMEOUT, "web", &[("kuma.io/mesh", "default")], timeout_of("1s")).await;
    global.plane.put(SECRET, "key", &[], json!({ "data": "c2VjcmV0" })).await;
    let zone = PlainZone::connect("east", global.channel().await, Resources::new(), takes_all);
    // All 29 are answered.
    until(&zone.held, |held| held.len() == ZONE_ASKS.len()).await;
    let held = zone.held.borrow().clone();
    let web = format!("{}.default", hashed("web", None));
    assert_eq!(names(&held, "MeshTimeout"), [&*web]);
    assert_eq!(names(&held, "Mesh"), ["default."]);
    assert_eq!(names(&held, "Config"), ["kuma-cluster-id."]);
    assert_eq!(names(&held, "Secret"), ["key.default"]);
    let labels = [
        ("kuma.io/display-name", "web"),
        ("kuma.io/mesh", "default"),
        ("kuma.io/origin", "global"),
    ];
    let expected = resource(&hashed("web", None), "default", &labels, ("", b"{}"));
    let got = &held["MeshTimeout"][&web];
    assert_eq!((&got.meta, spec_of(got)), (&expected.meta, (String::new(), timeout_of("1s"))));
    let mesh = resource("default", "", &[labels[2]], ("kuma.mesh.v1alpha1.Mesh", b""));
    assert_eq!(held["Mesh"]["default."], mesh);

    global.plane.put(TIMEOUT, "web", &[], timeout_of("2s")).await;
    until(&zone.held, |held| spec_of(&held["MeshTimeout"][&web]).1 == timeout_of("2s")).await;
    global.plane.delete(TIMEOUT, "web").await;
    until(&zone.held, |held| held["MeshTimeout"].is_empty()).await;
    let mut health = zone.health.clone();
    let beats = timeout(PATIENCE, health.wait_for(|beats| *beats == 3)).await;
    assert!(beats.is_ok_and(|beats| beats.is_ok()), "it asks again after the interval it is told");
}

#[tokio::test(start_paused = true)]
async fn a_service_of_a_plain_zone_reaches_the_others_with_a_blank_status() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let of = |zone, port| offers("MeshService", [service("web", zone, port)]);
    let east = PlainZone::connect("east", global.channel().await, of("east", 80), takes_all);
    let west = PlainZone::connect("west", global.channel().await, of("west", 81), takes_all);
    let ours = Zone::start(&mut tasks, "south", &global.connect);
    let [web_east, web_west] = ["east", "west"].map(|zone| hashed("web", Some(zone)));
    ours.plane.until(SERVICE, |all| all.len() == 2).await;
    let mut both = [web_east.clone(), web_west.clone()];
    both.sort();
    assert_eq!(ours.plane.names(SERVICE), both);
    until(&west.held, |held| !names(held, "MeshService").is_empty()).await;
    let held = west.held.borrow().clone();
    let relayed = &held["MeshService"][&format!("{web_east}.default")];
    let mut expected = service("web", "east", 80);
    expected.meta.as_mut().unwrap().labels.insert("kuma.io/origin".into(), "global".into());
    let blank = br#"{"tls":{},"dataplaneProxies":{}}"#;
    expected.status = Some(Any { type_url: String::new(), value: blank.to_vec() });
    assert_eq!(*relayed, expected);
    assert_eq!(names(&held, "MeshService").len(), 1, "its own does not come back");

    east.offers.send_replace(Resources::new());
    until(&west.held, |held| held["MeshService"].is_empty()).await;
    ours.plane.until(SERVICE, |all| all.len() == 1).await;
}

fn unlucky(_kind: &str, resource: &KumaResource) -> Result<(), String> {
    let spec = spec_of(resource).1.to_string();
    if spec.contains("13s") { Err("user error\nunlucky".into()) } else { Ok(()) }
}

#[tokio::test(start_paused = true)]
async fn what_a_plain_zone_refuses_stays_and_the_next_good_one_passes() {
    fn judge(kind: &str, resource: &KumaResource) -> Result<(), String> {
        if kind == "MeshTimeout" { unlucky(kind, resource) } else { Ok(()) }
    }
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    global.plane.put(TIMEOUT, "web", &[], timeout_of("1s")).await;
    let zone = PlainZone::connect("east", global.channel().await, Resources::new(), judge);
    let web = format!("{}.default", hashed("web", None));
    let idle = |held: &Resources, idle: &str| {
        let web = held.get("MeshTimeout").and_then(|all| all.get(&web));
        web.is_some_and(|web| spec_of(web).1 == timeout_of(idle))
    };
    until(&zone.held, |held| idle(held, "1s")).await;
    global.plane.put(TIMEOUT, "web", &[], timeout_of("13s")).await;
    // Another resource of the kind passes after the bad one was refused.
    global.plane.put(TIMEOUT, "db", &[], timeout_of("1s")).await;
    until(&zone.held, |held| names(held, "MeshTimeout").len() == 2).await;
    assert!(idle(&zone.held.borrow(), "1s"), "the last good one");
    global.plane.put(TIMEOUT, "web", &[], timeout_of("3s")).await;
    until(&zone.held, |held| idle(held, "3s")).await;
}

#[tokio::test(start_paused = true)]
async fn our_global_asks_for_what_a_plain_one_asks_for() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let zone = PlainZone::connect("east", global.channel().await, Resources::new(), takes_all);
    let mut asked = zone.asked.clone();
    let all = timeout(PATIENCE, asked.wait_for(|asked| asked.len() >= GLOBAL_ASKS.len())).await;
    assert_eq!(*all.unwrap().unwrap(), GLOBAL_ASKS.map(str::to_owned).into());
}

#[tokio::test(start_paused = true)]
async fn a_plain_zone_gets_all_again_when_it_comes_back() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    global.plane.put(TIMEOUT, "a", &[], timeout_of("1s")).await;
    global.plane.put(TIMEOUT, "b", &[], timeout_of("1s")).await;
    for _ in 0..2 {
        let zone = PlainZone::connect("east", global.channel().await, Resources::new(), takes_all);
        until(&zone.held, |held| names(held, "MeshTimeout").len() == 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_labels_of_a_plain_zone_are_set_right() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    // It claims to be of west, and says nothing of its origin.
    let labels = [("kuma.io/display-name", "web"), ("kuma.io/zone", "west")];
    let spec = timeout_of("1s").to_string();
    let web = resource("web-2222222222222222", "default", &labels, ("", spec.as_bytes()));
    let offered = offers("MeshTimeout", [web]);
    let _east = PlainZone::connect("east", global.channel().await, offered, takes_all);
    global.plane.until(TIMEOUT, |all| all.len() == 1).await;
    let labels = [("kuma.io/display-name", "web"), ("kuma.io/origin", "zone")];
    assert_eq!(
        global.plane.labels(TIMEOUT, "web-2222222222222222"),
        Labels::from_iter(labels).with("kuma.io/zone", "east")
    );
}

#[tokio::test(start_paused = true)]
async fn a_zone_changes_nothing_of_others() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let taken = hashed("web", Some("west"));
    let offered = offers("MeshService", [service("web", "west", 80)]);
    let _west = PlainZone::connect("west", global.channel().await, offered, takes_all);
    global.plane.until(SERVICE, |all| all.len() == 1).await;
    global.plane.put(TIMEOUT, "of-global", &[], timeout_of("1s")).await;

    let mut stolen = service("web", "east", 66);
    stolen.meta.as_mut().unwrap().name.clone_from(&taken);
    let offered = offers("MeshService", [stolen, service("own", "east", 1)]);
    let east = PlainZone::connect("east", global.channel().await, offered, takes_all);
    global.plane.until(SERVICE, |all| all.len() == 2).await;
    until(&east.nacks, |nacks| !nacks.is_empty()).await;
    let why = format!(r#"{taken}.default: meta.name: belongs to zone "west""#);
    assert_eq!(*east.nacks.borrow(), [("MeshService".to_owned(), why)]);
    assert_eq!(global.plane.all(SERVICE)[&taken]["ports"][0]["port"], 80);

    // Its last word takes away only what is its own.
    east.offers.send_replace(Resources::new());
    global.plane.until(SERVICE, |all| all.len() == 1).await;
    assert_eq!(global.plane.names(SERVICE), [taken]);
    assert_eq!(global.plane.names(TIMEOUT), ["of-global"]);
}

#[tokio::test(start_paused = true)]
async fn one_bad_resource_of_a_zone_holds_back_no_other() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks).await;
    let labels = [("kuma.io/display-name", "x")];
    let of = |idle: [(&str, &str); 2]| {
        let timeout = |(name, idle)| {
            let spec = timeout_of(idle).to_string();
            resource(name, "default", &labels, ("", spec.as_bytes()))
        };
        offers("MeshTimeout", idle.map(timeout))
    };
    let offered = of([("good", "11s"), ("bad", "-11s")]);
    let east = PlainZone::connect("east", global.channel().await, offered, takes_all);
    until(&east.nacks, |nacks| !nacks.is_empty()).await;
    let why = "bad.default: spec.to[0].default.idleTimeout: must not be negative when defined";
    assert_eq!(*east.nacks.borrow(), [("MeshTimeout".to_owned(), why.to_owned())]);
    assert_eq!(global.plane.names(TIMEOUT), ["good"]);
    assert_eq!(global.plane.names(MESH), ["default"]);
    east.offers.send_replace(of([("good", "11s"), ("bad", "12s")]));
    global.plane.until(TIMEOUT, |all| all.len() == 2).await;
}
