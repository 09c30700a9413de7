use super::*;
use serde_json::{Value, json};

fn violations(networking: Value) -> Vec<String> {
    let read = protobuf_json(json!({ "networking": networking }));
    let mut violations = Violations::default();
    read.validate(&mut violations);
    violations.iter().map(ToString::to_string).collect()
}

fn protobuf_json(json: Value) -> Dataplane {
    <Protobuf<Message> as resource::Encoding<Dataplane>>::from_json(json).unwrap()
}

const PORT: &str = "port must be in the range [1, 65535]";

#[test]
fn a_proxy_has_an_address() {
    let none: [&str; 0] = [];
    assert_eq!(violations(json!({ "address": "10.0.0.1" })), none);
    assert_eq!(violations(json!({ "address": "web.example", "admin": { "port": 9901 } })), none);
    assert_eq!(violations(json!({})), ["networking.address: must not be empty"]);
    assert_eq!(
        violations(json!({ "address": "::", "admin": { "port": 70000 } })),
        [
            "networking.address: must not be 0.0.0.0 or ::".to_owned(),
            format!("networking.admin.port: {PORT}"),
        ]
    );
    let mut nothing = Violations::default();
    Dataplane::default().validate(&mut nothing);
    assert_eq!(nothing.to_string(), "networking: must be set");
}

fn inbounds(inbounds: Value) -> Vec<String> {
    violations(json!({ "address": "10.0.0.1", "inbound": inbounds }))
}

#[test]
fn inbounds_are_checked_one_by_one() {
    let none: [&str; 0] = [];
    let full = json!([{
        "port": 8080, "servicePort": 18080, "serviceAddress": "127.0.0.1", "address": "10.0.0.2",
        "name": "http", "protocol": "grpc", "state": "NotReady",
        "serviceProbe": { "interval": "2s", "timeout": "0.5s", "healthyThreshold": 1, "tcp": {} },
    }]);
    assert_eq!(inbounds(full), none);
    assert_eq!(
        inbounds(json!([{
            "port": 0, "servicePort": 65536, "serviceAddress": "a", "address": "b", "protocol": "x",
            "serviceProbe": { "interval": "0s", "timeout": "-1s", "unhealthyThreshold": 0, "healthyThreshold": 0 },
        }])),
        [
            format!("networking.inbound[0].port: {PORT}"),
            format!("networking.inbound[0].servicePort: {PORT}"),
            "networking.inbound[0].address: must be a valid IP address".into(),
            "networking.inbound[0].serviceAddress: must be a valid IP address".into(),
            "networking.inbound[0].protocol: must be one of tcp, http, http2, grpc, tls, mysql".into(),
            "networking.inbound[0].serviceProbe.interval: must be greater than zero when defined".into(),
            "networking.inbound[0].serviceProbe.timeout: must be greater than zero when defined".into(),
            "networking.inbound[0].serviceProbe.unhealthyThreshold: must be greater than zero when defined".into(),
            "networking.inbound[0].serviceProbe.healthyThreshold: must be greater than zero when defined".into(),
        ]
    );
}

#[test]
fn an_inbound_does_not_call_itself() {
    let same = "networking.inbound[0].serviceAddress: serviceAddress and servicePort must differ from address and port";
    for (inbound, expected) in [
        (json!({ "port": 80, "serviceAddress": "10.0.0.1" }), &[same][..]),
        (json!({ "port": 80, "servicePort": 80, "serviceAddress": "10.0.0.1" }), &[same]),
        (json!({ "port": 80, "address": "10.0.0.2", "serviceAddress": "10.0.0.2" }), &[same]),
        (json!({ "port": 80, "address": "10.0.0.2", "serviceAddress": "10.0.0.1" }), &[]),
        (json!({ "port": 80, "servicePort": 81, "serviceAddress": "10.0.0.1" }), &[]),
    ] {
        assert_eq!(inbounds(json!([inbound])), expected, "{inbound}");
    }
}

#[test]
fn names_and_addresses_are_taken_once() {
    let wrong = violations(json!({
        "address": "10.0.0.1",
        "inbound": [
            { "port": 80, "name": "http" },
            { "port": 81, "name": "http" },
            { "port": 80, "name": "again" },
            { "port": 80, "address": "10.0.0.2", "name": "elsewhere" },
            { "port": 90 },
        ],
        "listeners": [
            { "type": "ZoneIngress", "address": "10.0.0.1", "port": 81, "name": "90" },
            { "type": "ZoneEgress", "address": "10.0.0.1", "port": 10002 },
        ],
    }));
    let twice = |name: &str| {
        format!("{name:?} is used twice: each inbound and listener needs a name of its own")
    };
    assert_eq!(
        wrong,
        [
            format!("networking.inbound[1].name: {}", twice("http")),
            "networking.inbound[2].port: 10.0.0.1 port 80 is used twice".into(),
            format!("networking.listeners[0].name: {}", twice("90")),
            "networking.listeners[0].port: 10.0.0.1 port 81 is used twice".into(),
        ]
    );
}

