use super::*;
use serde_json::{Value, json};

fn violations(spec: Value) -> String {
    KIND.from_json(spec).map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
}

#[test]
fn every_violation_has_its_path() {
    let selector = json!({ "meshService": { "matchLabels": { "a": "b" } } });
    for (spec, expected) in [
        (json!({ "selector": selector, "ports": [{ "port": 80 }] }), ""),
        (json!({}), "spec.selector: in body is required; spec.ports: in body is required"),
        (json!({ "selector": {}, "ports": [] }), "spec.selector.meshService: in body is required"),
        (
            json!({ "selector": { "meshService": {} }, "ports": [] }),
            "spec.selector.meshService.matchLabels: cannot be empty; \
             spec.ports: in body should have at least 1 items",
        ),
        (
            json!({ "selector": selector, "ports": [
                { "name": "", "port": 0 }, { "port": 1, "appProtocol": "gopher" },
            ] }),
            "spec.ports[0].name: must not be empty; \
             spec.ports[0].port: port must be in the range [1, 65535]; \
             spec.ports[1].appProtocol: must be one of tcp, http, http2, grpc",
        ),
    ] {
        assert_eq!(violations(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn a_service_on_the_wire_is_read_and_written_as_it_is() {
    let wire = r#"{"selector":{"meshService":{"matchLabels":{"kuma.io/display-name":"cart"}}},"ports":[{"name":"http","port":80,"appProtocol":"http"}]}"#;
    let read = KIND.decode(wire.as_bytes()).unwrap();
    assert_eq!(KIND.encode(&read).unwrap(), wire);
    assert_eq!(KIND.blank_status(), "{}");
}

#[test]
fn a_port_speaks_tcp_unless_it_says_otherwise() {
    let port: Port = serde_json::from_str(r#"{"port":80}"#).unwrap();
    assert_eq!(serde_json::to_string(&port).unwrap(), r#"{"port":80,"appProtocol":"tcp"}"#);
    assert_eq!(port.section(), "80");
    assert_eq!(Port { name: Some("http".into()), ..port }.section(), "http");
}

#[test]
fn a_status_keeps_its_form() {
    let status = r#"{"addresses":[{"hostname":"cart.mzsvc.mesh.local","origin":"HostnameGenerator","hostnameGeneratorRef":{"coreName":"a"}}],"vips":[{"ip":"243.0.0.1"}],"meshServices":[{"name":"cart","namespace":"","zone":"east","mesh":"shop"}],"hostnameGenerators":[{"hostnameGeneratorRef":{"coreName":"a"}}],"conditions":[{"type":"MeshServicesMatched","status":"True","reason":"MatchesFound","message":""}]}"#;
    let read: Status = serde_json::from_str(status).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), status);
}

#[test]
fn a_selector_wants_all_its_labels_and_at_least_one() {
    let selector = |labels: &[(&str, &str)]| MeshServiceSelector {
        match_labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    };
    let labels = Labels::from_iter([("app", "cart"), ("team", "a")]);
    assert!(selector(&[("app", "cart")]).matches(&labels));
    assert!(!selector(&[("app", "cart"), ("team", "b")]).matches(&labels));
    assert!(!selector(&[]).matches(&labels));
}

#[test]
fn it_is_written_on_global_only() {
    let flow = KIND.flow;
    assert_eq!(
        [flow.requested_by_zones(), flow.requested_by_global(), flow.written_in_zones()],
        [true, false, false]
    );
}
