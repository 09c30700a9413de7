use super::*;
use serde_json::{Value, json};

fn violations(spec: Value) -> Vec<String> {
    match KIND.from_json(spec) {
        Ok(_) => Vec::new(),
        Err(resource::RejectedSpec::Invalid { violations, .. }) => {
            violations.iter().map(ToString::to_string).collect()
        }
        Err(malformed) => panic!("{malformed:?}"),
    }
}

fn service() -> Value {
    json!({ "kind": "MeshService", "labels": { "kuma.io/display-name": "cart" } })
}

fn with_rules(rules: Value) -> Vec<String> {
    violations(json!({ "to": [{ "targetRef": service(), "rules": rules }] }))
}

/// What is wrong with a filter, without the path to it.
fn of_filter(path_type: &str, filter: Value) -> Vec<String> {
    let path = json!({ "type": path_type, "value": "/a" });
    let found = with_rules(json!([{
        "matches": [{ "path": path }],
        "default": { "filters": [filter] },
    }]));
    let without = |text: String| {
        text.strip_prefix("spec.to[0].rules[0].default.filters[0].").unwrap().to_owned()
    };
    found.into_iter().map(without).collect()
}

#[test]
fn a_route_is_for_destinations_that_traffic_can_go_to() {
    let to = |target: Value| violations(json!({ "to": [{ "targetRef": target, "rules": [] }] }));
    assert_eq!(to(service()), [""; 0]);
    assert_eq!(violations(json!({})), [""; 0]);
    let kinds = "in body should be one of [MeshService MeshExternalService MeshMultiZoneService]";
    for kind in ["Mesh", "MeshHTTPRoute", "Nothing"] {
        assert_eq!(to(json!({ "kind": kind })), [format!("spec.to[0].targetRef.kind: {kinds}")]);
    }
    assert_eq!(
        violations(json!({
            "targetRef": { "kind": "Dataplane", "sectionName": "http" },
            "to": [{ "targetRef": { "kind": "MeshService" }, "rules": [], "hostnames": ["a"] }],
        })),
        [
            "spec.targetRef.sectionName: can only be used with inbound policies",
            "spec.to[0].targetRef.labels: must be set when kind is MeshService",
            "spec.to[0].hostnames: must not be defined",
        ]
    );
}

#[test]
fn a_match_compares_whole_paths_and_each_parameter_once() {
    let path = |kind: &str, value: &str| json!({ "path": { "type": kind, "value": value } });
    let query = json!([
        { "type": "Exact", "name": "a", "value": "1" },
        { "type": "RegularExpression", "name": "a", "value": "2" },
        { "type": "Exact", "name": "", "value": "" },
    ]);
    let good = [path("PathPrefix", "/"), path("RegularExpression", "a/$"), json!({})];
    assert_eq!(with_rules(json!([{ "matches": good, "default": {} }])), [""; 0]);
    let bad = [
        path("Exact", "a"),
        path("PathPrefix", "a/"),
        path("Exact", ""),
        json!({ "queryParams": query, "headers": [{ "name": "A" }] }),
        path("RegularExpression", "/a(b"),
        json!({
            "queryParams": [{ "type": "RegularExpression", "name": "q", "value": "*" }],
            "headers": [{ "type": "RegularExpression", "name": "h", "value": "[a" }],
        }),
    ];
    let slash = "does not need a trailing slash because only a `/`-separated prefix or an entire path is matched";
    let expected = [
        "matches[0].path.value: must be an absolute path",
        &format!("matches[1].path.value: {slash}"),
        "matches[1].path.value: must be an absolute path",
        "matches[2].path.value: in body should be at least 1 chars long",
        "matches[3].queryParams[1].name: multiple entries for name a",
        "matches[3].queryParams[2].name: in body should be at least 1 chars long",
        r"matches[3].headers[0].name: in body should match '^[a-z0-9!#$%&'*+\-.^_\x60|~]+$'",
        "matches[4].path.value: must be a regular expression of RE2: unclosed group",
        "matches[5].queryParams[0].value: must be a regular expression of RE2: repetition operator missing expression",
        "matches[5].headers[0].value: must be a regular expression of RE2: unclosed character class",
    ];
    assert_eq!(
        with_rules(json!([{ "matches": bad, "default": {} }])),
        expected.map(|text| format!("spec.to[0].rules[0].{text}"))
    );
    assert_eq!(
        with_rules(json!([{ "matches": [], "default": {} }])),
        ["spec.to[0].rules[0].matches: in body should have at least 1 items"]
    );
}