#[test]
fn a_port_that_is_missing_is_not_said_to_be_used_twice() {
    let wrong = inbounds(json!([{ "name": "a" }, { "name": "b" }]));
    let missing = [0, 1].map(|i| format!("networking.inbound[{i}].port: {PORT}"));
    assert_eq!(wrong, missing);
}

#[test]
fn a_listener_says_what_it_is_and_where() {
    let wrong = violations(json!({
        "address": "10.0.0.1",
        "listeners": [{ "address": "0.0.0.0", "port": 0 }],
    }));
    assert_eq!(
        wrong,
        [
            "networking.listeners[0].type: must be ZoneIngress or ZoneEgress".to_owned(),
            "networking.listeners[0].address: must not be 0.0.0.0 or ::".into(),
            format!("networking.listeners[0].port: {PORT}"),
        ]
    );
}

#[test]
fn a_gateway_has_no_inbounds_and_no_listeners() {
    let wrong = violations(json!({
        "address": "10.0.0.1",
        "gateway": { "type": "DELEGATED" },
        "inbound": [{ "port": 80 }],
        "listeners": [{ "type": "ZoneIngress", "address": "10.0.0.1", "port": 81 }],
    }));
    assert_eq!(
        wrong,
        [
            "networking.inbound: must not be set for a gateway",
            "networking.listeners: must not be set for a gateway",
        ]
    );
}

#[test]
fn an_outbound_names_a_service_and_its_port() {
    let outbound =
        |outbound: Value| violations(json!({ "address": "10.0.0.1", "outbound": [outbound] }));
    let none: [&str; 0] = [];
    let path = "networking.outbound[0].backendRef";
    let labels = json!({ "kuma.io/display-name": "cart" });
    let service = json!({ "kind": "MeshService", "labels": labels, "port": 80 });
    assert_eq!(outbound(json!({ "port": 10080, "backendRef": service })), none);
    let external = json!({ "kind": "MeshExternalService", "name": "psp" });
    assert_eq!(outbound(json!({ "port": 10080, "backendRef": external })), none);
    assert_eq!(
        outbound(json!({ "address": "x" })),
        [
            format!("networking.outbound[0].port: {PORT}"),
            "networking.outbound[0].address: must be a valid IP address".into(),
            format!("{path}: must be set"),
        ]
    );
    assert_eq!(
        outbound(
            json!({ "port": 1, "backendRef": { "kind": "Mesh", "name": "a", "labels": labels } })
        ),
        [
            format!(
                "{path}.kind: must be one of MeshService, MeshExternalService, MeshMultiZoneService"
            ),
            format!("{path}: either name or labels must be set"),
            format!("{path}.port: {PORT}"),
        ]
    );
}

#[test]
fn reachable_backends_are_checked_one_by_one() {
    let wrong = violations(json!({ "address": "10.0.0.1", "transparentProxying": {
        "redirectPortInbound": 15006,
        "redirectPortOutbound": 70000,
        "reachableBackends": { "refs": [
            { "kind": "MeshService", "name": "cart", "namespace": "shop", "port": 80 },
            { "kind": "Nothing", "namespace": "shop", "port": 0 },
        ] },
    } }));
    let path = "networking.transparentProxying";
    let second = format!("{path}.reachableBackends.refs[1]");
    assert_eq!(
        wrong,
        [
            format!("{path}.redirectPortOutbound: {PORT}"),
            format!(
                "{second}.kind: must be one of MeshService, MeshExternalService, MeshMultiZoneService"
            ),
            format!("{second}: either name or labels must be set"),
            format!("{second}.namespace: must not be set without a name"),
            format!("{second}.port: {PORT}"),
        ]
    );
}

