//! From workloads to services, and back.

use super::*;
use jiff::ToSpan as _;
use proptest::prelude::*;

const DP: Kind = dataplane::KIND;
const INSIGHT: Kind = dataplane_insight::KIND;
const MS: Kind = mesh_service::KIND;
const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[test]
fn a_new_workload_has_its_service_its_address_and_its_names_at_once() {
    let mut world = World::new();
    let local = generator(
        "local",
        "zone",
        json!({ "kuma.io/origin": "zone" }),
        "{{ .DisplayName }}.svc.mesh.local",
    );
    let written = world.put([
        (kinds::hostname_generator::KIND, local),
        (DP, proxy("cart-1", "cart", 8080)),
        (INSIGHT, online("cart-1")),
    ]);
    assert_eq!(written, 2, "a service and a workload");
    let (spec, mut status) = world.service("cart").unwrap();
    assert_eq!(
        spec,
        json!({
            "state": "Available",
            "selector": { "dataplaneLabels": { "matchLabels": { "kuma.io/workload": "cart" } } },
            "ports": [{ "name": "http", "port": 8080, "targetPort": 8080, "appProtocol": "http" }],
        })
    );
    let vip = status["vips"].take();
    assert!(vip[0]["ip"].as_str().unwrap().starts_with("241."), "{vip}");
    assert_eq!(
        status,
        json!({
            "addresses": [{
                "hostname": "cart.svc.mesh.local",
                "origin": "HostnameGenerator",
                "hostnameGeneratorRef": { "coreName": "local" },
            }],
            "vips": null,
            "tls": { "status": "NotReady" },
            "hostnameGenerators": [{
                "hostnameGeneratorRef": { "coreName": "local" },
                "conditions": [{ "type": "Generated", "status": "True", "reason": "Generated", "message": "" }],
            }],
            "dataplaneProxies": { "connected": 1, "healthy": 1, "total": 1 },
        })
    );
    let labels = |managed: &str, name: &str| {
        let own = [
            "display-name=cart",
            "env=universal",
            managed,
            "mesh=shop",
            "origin=zone",
            "zone=east",
        ];
        own.map(|label| format!("kuma.io/{}", label.replace("cart", name)))
    };
    assert_eq!(world.labels(MS, "cart"), labels("managed-by=meshservice-generator", "cart"));
    assert_eq!(
        world.labels(workload::KIND, "cart"),
        labels("managed-by=workload-generator", "cart")
    );
    assert_eq!(world.workload("cart"), Some(json!({ "connected": 1, "healthy": 1, "total": 1 })));
}

#[test]
fn a_proxy_that_serves_nothing_makes_no_service() {
    let mut world = World::new();
    let gateway = row(
        DP,
        "gate-1",
        &[("kuma.io/workload", "gate")],
        json!({ "networking": {
        "address": "10.0.0.1", "gateway": {},
    } }),
    );
    world.put([
        (DP, proxy_with("client-1", "client", json!([]))),
        (DP, gateway),
        (DP, proxy("odd-1", "no.label", 80)),
        (DP, proxy_with("none-1", "", json!([{ "port": 80 }]))),
    ]);
    assert_eq!(
        ["client", "gate", "no.label", ""].map(|name| world.service(name)),
        [const { None }; 4]
    );
    let one = Some(json!({ "connected": 0, "healthy": 0, "total": 1 }));
    assert_eq!([world.workload("client"), world.workload("gate")], [one.clone(), one]);
    assert_eq!(world.workload("no.label"), None);
}

#[test]
fn ports_are_named_and_speak_what_is_known() {
    let mut world = World::new();
    world.put([(
        DP,
        proxy_with(
            "db-1",
            "db",
            json!([
                { "port": 5432, "protocol": "mysql" },
                { "port": 8080, "name": "web", "protocol": "http2" },
                { "port": 8080, "name": "again", "address": "10.0.0.2" },
            ]),
        ),
    )]);
    assert_eq!(
        world.spec("db")["ports"],
        json!([
            { "name": "5432", "port": 5432, "targetPort": 5432, "appProtocol": "tcp" },
            { "name": "web", "port": 8080, "targetPort": 8080, "appProtocol": "http2" },
        ])
    );
}

#[test]
fn where_replicas_differ_the_stored_ports_stay_as_long_as_one_has_them() {
    let mut world = World::new();
    let port = |world: &World| world.spec("cart")["ports"][0]["port"].clone();
    world.put([(DP, proxy("cart-b", "cart", 81)), (DP, proxy("cart-a", "cart", 80))]);
    assert_eq!(port(&world), 80, "of the same age: the first by name");
    world.later(SignedDuration::from_secs(1));
    world.put([(DP, proxy("cart-0", "cart", 82))]);
    world.delete(DP, "cart-a");
    assert_eq!(port(&world), 81, "the oldest that is left");
    world.put([(DP, proxy("cart-0", "cart", 81)), (DP, proxy("cart-b", "cart", 83))]);
    assert_eq!(port(&world), 81, "one still has it");
}

