//! Who is called what.

use super::*;

const GENERATOR: Kind = kinds::hostname_generator::KIND;
const MS: Kind = mesh_service::KIND;
const DP: Kind = dataplane::KIND;

fn addresses(world: &World, name: &str) -> Vec<String> {
    let status = world.status(name);
    let addresses = status["addresses"].as_array().cloned().unwrap_or_default();
    let text = |address: &Value| {
        let by = &address["hostnameGeneratorRef"]["coreName"];
        format!("{} by {}", address["hostname"].as_str().unwrap(), by.as_str().unwrap_or("none"))
    };
    addresses.iter().map(text).collect()
}

fn conditions(world: &World, name: &str, generator: &str) -> Vec<String> {
    let status = world.status(name);
    let all = status["hostnameGenerators"].as_array().cloned().unwrap_or_default();
    let of = |it: &&Value| it["hostnameGeneratorRef"]["coreName"] == generator;
    let text = |it: &Value| {
        let part = |field: &str| it[field].as_str().unwrap().to_owned();
        [part("type"), part("status"), part("reason"), part("message")].join("|")
    };
    let list = all.iter().find(of).map(|it| it["conditions"].as_array().cloned().unwrap());
    list.unwrap_or_default().iter().map(text).collect()
}

fn synced() -> Resource {
    let universal = json!({ "kuma.io/origin": "global", "kuma.io/env": "universal" });
    generator("synced", "global", universal, "{{ .DisplayName }}.svc.{{ .Zone }}.mesh.local")
}

fn local() -> Resource {
    generator(
        "local",
        "zone",
        json!({ "kuma.io/origin": "zone" }),
        "{{ .DisplayName }}.svc.mesh.local",
    )
}

#[test]
fn what_other_zones_call_a_service_is_answered_at_home_too() {
    let mut world = World::new();
    world.put([
        (GENERATOR, synced()),
        (GENERATOR, local()),
        (DP, proxy("cart-1", "cart", 80)),
        (MS, copy("cart-x", "cart", "west")),
    ]);
    assert_eq!(
        addresses(&world, "cart"),
        ["cart.svc.mesh.local by local", "cart.svc.east.mesh.local by synced"]
    );
    assert_eq!(addresses(&world, "cart-x"), ["cart.svc.west.mesh.local by synced"]);
    world.delete(GENERATOR, "synced");
    assert_eq!(addresses(&world, "cart"), ["cart.svc.mesh.local by local"]);
    assert_eq!(addresses(&world, "cart-x"), [""; 0]);
}

#[test]
fn a_collision_names_the_winner() {
    let mut world = World::new();
    let both = generator("both", "global", json!({}), "{{ .DisplayName }}.mesh.local");
    world.put([
        (GENERATOR, both),
        (MS, copy("a", "cart", "west")),
        (MS, copy("b", "cart", "north")),
    ]);
    assert_eq!(addresses(&world, "a"), ["cart.mesh.local by both"]);
    assert_eq!(addresses(&world, "b"), [""; 0]);
    assert_eq!(
        conditions(&world, "b", "both"),
        [
            r#"Generated|False|Collision|"cart.mesh.local" belongs to MeshService "a" by HostnameGenerator "both""#
        ]
    );
    world.delete(MS, "a");
    assert_eq!(addresses(&world, "b"), ["cart.mesh.local by both"]);
    assert_eq!(conditions(&world, "b", "both"), ["Generated|True|Generated|"]);
}

#[test]
fn who_has_a_name_keeps_it_even_from_those_that_come_first_in_order() {
    let mut world = World::new();
    let of = |name: &str, origin: &str, service: &str| {
        let selected = json!({ "kuma.io/display-name": service });
        (GENERATOR, generator(name, origin, selected, "name.mesh.local"))
    };
    world.put([of("foreign", "global", "z"), (MS, copy("z", "z", "west"))]);
    assert_eq!(addresses(&world, "z"), ["name.mesh.local by foreign"]);
    world.put([of("own", "zone", "a"), (MS, copy("a", "a", "west"))]);
    assert_eq!(addresses(&world, "z"), ["name.mesh.local by foreign"]);
    assert_eq!(addresses(&world, "a"), [""; 0]);
    world.delete(GENERATOR, "foreign");
    assert_eq!(addresses(&world, "a"), ["name.mesh.local by own"]);
}