#[test]
fn a_filter_has_what_its_type_says() {
    for (kind, field) in [
        ("RequestHeaderModifier", "requestHeaderModifier"),
        ("ResponseHeaderModifier", "responseHeaderModifier"),
        ("RequestRedirect", "requestRedirect"),
        ("URLRewrite", "urlRewrite"),
        ("RequestMirror", "requestMirror"),
    ] {
        let found = of_filter("Exact", json!({ "type": kind }));
        assert_eq!(found, [format!("{field}: must be defined")]);
    }
    let empty = json!({ "type": "ResponseHeaderModifier", "responseHeaderModifier": {} });
    assert_eq!(
        of_filter("Exact", empty),
        ["responseHeaderModifier: must have at least one defined: set, add, remove"]
    );
}

#[test]
fn a_prefix_is_replaced_where_one_was_matched() {
    let path = json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": "/b" });
    for (kind, field) in [("RequestRedirect", "requestRedirect"), ("URLRewrite", "urlRewrite")] {
        let filter = json!({ "type": kind, field: { "path": path } });
        assert_eq!(of_filter("PathPrefix", filter.clone()), [""; 0]);
        assert_eq!(
            of_filter("Exact", filter),
            [format!(
                "{field}.path.replacePrefixMatch: can only appear if all matches match a path prefix"
            )]
        );
        let nothing = json!({ "type": kind, field: { "path": { "type": "ReplaceFullPath" } } });
        assert_eq!(
            of_filter("Exact", nothing),
            [format!("{field}.path.replaceFullPath: must be defined when type is ReplaceFullPath")]
        );
    }
}

#[test]
fn a_caller_is_sent_to_a_host_by_name() {
    let redirect = |redirect: Value| {
        of_filter("Exact", json!({ "type": "RequestRedirect", "requestRedirect": redirect }))
    };
    let all = json!({ "scheme": "https", "hostname": "a-1.example", "port": 1, "statusCode": 308 });
    assert_eq!(redirect(all), [""; 0]);
    let ip = "requestRedirect.hostname: cannot be an IP address";
    assert_eq!(redirect(json!({ "hostname": "127.0.0.1" })), [ip]);
    assert_eq!(redirect(json!({ "hostname": "::1" })), [ip]);
    let pattern = r"requestRedirect.hostname: in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'";
    for bad in ["-a", "a-", "A", "a..b", "a_b"] {
        assert_eq!(redirect(json!({ "hostname": bad })), [pattern], "{bad}");
    }
    assert_eq!(
        redirect(json!({ "hostname": "", "port": 65536 })),
        [
            "requestRedirect.hostname: in body should be at least 1 chars long",
            "requestRedirect.port: in body should be less than or equal to 65535",
        ]
    );
    assert_eq!(
        redirect(json!({ "hostname": "a".repeat(254), "port": 0 })),
        [
            "requestRedirect.hostname: in body should be at most 253 chars long",
            "requestRedirect.port: in body should be greater than or equal to 1",
        ]
    );
    let backend = json!({ "type": "URLRewrite", "urlRewrite": { "hostToBackendHostname": true } });
    assert_eq!(
        of_filter("Exact", backend),
        [
            "urlRewrite.hostToBackendHostname: can only be set for gateways of the mesh, of which there are none"
        ]
    );
}

#[test]
fn copies_go_to_services() {
    let mirror = |kind: &str, share: Value| {
        let labels = json!({ "a": "b" });
        let backend = json!({ "kind": kind, "labels": labels });
        let mirror = json!({ "percentage": share, "backendRef": backend });
        of_filter("Exact", json!({ "type": "RequestMirror", "requestMirror": mirror }))
    };
    assert_eq!(mirror("MeshService", json!("0.5")), [""; 0]);
    assert_eq!(
        mirror("MeshExternalService", json!(101)),
        [
            "requestMirror.percentage: must be in inclusive range [0.0, 100.0]",
            "requestMirror.backendRef.kind: value 'MeshExternalService' is not supported",
        ]
    );
}