#[test]
fn a_service_written_by_hand_wins() {
    let mut world = World::new();
    world.put([(DP, proxy("cart-1", "cart", 8080)), (INSIGHT, online("cart-1"))]);
    let by_hand = json!({
        "selector": { "dataplaneLabels": { "matchLabels": { "kuma.io/workload": "cart" } } },
        "ports": [{ "port": 80, "targetPort": "http", "appProtocol": "http" }],
    });
    let labels = [("kuma.io/origin", "zone"), ("team", "a")];
    world.put([(MS, row(MS, "cart", &labels, by_hand.clone()))]);
    let (mut spec, status) = world.service("cart").unwrap();
    assert_eq!(spec["state"].take(), "Available", "its state is kept all the same");
    spec.as_object_mut().unwrap().remove("state");
    assert_eq!(spec, by_hand);
    assert_eq!(status["dataplaneProxies"], json!({ "connected": 1, "healthy": 1, "total": 1 }));
    assert_eq!(world.labels(MS, "cart"), ["kuma.io/origin=zone", "team=a"]);

    world.delete(DP, "cart-1");
    world.wait(HOUR * 2);
    assert!(world.service("cart").is_some(), "nobody deletes it but who wrote it");
    world.put([(DP, proxy("cart-1", "cart", 8080))]);
    world.delete(MS, "cart");
    assert_eq!(world.spec("cart")["ports"][0]["port"], 8080, "then one is made again");
}

#[test]
fn a_service_without_proxies_is_kept_for_an_hour() {
    let mut world = World::new();
    let grace = |world: &World| {
        let labels = world.labels(MS, "cart");
        labels.into_iter().find(|label| label.starts_with("kuma.io/deletion"))
    };
    world.put([(DP, proxy("cart-1", "cart", 8080)), (INSIGHT, online("cart-1"))]);
    let vip = world.vip("cart");
    world.delete(DP, "cart-1");
    let started = "kuma.io/deletion-grace-period-started-at=2026-01-01T00:00:00Z";
    assert_eq!(grace(&world).as_deref(), Some(started));
    assert_eq!(world.spec("cart")["state"], "Unavailable");
    assert_eq!(world.spec("cart")["ports"][0]["port"], 8080);
    assert_eq!(world.workload("cart"), None);
    assert_eq!(world.services.deadline(), Some(start() + 1.hours()));

    world.wait(HOUR - SignedDuration::from_secs(1));
    world.put([(DP, proxy("cart-2", "cart", 8080))]);
    assert_eq!((grace(&world), world.services.deadline()), (None, None));
    world.delete(DP, "cart-2");
    world.wait(HOUR - SignedDuration::from_secs(1));
    assert!(world.service("cart").is_some());
    world.wait(SignedDuration::from_secs(1));
    assert_eq!(world.service("cart"), None);
    world.put([(DP, proxy("cart-3", "cart", 8080))]);
    assert_eq!(world.vip("cart"), vip, "it comes back to the address it had");
}

#[test]
fn what_a_restart_finds_expires_in_its_time() {
    let mut world = World::new();
    world.put([(DP, proxy("cart-1", "cart", 8080))]);
    world.delete(DP, "cart-1");
    let mut again = World::with(settings());
    again.later(SignedDuration::from_mins(30));
    again.put([(MS, world.row(MS, "cart").unwrap().clone())]);
    assert_eq!(again.services.deadline(), Some(start() + 1.hours()));
    again.wait(SignedDuration::from_mins(30));
    assert_eq!(again.service("cart"), None);
}

