//! Services and workloads of a zone that is a Kubernetes cluster.

use super::*;
use kinds::workload;

fn in_cluster() -> Settings {
    let (services, vips) = (Generation::default(), Vips::default());
    let place = Place::Zone { name: ZoneName::new("east").unwrap(), env: Env::Kubernetes };
    let mut settings = Settings::new(place, &services, &vips, vec!["mesh.local".into()]);
    settings.system_namespace = Some("kuma-system".into());
    settings
}

fn pod(name: &str, workload: &str, namespace: &str) -> Resource {
    let spec = json!({ "networking": {
        "address": "10.0.0.1", "inbound": [{ "name": "http", "port": 8080, "protocol": "http" }],
    } });
    let labels = [
        ("app", "cart"),
        ("kuma.io/workload", workload),
        ("k8s.kuma.io/namespace", namespace),
        ("kuma.io/origin", "zone"),
    ];
    row(dataplane::KIND, name, &labels, spec)
}

/// As it is made of a service of the cluster.
fn service(name: &str, managed_by: &str, vips: Value) -> Resource {
    let labels = [
        ("kuma.io/managed-by", managed_by),
        ("kuma.io/origin", "zone"),
        ("kuma.io/env", "kubernetes"),
        ("k8s.kuma.io/namespace", "apps"),
        ("kuma.io/display-name", name.split('.').next().unwrap()),
    ];
    let spec = json!({
        "selector": { "dataplaneLabels": { "matchLabels": { "app": "cart" } } },
        "ports": [{ "port": 80, "targetPort": 8080, "appProtocol": "http" }],
    });
    let status = json!({
        "vips": vips,
        "addresses": [{ "hostname": "cart.apps.svc.cluster.local", "origin": "Kubernetes" }],
    });
    row(mesh_service::KIND, name, &labels, spec).with_status(status.to_string().into())
}

#[test]
fn a_service_of_the_cluster_keeps_its_address_and_its_name_there() {
    let mut world = World::with(in_cluster());
    let cluster = service("cart.apps", "k8s-controller", json!([{ "ip": "10.96.0.7" }]));
    world.put([(mesh_service::KIND, cluster)]);
    world.put([(mesh_service::KIND, service("headless.apps", "k8s-controller", json!([])))]);
    world.put([(mesh_service::KIND, service("hand.apps", "me", json!([])))]);
    world.put([(dataplane::KIND, pod("cart-1.apps", "cart", "apps"))]);
    let vips = |world: &World, name| world.status(name)["vips"].clone();
    assert_eq!(vips(&world, "cart.apps"), json!([{ "ip": "10.96.0.7" }]));
    assert_eq!(vips(&world, "headless.apps"), Value::Null, "its pods have no address yet");
    assert!(vips(&world, "hand.apps")[0]["ip"].as_str().unwrap().starts_with("241."));
    assert_eq!(world.status("cart.apps")["dataplaneProxies"]["total"], 1);
    assert_eq!(
        world.status("cart.apps")["addresses"],
        json!([{ "hostname": "cart.apps.svc.cluster.local", "origin": "Kubernetes" }])
    );
    // The cluster gives the address to another service before we hear that this one is gone.
    let next = service("next.apps", "k8s-controller", json!([{ "ip": "10.96.0.7" }]));
    world.put([(mesh_service::KIND, next)]);
    assert_eq!(vips(&world, "next.apps"), json!([{ "ip": "10.96.0.7" }]));
}

#[test]
fn a_workload_is_in_the_namespace_of_its_pods_and_no_service_is_made_of_it() {
    let mut world = World::with(in_cluster());
    for (name, namespace) in [("a.apps", "apps"), ("b.bank", "bank"), ("c.bank", "bank")] {
        world.put([(dataplane::KIND, pod(name, "cart", namespace))]);
    }
    world.put([(dataplane::KIND, pod("ingress", "gate", "kuma-system"))]);
    let workloads = |world: &World| {
        let id = world.id(workload::KIND);
        let of_kind = world.rows.iter().filter(|((kind, _), _)| *kind == id);
        of_kind
            .map(|((_, key), row)| {
                let status: Value = serde_json::from_slice(&row.status).unwrap();
                let label = |key| row.head.labels.get(key).unwrap_or_default().to_owned();
                let total = status["dataplaneProxies"]["total"].as_u64().unwrap();
                (key.name.to_string(), label("kuma.io/display-name"), total)
            })
            .collect::<Vec<_>>()
    };
    let one = |name: &str, display: &str, total| (name.to_owned(), display.to_owned(), total);
    assert_eq!(
        workloads(&world),
        [one("cart.apps", "cart", 1), one("cart.bank", "cart", 2), one("gate", "gate", 1)]
    );
    let services = world.id(mesh_service::KIND);
    assert!(world.rows.keys().all(|(kind, _)| *kind != services));
    world.delete(dataplane::KIND, "a.apps");
    assert_eq!(workloads(&world), [one("cart.bank", "cart", 2), one("gate", "gate", 1)]);
}
