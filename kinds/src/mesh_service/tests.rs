use super::*;
use resource::{Labels, Peer, ResourceKey};
use serde_json::{Value, json};

fn violations(spec: Value) -> String {
    KIND.from_json(spec).map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
}

#[test]
fn a_service_has_one_selector_and_ports_that_can_be_called() {
    for (spec, expected) in [
        (json!({}), ""),
        (json!({ "ports": [{ "port": 80, "targetPort": "http", "unknown": 1 }] }), ""),
        (
            json!({ "selector": { "dataplaneRef": { "name": "a" }, "dataplaneLabels": {} } }),
            "spec.selector: dataplaneRef and dataplaneLabels exclude each other",
        ),
        (
            json!({ "ports": [{ "port": 80 }, { "port": 0, "appProtocol": "gopher" }] }),
            "spec.ports[1].port: port must be in the range [1, 65535]; \
             spec.ports[1].appProtocol: must be one of tcp, http, http2, grpc",
        ),
    ] {
        assert_eq!(violations(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "state": "Available",
        "selector": { "dataplaneLabels": { "matchLabels": { "kuma.io/workload": "cart" } } },
        "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http" }],
        "identities": [{ "type": "SpiffeID", "value": "spiffe://shop.east.mesh.local/workload/cart" }],
    });
    let read = KIND.from_json(spec.clone()).unwrap();
    let typed = read.downcast_ref::<MeshService>().unwrap();
    let port = Port {
        name: Some("http".into()),
        port: 80,
        target_port: Some(crate::IntOrString::Int(8080)),
        app_protocol: "http".into(),
    };
    assert_eq!(typed.ports, [port]);
    assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), spec);
}

#[test]
fn nothing_known_is_a_status_of_two_empty_objects() {
    assert_eq!(KIND.blank_status(), r#"{"tls":{},"dataplaneProxies":{}}"#);
}

#[test]
fn a_status_keeps_its_form() {
    let status = r#"{"addresses":[{"hostname":"cart.svc.mesh.local","origin":"HostnameGenerator","hostnameGeneratorRef":{"coreName":"local"}}],"vips":[{"ip":"241.0.0.1"}],"tls":{"status":"Ready"},"hostnameGenerators":[{"hostnameGeneratorRef":{"coreName":"local"},"conditions":[{"type":"Generated","status":"True","reason":"Generated","message":""}]}],"dataplaneProxies":{"connected":1,"healthy":1,"total":1}}"#;
    let read: Status = serde_json::from_str(status).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), status);
}

#[test]
fn a_selector_that_says_nothing_selects_nothing() {
    let labels = Labels::from_iter([("app", "cart")]);
    assert!(!Selector::default().matches("cart-1", &labels));
    assert!(Selector::label("app", "cart").matches("cart-1", &labels));
    assert!(!Selector::label("app", "web").matches("cart-1", &labels));
    let one = Selector {
        dataplane_ref: Some(DataplaneRef { name: "cart-1".into() }),
        dataplane_labels: None,
    };
    assert_eq!([one.matches("cart-1", &labels), one.matches("cart-2", &labels)], [true, false]);
}

#[test]
fn its_name_becomes_a_part_of_host_names() {
    let resource = |name: &str| {
        let key = ResourceKey::global(name);
        let (labels, spec) = (Labels::default(), bytes::Bytes::from_static(b"{}"));
        KIND.resource(key, labels, spec, bytes::Bytes::new(), Peer::Zone).is_ok()
    };
    assert_eq!([resource("cart"), resource("cart.v2"), resource("1st")], [true, false, false]);
}