#[test]
fn a_service_is_available_while_a_proxy_that_can_serve_is_there() {
    let mut world = World::new();
    world.later(SignedDuration::from_mins(1));
    let state = |world: &World| {
        let (spec, status) = world.service("cart").unwrap();
        let counts = &status["dataplaneProxies"];
        let count = |field: &str| counts[field].as_u64().unwrap_or_default();
        (spec["state"] == "Available", count("connected"), count("healthy"), count("total"))
    };
    world.put([(INSIGHT, online("cart-1")), (DP, proxy("cart-1", "cart", 8080))]);
    assert_eq!(state(&world), (true, 1, 1, 1));
    world.put([(DP, proxy("cart-2", "cart", 8080))]);
    assert_eq!(state(&world), (true, 1, 2, 2));
    world.put([(INSIGHT, offline("cart-1"))]);
    assert_eq!(state(&world), (false, 0, 2, 2), "nobody is there");
    let sick = json!([{ "name": "http", "port": 8080, "protocol": "http", "state": "NotReady" }]);
    world.put([(DP, proxy_with("cart-1", "cart", sick.clone())), (INSIGHT, online("cart-1"))]);
    assert_eq!(state(&world), (false, 1, 1, 2), "the one that is there cannot");
    world.put([(INSIGHT, online("cart-2"))]);
    assert_eq!(state(&world), (true, 2, 1, 2));
    world.delete(INSIGHT, "cart-2");
    assert_eq!(state(&world), (false, 1, 1, 2));
}

#[test]
fn a_port_that_nobody_serves_makes_a_proxy_unfit() {
    let mut world = World::new();
    world.put([(DP, proxy("cart-1", "cart", 8080)), (INSIGHT, online("cart-1"))]);
    let two = json!({
        "selector": { "dataplaneRef": { "name": "cart-1" } },
        "ports": [{ "port": 80, "targetPort": 8080 }, { "port": 81, "targetPort": "admin" }],
    });
    world.put([(MS, row(MS, "by-name", &[], two))]);
    assert_eq!(world.spec("by-name")["state"], "Unavailable");
    let both = json!([{ "name": "http", "port": 8080 }, { "name": "admin", "port": 9 }]);
    world.put([(DP, proxy_with("cart-1", "cart", both))]);
    assert_eq!(world.spec("by-name")["state"], "Available");
}

#[test]
fn after_a_start_proxies_that_are_not_back_yet_are_not_missed() {
    let mut world = World::new();
    world.put([(DP, proxy("cart-1", "cart", 8080)), (INSIGHT, online("cart-1"))]);
    let mut again = World::with(settings());
    let stored = world.row(MS, "cart").unwrap().clone();
    again.put([(DP, proxy("cart-1", "cart", 8080)), (MS, stored), (INSIGHT, offline("cart-1"))]);
    assert_eq!(again.spec("cart")["state"], "Available");
    assert_eq!(again.services.deadline(), Some(start() + 30.seconds()));
    again.wait(SignedDuration::from_secs(30));
    assert_eq!(again.spec("cart")["state"], "Unavailable");
    assert_eq!(again.services.deadline(), None);
}

#[test]
fn a_copy_gets_an_address_and_keeps_what_its_zone_says() {
    let mut world = World::new();
    world.put([(MS, copy("cart-x", "cart", "west"))]);
    let (spec, status) = world.service("cart-x").unwrap();
    assert_eq!(
        spec,
        json!({ "state": "Available", "ports": [{ "port": 80, "appProtocol": "tcp" }] })
    );
    let vip = world.vip("cart-x");
    assert_eq!(status, json!({ "vips": [{ "ip": vip }], "tls": {}, "dataplaneProxies": {} }));

    // The same service has the same address at home.
    let mut west = settings();
    west.place = Place::Zone { name: ZoneName::new("west").unwrap(), env: Env::Universal };
    let mut home = World::with(west);
    home.put([(DP, proxy("cart-1", "cart", 80))]);
    assert_eq!(home.vip("cart"), vip);
}

#[test]
fn an_address_never_moves_and_is_never_given_twice() {
    let mut small = settings();
    small.vips = "127.0.0.0/30".parse().unwrap();
    let mut world = World::with(small.clone());
    let names = ["a", "b", "c"];
    world.put(names.map(|name| (DP, proxy(name, name, 80))));
    let given = names.map(|name| world.vip(name));
    assert!(given[0] != given[1] && !given[0].is_empty() && !given[1].is_empty(), "{given:?}");
    assert_eq!(given[2], "", "all are taken");
    assert_eq!(world.services.vip_counts(), [2, 0, 1]);

    world.delete(DP, "a");
    world.wait(HOUR);
    assert_eq!(world.services.vip_counts(), [1, 1, 1]);
    assert_eq!(world.services.deadline(), Some(start() + 1.hours() + 10.minutes()));
    world.wait(SignedDuration::from_mins(10));
    assert_eq!(world.vip("c"), given[0]);
    assert_eq!(world.services.vip_counts(), [2, 0, 0]);

    // A restart finds them as they are, whatever would be given now.
    let rows: Vec<_> = ["c", "b"].map(|name| (MS, world.row(MS, name).unwrap().clone())).into();
    let mut again = World::with(small);
    again.put(rows.into_iter().chain([(DP, proxy("b", "b", 80)), (DP, proxy("c", "c", 80))]));
    assert_eq!([again.vip("b"), again.vip("c")], [given[1].clone(), given[0].clone()]);
}