/// A proxy as a peer sends it: field by field in the order of the numbers.
#[test]
fn json_and_protobuf_say_the_same() {
    let json = json!({ "networking": {
        "address": "127.0.0.1",
        "inbound": [{ "port": 18081, "servicePort": 19081, "name": "http", "protocol": "http" }],
        "outbound": [{ "port": 10080, "backendRef": {
            "kind": "MeshService", "port": 18080, "labels": { "kuma.io/display-name": "cart" },
        } }],
    } });
    let bytes = KIND.encode(&KIND.from_json(json.clone()).unwrap()).unwrap();
    let mut expected = Vec::new();
    field(&mut expected, 1, |networking| {
        field(networking, 1, |inbound| {
            inbound.extend_from_slice(b"\x18\xa1\x8d\x01\x20\x89\x95\x01\x52\x04http\x5a\x04http");
        });
        field(networking, 2, |outbound| {
            outbound.extend_from_slice(b"\x20\xe0\x4e");
            field(outbound, 6, |backend| {
                backend.extend_from_slice(b"\x0a\x0bMeshService\x18\xa0\x8d\x01");
                field(backend, 4, |label| {
                    label.extend_from_slice(b"\x0a\x14kuma.io/display-name\x12\x04cart");
                });
            });
        });
        networking.extend_from_slice(b"\x2a\x09127.0.0.1");
    });
    assert_eq!(bytes, expected);
    assert_eq!(KIND.to_json(&bytes).unwrap(), json);
}

fn field(out: &mut Vec<u8>, number: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    write(&mut content);
    out.push(number << 3 | 2);
    prost::encoding::encode_varint(content.len() as u64, out);
    out.extend_from_slice(&content);
}

#[test]
fn unknown_fields_are_skipped() {
    let json = json!({
        "type": "Dataplane", "mesh": "shop", "later": { "a": [1] },
        "networking": { "address": "10.0.0.1", "later": 1, "admin": {} },
    });
    let read = KIND.from_json(json).unwrap();
    let mut bytes = KIND.encode(&read).unwrap().to_vec();
    // Field 99, a string.
    bytes.extend_from_slice(b"\x9a\x06\x01x");
    let expected = json!({ "networking": { "address": "10.0.0.1", "admin": {} } });
    assert_eq!(KIND.to_json(&bytes).unwrap(), expected);
}

#[test]
fn an_inbound_is_healthy_if_it_is_ready_and_nobody_says_otherwise() {
    let healthy = |inbound: Value| {
        let json = json!({ "networking": { "inbound": [inbound] } });
        is_healthy(&protobuf_json(json).inbounds()[0])
    };
    assert!(healthy(json!({})));
    assert!(healthy(json!({ "health": { "ready": true } })));
    for sick in [
        json!({ "health": {} }),
        json!({ "state": "NotReady" }),
        json!({ "state": "Ignored" }),
        json!({ "state": 99 }),
    ] {
        assert!(!healthy(sick.clone()), "{sick}");
    }
}

#[test]
fn a_section_is_called_by_its_name_wherever_it_has_one() {
    let named = Inbound { name: "http".into(), port: 80, ..Inbound::default() };
    let unnamed = Inbound { port: 80, ..Inbound::default() };
    assert_eq!([section(&named), section(&unnamed)], ["http", "80"]);
}

#[test]
fn a_proxy_is_as_present_as_what_it_serves() {
    let presence = |networking: Value| {
        let dataplane = protobuf_json(json!({ "networking": networking }));
        [dataplane.presence(true), dataplane.presence(false)]
    };
    let not_ready = json!({ "state": "NotReady" });
    let of = |connected| [connected, Presence::Offline];
    assert_eq!(presence(json!({})), of(Presence::Online), "it only calls");
    assert_eq!(presence(json!({ "inbound": [{}], "listeners": [{}] })), of(Presence::Online));
    let some = json!({ "inbound": [{}], "listeners": [not_ready] });
    assert_eq!(presence(some), of(Presence::PartiallyDegraded));
    assert_eq!(presence(json!({ "inbound": [not_ready, not_ready] })), of(Presence::Offline));
    let ignored = json!({ "inbound": [{}, { "state": "Ignored" }] });
    assert_eq!(presence(ignored), of(Presence::Online), "nobody calls it");
    assert_eq!(presence(json!({ "gateway": {} })), of(Presence::Online));
}

#[test]
fn what_is_not_served_is_named() {
    let dataplane = protobuf_json(json!({ "networking": {
        "inbound": [
            { "port": 80, "name": "http", "state": "NotReady" },
            { "port": 81, "health": { "ready": false } },
            { "port": 82 },
        ],
        "listeners": [
            { "port": 10001, "state": "NotReady" },
            { "port": 10002, "name": "in", "state": "NotReady" },
            { "port": 10003, "name": "out" },
        ],
    } }));
    assert_eq!(
        dataplane.unready(),
        ["inbound http", "inbound 81", "listener 10001", "listener in"]
    );
}
