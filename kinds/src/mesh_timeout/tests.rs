use super::*;
use serde_json::{Value, json};

fn violations(spec: Value) -> Vec<String> {
    let spec: MeshTimeout = serde_json::from_value(spec).unwrap();
    let mut violations = Violations::default();
    spec.validate(&mut violations);
    violations.iter().map(ToString::to_string).collect()
}

#[test]
fn every_violation_has_its_path() {
    let mesh = json!({ "kind": "Mesh" });
    for (spec, expected) in [
        (json!({ "to": [{ "targetRef": mesh, "default": { "idleTimeout": "1m30s" } }] }), &[][..]),
        (json!({}), &["spec: at least one of 'to' or 'rules' has to be defined"]),
        (
            json!({
                "targetRef": mesh,
                "to": [
                    { "targetRef": mesh, "default": { "idleTimeout": "-1s" } },
                    { "targetRef": { "kind": "MeshService" }, "default": {} },
                ],
            }),
            &[
                "spec.to[1].targetRef.labels: must be set when kind is MeshService",
                "spec.to[0].default.idleTimeout: must not be negative when defined",
                "spec.to[1].default: at least one timeout should be configured",
            ],
        ),
        (
            json!({ "rules": [{ "default": { "connectionTimeout": "0s", "http": {} } }] }),
            &[
                "spec.rules[0].default.http: at least one timeout in this section should be configured",
                "spec.rules[0].default.connectionTimeout: must be greater than zero when defined",
            ],
        ),
        (
            json!({ "rules": [{
                "matches": [{ "spiffeID": { "type": "Exact", "value": "spiffe://a/b" } }],
                "default": { "connectionTimeout": "1s", "http": { "requestTimeout": "1s" } },
            }] }),
            &[
                "spec.rules[0].default.connectionTimeout: must not be set when matches have a spiffeID",
            ],
        ),
        (
            json!({ "to": [{
                "targetRef": { "kind": "MeshHTTPRoute", "labels": { "a": "b" } },
                "default": { "idleTimeout": "1s", "http": {
                    "requestTimeout": "1s", "streamIdleTimeout": "1s", "maxStreamDuration": "1s"
                } },
            }] }),
            &[
                "spec.to[0].default.idleTimeout: must not be set when kind is MeshHTTPRoute",
                "spec.to[0].default.http.maxStreamDuration: must not be set when kind is MeshHTTPRoute",
            ],
        ),
        (
            json!({
                "targetRef": { "kind": "Dataplane", "sectionName": "http" },
                "to": [{ "targetRef": mesh, "default": { "idleTimeout": "1s" } }],
            }),
            &["spec.targetRef.sectionName: can only be used with inbound policies"],
        ),
    ] {
        assert_eq!(violations(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn durations_are_written_as_the_field_writes_them() {
    let spec = json!({
        "targetRef": { "kind": "Mesh" },
        "rules": [{ "default": {
            "connectionTimeout": "10s",
            "idleTimeout": "2h",
            "http": { "requestTimeout": "0s", "streamIdleTimeout": "60m", "maxStreamDuration": "0" },
        } }],
    });
    let read = KIND.kind.from_json(spec).unwrap();
    let expected = r#"{"targetRef":{"kind":"Mesh"},"rules":[{"default":{"connectionTimeout":"10s","idleTimeout":"2h0m0s","http":{"requestTimeout":"0s","streamIdleTimeout":"1h0m0s","maxStreamDuration":"0s"}}}]}"#;
    assert_eq!(KIND.kind.encode(&read).unwrap(), expected);
}

mod shapes {
    use super::*;
    use ::xds::{
        draft::{InboundDraft, OutboundDraft, RouteDraft},
        policy::{DestinationFacts, InboundFacts, inbound, outbound},
    };
    use resource::{Audience, Kri, Labels, MeshName, Resource, ResourceKey};
    use std::{sync::Arc, time::Duration};

    fn applied(spec: Value) -> [Arc<::xds::policy::Applied>; 1] {
        let key = ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), "timeouts");
        let spec = serde_json::to_vec(&spec).unwrap().into();
        let (labels, none) = (Labels::default(), bytes::Bytes::new());
        let resource = Resource::new(key, labels, spec, none, Audience::default());
        [Arc::new(KIND.read(&resource).unwrap())]
    }

    fn all_timeouts() -> Value {
        json!({
            "connectionTimeout": "1s",
            "idleTimeout": "2s",
            "http": {
                "requestTimeout": "3s",
                "streamIdleTimeout": "4s",
                "maxStreamDuration": "5s",
                "maxConnectionDuration": "6s",
                "requestHeadersTimeout": "7s",
            },
        })
    }

    fn outbound_with(conf: Value) -> OutboundDraft {
        let spec = json!({ "to": [{ "targetRef": { "kind": "Mesh" }, "default": conf }] });
        let kri: Kri = "kri_msvc_shop_east__cart_http".parse().unwrap();
        let facts = DestinationFacts { kri: &kri, labels: &Labels::default(), port: 80 };
        outbound(&applied(spec), &facts)
    }

    fn inbound_with(rules: Value) -> InboundDraft {
        let facts = InboundFacts { section: "http", port: 8080 };
        inbound(&applied(json!({ "rules": rules })), &facts)
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_timeout_of_a_destination_has_its_place() {
        let mut expected = OutboundDraft::default();
        expected.cluster.connect_timeout = seconds(1);
        expected.cluster.idle_timeout = seconds(2);
        expected.listener.idle_timeout = seconds(2);
        expected.route.timeout = seconds(3);
        expected.route.stream_idle_timeout = seconds(4);
        expected.route.max_stream_duration = seconds(5);
        expected.cluster.max_connection_duration = seconds(6);
        expected.listener.request_headers_timeout = seconds(7);
        assert_eq!(outbound_with(all_timeouts()), expected);
    }

    #[test]
    fn each_timeout_of_an_inbound_has_its_place() {
        let mut expected = InboundDraft::default();
        expected.cluster.connect_timeout = seconds(1);
        expected.cluster.idle_timeout = seconds(2);
        expected.listener.idle_timeout = seconds(2);
        expected.route.timeout = seconds(3);
        expected.route.stream_idle_timeout = seconds(4);
        expected.route.max_stream_duration = seconds(5);
        expected.listener.max_connection_duration = seconds(6);
        expected.listener.request_headers_timeout = seconds(7);
        assert_eq!(inbound_with(json!([{ "default": all_timeouts() }])), expected);
    }

    #[test]
    fn what_is_not_said_stays_and_zero_is_said() {
        let mut expected = OutboundDraft::default();
        expected.route.timeout = Duration::ZERO;
        assert_eq!(outbound_with(json!({ "http": { "requestTimeout": "0s" } })), expected);
    }

    #[test]
    fn a_caller_has_the_timeouts_of_his_closest_rule() {
        let id = |kind: &str, id: &str| json!([{ "spiffeID": { "type": kind, "value": id } }]);
        let request = |timeout: &str| json!({ "http": { "requestTimeout": timeout } });
        let web = "spiffe://a/ns/web";
        let draft = inbound_with(json!([
            { "matches": id("Exact", web), "default": { "http": { "streamIdleTimeout": "9s" } } },
            { "matches": id("Prefix", "spiffe://a"), "default": request("2s") },
            { "matches": id("Prefix", "spiffe://a/ns"), "default": request("3s") },
            { "matches": id("Exact", web), "default": request("4s") },
            { "default": request("1s") },
        ]));
        let mut expected = InboundDraft::default();
        expected.route.timeout = seconds(1);
        let caller = |ids: Value, change: &dyn Fn(&mut RouteDraft)| {
            let mut route = expected.route.clone();
            change(&mut route);
            (serde_json::from_value(ids[0].clone()).unwrap(), route)
        };
        let callers = vec![
            caller(id("Exact", web), &|route| {
                route.timeout = seconds(4);
                route.stream_idle_timeout = seconds(9);
            }),
            caller(id("Prefix", "spiffe://a/ns"), &|route| route.timeout = seconds(3)),
            caller(id("Prefix", "spiffe://a"), &|route| route.timeout = seconds(2)),
        ];
        assert_eq!(draft, InboundDraft { callers, ..expected });
    }
}