#[test]
fn of_two_that_claim_one_address_the_older_keeps_it() {
    let mut world = World::new();
    world.put([(MS, copy("a", "a", "west"))]);
    let vip = world.vip("a");
    world.later(SignedDuration::from_secs(1));
    let thief = copy("b", "b", "west");
    let status = json!({ "vips": [{ "ip": vip }] }).to_string();
    world.put([(MS, thief.with_status(status.into()))]);
    assert_eq!(world.vip("a"), vip);
    assert_ne!(world.vip("b"), vip);
    assert_ne!(world.vip("b"), "");
    // A status that lost its address gets the same one again.
    world.put([(MS, copy("a", "a", "west"))]);
    assert_eq!(world.vip("a"), vip);
}

#[test]
fn of_two_that_are_read_together_the_older_keeps_the_address() {
    let mut world = World::new();
    let status = json!({ "vips": [{ "ip": "241.1.2.3" }] }).to_string();
    let with = |name: &str| copy(name, name, "west").with_status(status.clone().into());
    let older = world.write(MS, with("b"));
    world.later(SignedDuration::from_secs(1));
    let younger = world.write(MS, with("a"));
    world.follow(vec![older, younger]);
    assert_eq!(world.vip("b"), "241.1.2.3");
    assert!(!["", "241.1.2.3"].contains(&&*world.vip("a")));
}

#[test]
fn a_change_costs_the_services_it_concerns() {
    let mut world = World::new();
    let name = |i: u32| format!("s{i}");
    let proxies = (0..1000).map(|i| (DP, proxy(&format!("p{i}"), &name(i), 80)));
    world.put(proxies.collect::<Vec<_>>());
    let before = world.services.planned;
    assert_eq!(world.put([(INSIGHT, online("p7"))]), 2, "a service and a workload");
    // Once for the change, once because what was written came back.
    assert_eq!(world.services.planned - before, 2);
    let before = world.services.planned;
    assert_eq!(world.put([(INSIGHT, online("p7"))]), 0);
    assert_eq!(world.services.planned - before, 0, "it was connected already");
}

fn inputs() -> Vec<(Kind, Resource)> {
    let generators = kinds::hostname_generator::KIND;
    let all = |template| generator("all", "global", json!({}), template);
    let sick = json!([{ "port": 80, "state": "NotReady" }]);
    vec![
        (generators, all("{{ .DisplayName }}.mesh.local")),
        (generators, generator("zone", "zone", json!({}), "same.mesh.local")),
        (DP, proxy("cart-1", "cart", 80)),
        (DP, proxy("cart-2", "cart", 81)),
        (DP, proxy_with("web-1", "web", sick)),
        (INSIGHT, online("cart-2")),
        (INSIGHT, online("web-1")),
        (MS, copy("cart-x", "cart", "west")),
        (MS, row(MS, "web", &[("kuma.io/zone", "east")], json!({ "ports": [{ "port": 1 }] }))),
        (
            kinds::mesh_identity::KIND,
            row(
                kinds::mesh_identity::KIND,
                "id",
                &[],
                json!({
                    "selector": { "dataplane": {} },
                }),
            ),
        ),
    ]
}

/// Everything that is kept, as text.
fn everything(world: &World) -> Vec<String> {
    let row = |((_, key), row): (&(KindId, ResourceKey), &Arc<Resource>)| {
        format!("{key} {:?} {:?} {:?}", row.head.labels, row.spec, row.status)
    };
    world.rows.iter().map(row).collect()
}

proptest! {
    #[test]
    fn the_order_in_which_things_come_does_not_matter(order in Just(inputs()).prop_shuffle(), cut in 0_usize..10) {
        let mut expected = World::new();
        expected.put(inputs());
        let mut together = World::new();
        together.put(order.clone());
        prop_assert_eq!(everything(&together), everything(&expected));

        // In two parts, and nothing of what follows is written before both are known.
        let mut parts = World::new();
        let updates: Vec<_> = order.into_iter().map(|(kind, row)| parts.write(kind, row)).collect();
        let (one, two) = updates.split_at(cut);
        parts.services.apply(one.to_vec(), parts.now);
        parts.services.apply(two.to_vec(), parts.now);
        let items = parts.services.settle_again(parts.now);
        let back = items.into_iter().map(|item| parts.commit(item)).collect();
        prop_assert_eq!(parts.follow(back), 0);
        prop_assert_eq!(everything(&parts), everything(&expected));
    }
}