#[test]
fn what_the_schema_forbids_is_answered_with_its_place() {
    let redirect = json!({ "type": "RequestRedirect", "requestRedirect": {
        "scheme": "ftp", "statusCode": 200, "path": { "type": "Nothing" },
    } });
    let found = with_rules(json!([
        {
            "matches": [{ "method": "get", "path": { "type": "Prefix", "value": "/" } }],
            "default": { "filters": [redirect, { "type": "x" }], "backendRefs": [
                { "kind": "MeshGateway", "weight": -1 },
            ] },
        },
        { "default": {} },
    ]));
    let mut expected = [
        "rules[0].matches[0].method: in body should be one of [CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT TRACE]",
        "rules[0].matches[0].path.type: in body should be one of [Exact PathPrefix RegularExpression]",
        "rules[0].default.filters[0].requestRedirect.scheme: in body should be one of [http https]",
        "rules[0].default.filters[0].requestRedirect.statusCode: in body should be one of [301 302 303 307 308]",
        "rules[0].default.filters[0].requestRedirect.path.type: in body should be one of [ReplaceFullPath ReplacePrefixMatch]",
        "rules[0].default.filters[1].type: in body should be one of [RequestHeaderModifier ResponseHeaderModifier RequestRedirect URLRewrite RequestMirror]",
        "rules[0].default.backendRefs[0].kind: in body should be one of [Mesh MeshService MeshExternalService MeshMultiZoneService MeshHTTPRoute Dataplane]",
        "rules[0].default.backendRefs[0].weight: in body should be greater than or equal to 0",
        "rules[1].matches: in body is required",
    ]
    .map(|text| format!("spec.to[0].{text}"));
    let mut found = found;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "web" } },
        "to": [{
            "targetRef": { "kind": "MeshService", "labels": { "a": "b" }, "sectionName": "http" },
            "rules": [{
                "matches": [{
                    "path": { "value": "/v1", "type": "PathPrefix" },
                    "method": "GET",
                    "queryParams": [{ "type": "Exact", "name": "q", "value": "1" }],
                    "headers": [{ "name": "x-a", "type": "RegularExpression", "value": ".*" }],
                }],
                "default": {
                    "filters": [
                        {
                            "type": "RequestHeaderModifier",
                            "requestHeaderModifier": {
                                "set": [{ "name": "a", "value": "1" }],
                                "add": [{ "name": "b", "value": "2" }],
                                "remove": ["c"],
                            },
                        },
                        {
                            "type": "RequestRedirect",
                            "requestRedirect": {
                                "scheme": "http",
                                "hostname": "b.example",
                                "path": { "type": "ReplaceFullPath", "replaceFullPath": "/" },
                                "port": 8080,
                                "statusCode": 301,
                            },
                        },
                        {
                            "type": "URLRewrite",
                            "urlRewrite": {
                                "hostname": "c.example",
                                "path": {
                                    "type": "ReplacePrefixMatch",
                                    "replacePrefixMatch": "/v2",
                                },
                                "hostToBackendHostname": false,
                            },
                        },
                        {
                            "type": "RequestMirror",
                            "requestMirror": {
                                "percentage": "1.5",
                                "backendRef": {
                                    "kind": "MeshService",
                                    "labels": { "a": "c" },
                                    "weight": 1,
                                    "port": 80,
                                },
                            },
                        },
                    ],
                    "backendRefs": [{
                        "kind": "MeshMultiZoneService",
                        "labels": { "a": "b" },
                        "weight": 90,
                        "port": 80,
                    }],
                },
            }],
        }],
    });
    let read = KIND.from_json(spec.clone()).unwrap();
    assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), spec);
}

#[test]
fn what_is_not_said_gets_its_default() {
    let spec = json!({ "to": [{ "targetRef": service(), "rules": [{
        "matches": [{ "headers": [{ "name": "a", "value": "1" }] }],
        "default": {
            "filters": [{ "type": "RequestRedirect", "requestRedirect": { "port": 80 } }],
            "backendRefs": [],
        },
    }] }] });
    let written = KIND.to_json(&KIND.encode(&KIND.from_json(spec).unwrap()).unwrap()).unwrap();
    let expected = json!([{
        "matches": [{ "headers": [{ "name": "a", "type": "Exact", "value": "1" }] }],
        "default": {
            "filters": [{
                "type": "RequestRedirect",
                "requestRedirect": { "port": 80, "statusCode": 302 },
            }],
            "backendRefs": [],
        },
    }]);
    assert_eq!(written["to"][0]["rules"], expected);
}

#[test]
fn a_producers_route_goes_to_the_other_zones() {
    let spec = KIND.from_json(json!({ "to": [{ "targetRef": service(), "rules": [] }] })).unwrap();
    let route = spec.downcast_ref::<MeshHTTPRoute>().unwrap();
    let of = |role| {
        Labels::from_iter([("kuma.io/policy-role", role), ("k8s.kuma.io/namespace", "shop")])
    };
    assert_eq!(
        [route.is_producer(&of("producer")), route.is_producer(&of("consumer"))],
        [true, false]
    );
}