#[test]
fn generators_of_the_zone_come_first() {
    let mut world = World::new();
    let same = |name: &str, origin: &str| generator(name, origin, json!({}), "name.mesh.local");
    world.put([
        (GENERATOR, same("a", "global")),
        (GENERATOR, same("b", "zone")),
        (MS, copy("s", "s", "west")),
    ]);
    assert_eq!(addresses(&world, "s"), ["name.mesh.local by b"]);
    assert_eq!(
        conditions(&world, "s", "a"),
        [
            r#"Generated|False|Collision|"name.mesh.local" belongs to MeshService "s" by HostnameGenerator "b""#
        ]
    );
}

#[test]
fn what_an_extension_names_is_left_to_it() {
    let mut world = World::new();
    let mut spec = json!({ "selector": { "meshService": {} }, "template": "a.mesh.local" });
    world.put([(GENERATOR, row(GENERATOR, "g", &[], spec.clone())), (MS, copy("a", "a", "west"))]);
    assert_eq!(addresses(&world, "a"), ["a.mesh.local by g"]);
    spec["extension"] = json!({ "type": "other" });
    world.put([(GENERATOR, row(GENERATOR, "g", &[], spec))]);
    assert_eq!(addresses(&world, "a"), [""; 0]);
    assert_eq!(conditions(&world, "a", "g"), [""; 0]);
}

#[test]
fn a_template_that_cannot_be_filled_in_says_why() {
    let mut world = World::new();
    let template = r#"{{ label "team" }}.mesh.local"#;
    world.put([
        (GENERATOR, generator("team", "zone", json!({}), template)),
        (MS, copy("a", "a", "west")),
    ]);
    assert_eq!(
        conditions(&world, "a", "team"),
        [r#"Generated|False|TemplateError|label "team" is missing"#]
    );
}

#[test]
fn a_name_that_no_server_of_the_zone_answers_says_so() {
    let mut world = World::new();
    let of = |template: &str| generator("g", "zone", json!({}), template);
    world.put([(GENERATOR, of("{{ .DisplayName }}.example")), (MS, copy("a", "a", "west"))]);
    assert_eq!(addresses(&world, "a"), ["a.example by g"]);
    assert_eq!(
        conditions(&world, "a", "g"),
        [
            "Generated|True|Generated|",
            r#"Served|False|OutsideApexes|"a.example" is not below mesh.local: DNS servers of this zone do not answer it"#,
        ]
    );
    world.put([(GENERATOR, of("{{ .DisplayName }}xmesh.local"))]);
    assert_eq!(conditions(&world, "a", "g").len(), 2, "not every end is a level");
    world.put([(GENERATOR, of("mesh.local"))]);
    assert_eq!(conditions(&world, "a", "g"), ["Generated|True|Generated|"]);
}

#[test]
fn meshes_do_not_take_names_from_each_other() {
    let mut world = World::new();
    let mesh = MeshName::new("other").unwrap();
    let here = copy("cart-x", "cart", "west");
    let there = mesh_service::KIND
        .resource(
            ResourceKey::in_mesh(&mesh, "cart-x"),
            here.head.labels.clone(),
            here.spec.clone(),
            "".into(),
            Peer::Global,
        )
        .unwrap();
    let there_key = (world.id(MS), there.head.key.clone());
    world.put([(GENERATOR, synced()), (MS, here), (MS, there)]);
    let (_, status) = json_of(&world.rows[&there_key]);
    assert_eq!(addresses(&world, "cart-x"), ["cart.svc.west.mesh.local by synced"]);
    assert_eq!(status["addresses"][0]["hostname"], "cart.svc.west.mesh.local");
    assert_ne!(status["vips"], world.status("cart-x")["vips"], "addresses are the zone's");
}

#[test]
fn a_name_of_kubernetes_is_kept() {
    let mut world = World::new();
    let status = json!({ "addresses": [{ "hostname": "cart.shop.svc.cluster.local", "origin": "Kubernetes" }] });
    let cart = copy("a", "cart", "west").with_status(status.to_string().into());
    world.put([(MS, cart), (GENERATOR, synced())]);
    assert_eq!(
        addresses(&world, "a"),
        ["cart.shop.svc.cluster.local by none", "cart.svc.west.mesh.local by synced"]
    );
}
