//! Who the proxies of a service are.

use super::*;
use kinds::{mesh_identity, mesh_trust};

const DP: Kind = dataplane::KIND;
const MID: Kind = mesh_identity::KIND;
const TRUST: Kind = mesh_trust::KIND;

fn identity(name: &str, spec: Value, ready: bool) -> Resource {
    let status = if ready { "True" } else { "False" };
    let condition = json!({ "type": "Ready", "status": status, "reason": "x", "message": "" });
    let status = json!({ "conditions": [condition] }).to_string();
    row(MID, name, &[], spec).with_status(status.into())
}

fn everybody() -> Value {
    json!({ "selector": { "dataplane": { "matchLabels": {} } } })
}

fn trust(name: &str, domain: &str) -> Resource {
    let pem = include_str!("../testdata/ca.pem");
    let bundle = json!({ "type": "Pem", "pem": { "value": pem } });
    row(TRUST, name, &[], json!({ "trustDomain": domain, "caBundles": [bundle] }))
}

fn ids(world: &World, name: &str) -> Vec<String> {
    let spec = world.spec(name);
    let ids = spec["identities"].as_array().cloned().unwrap_or_default();
    ids.iter().map(|id| id["value"].as_str().unwrap().to_owned()).collect()
}

fn tls(world: &World, name: &str) -> String {
    world.status(name)["tls"]["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_service_says_who_its_proxies_are_by_every_identity_that_is_ready() {
    let mut world = World::new();
    let team = json!({
        "selector": { "dataplane": { "matchLabels": { "kuma.io/workload": "cart" } } },
        "spiffeID": { "trustDomain": "team.test", "path": "/{{ .Mesh }}/{{ .Workload }}" },
    });
    world.put([
        (MID, identity("all", everybody(), true)),
        (MID, identity("team", team.clone(), false)),
        (DP, proxy("cart-1", "cart", 80)),
        (DP, proxy("web-1", "web", 80)),
    ]);
    assert_eq!(ids(&world, "cart"), ["spiffe://shop.east.mesh.local/workload/cart"]);
    world.put([(MID, identity("team", team, true))]);
    assert_eq!(
        ids(&world, "cart"),
        ["spiffe://shop.east.mesh.local/workload/cart", "spiffe://team.test/shop/cart"]
    );
    assert_eq!(ids(&world, "web"), ["spiffe://shop.east.mesh.local/workload/web"]);
    world.delete(MID, "all");
    assert_eq!(ids(&world, "cart"), ["spiffe://team.test/shop/cart"]);
    assert_eq!(ids(&world, "web"), [""; 0]);
}

#[test]
fn a_template_that_makes_nothing_leaves_who_proxies_are() {
    let mut world = World::new();
    world.put([(MID, identity("all", everybody(), true)), (DP, proxy("cart-1", "cart", 80))]);
    let mut broken = everybody();
    broken["spiffeID"] = json!({ "trustDomain": "{{ label \"team\" }}.test" });
    world.put([(MID, identity("all", broken.clone(), true))]);
    assert_eq!(ids(&world, "cart"), ["spiffe://shop.east.mesh.local/workload/cart"]);
    world.put([(MID, identity("all", broken, false))]);
    assert_eq!(ids(&world, "cart"), [""; 0], "nothing goes on");
}

#[test]
fn what_callers_expect_does_not_change_while_nobody_is_there() {
    let mut world = World::new();
    world.put([(MID, identity("all", everybody(), true)), (DP, proxy("cart-1", "cart", 80))]);
    world.delete(DP, "cart-1");
    assert_eq!(ids(&world, "cart"), ["spiffe://shop.east.mesh.local/workload/cart"]);
}

#[test]
fn a_service_speaks_tls_once_all_its_proxies_can() {
    let mut world = World::new();
    world.put([(DP, proxy("cart-1", "cart", 80))]);
    assert_eq!(tls(&world, "cart"), "NotReady", "there is no identity");
    world.put([(MID, identity("all", everybody(), false))]);
    assert_eq!(tls(&world, "cart"), "NotReady", "it is not ready");
    world.put([(MID, identity("all", everybody(), true))]);
    assert_eq!(tls(&world, "cart"), "NotReady", "nobody trusts it");
    world.put([(TRUST, trust("east", "shop.east.mesh.local"))]);
    assert_eq!(tls(&world, "cart"), "Ready");

    // From then on it stays so as long as there is an identity at all.
    world.delete(TRUST, "east");
    world.put([(DP, proxy("cart-2", "cart", 80))]);
    assert_eq!(tls(&world, "cart"), "Ready");
    world.delete(MID, "all");
    assert_eq!(tls(&world, "cart"), "NotReady");
}

#[test]
fn a_service_without_proxies_does_not_begin_to_speak_tls() {
    let mut world = World::new();
    let empty = row(mesh_service::KIND, "empty", &[], json!({ "ports": [{ "port": 80 }] }));
    world.put([
        (MID, identity("all", everybody(), true)),
        (TRUST, trust("east", "shop.east.mesh.local")),
        (mesh_service::KIND, empty),
    ]);
    assert_eq!(tls(&world, "empty"), "NotReady");
}

#[test]
fn the_identity_that_a_proxy_gets_decides_whether_it_can_prove_it() {
    let mut world = World::new();
    let closer = json!({
        "selector": { "dataplane": { "matchLabels": { "kuma.io/workload": "cart" } } },
        "spiffeID": { "trustDomain": "team.test" },
    });
    world.put([
        (MID, identity("all", everybody(), true)),
        (MID, identity("closer", closer, true)),
        (TRUST, trust("east", "shop.east.mesh.local")),
        (DP, proxy("cart-1", "cart", 80)),
        (DP, proxy("web-1", "web", 80)),
    ]);
    assert_eq!([tls(&world, "cart"), tls(&world, "web")], ["NotReady", "Ready"]);
    world.put([(TRUST, trust("team", "team.test"))]);
    assert_eq!(tls(&world, "cart"), "Ready");
}

#[test]
fn spire_knows_itself_whom_it_trusts() {
    let mut world = World::new();
    let mut spire = everybody();
    spire["provider"] = json!({ "type": "Spire" });
    world.put([(MID, identity("all", spire, true)), (DP, proxy("cart-1", "cart", 80))]);
    assert_eq!(tls(&world, "cart"), "Ready");
}
