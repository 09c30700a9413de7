use super::*;
use resource::{Flow, RejectedSpec};
use std::collections::BTreeSet;

/// What is wrong with `spec`, each with its path.
pub(crate) fn violations(kind: Kind, spec: serde_json::Value) -> Vec<String> {
    match kind.from_json(spec) {
        Ok(_) => Vec::new(),
        Err(RejectedSpec::Invalid { violations, .. }) => {
            violations.iter().map(ToString::to_string).collect()
        }
        Err(malformed) => panic!("{malformed:?}"),
    }
}

/// What `spec` is when it is read and written.
pub(crate) fn written(kind: Kind, spec: serde_json::Value) -> serde_json::Value {
    kind.to_json(&kind.encode(&kind.from_json(spec).unwrap()).unwrap()).unwrap()
}

#[test]
fn every_folder_is_a_listed_kind() {
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let folders: BTreeSet<String> = std::fs::read_dir(src)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap().replace('_', ""))
        .collect();
    let listed: BTreeSet<String> = all().map(|kind| kind.name.to_lowercase()).collect();
    assert_eq!(folders, listed);
}

#[test]
fn names_are_unique() {
    for (what, name_of) in [
        ("kind", (|kind| kind.name) as fn(Kind) -> &'static str),
        ("plural", |kind| kind.plural),
        ("path", |kind| kind.path),
        ("short", |kind| kind.short),
    ] {
        let names: Vec<&str> = all().map(name_of).filter(|name| !name.is_empty()).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len(), "a {what} is used twice: {names:?}");
    }
}

/// What a Kuma zone and a Kuma global ask for.
#[test]
fn peers_ask_for_what_the_protocol_lists() {
    let asked = |by: fn(Flow) -> bool| -> Vec<&str> {
        let mut names: Vec<_> = all().filter(|kind| by(kind.flow)).map(|kind| kind.name).collect();
        names.sort_unstable();
        names
    };
    let zone: [&str; 29] = [
        "Config",
        "GlobalSecret",
        "HostnameGenerator",
        "Mesh",
        "MeshAccessLog",
        "MeshCircuitBreaker",
        "MeshExternalService",
        "MeshFaultInjection",
        "MeshHTTPRoute",
        "MeshHealthCheck",
        "MeshIdentity",
        "MeshLoadBalancingStrategy",
        "MeshMetric",
        "MeshMultiZoneService",
        "MeshOpenTelemetryBackend",
        "MeshPassthrough",
        "MeshProxyPatch",
        "MeshRateLimit",
        "MeshRetry",
        "MeshService",
        "MeshTCPRoute",
        "MeshTLS",
        "MeshTimeout",
        "MeshTrace",
        "MeshTrafficPermission",
        "MeshTrust",
        "MeshZoneAddress",
        "Secret",
        "ServiceInsight",
    ];
    assert_eq!(asked(Flow::requested_by_zones), zone);
    let global: [&str; 26] = [
        "Dataplane",
        "DataplaneInsight",
        "HostnameGenerator",
        "MeshAccessLog",
        "MeshCircuitBreaker",
        "MeshExternalService",
        "MeshFaultInjection",
        "MeshHTTPRoute",
        "MeshHealthCheck",
        "MeshIdentity",
        "MeshLoadBalancingStrategy",
        "MeshMetric",
        "MeshOpenTelemetryBackend",
        "MeshPassthrough",
        "MeshProxyPatch",
        "MeshRateLimit",
        "MeshRetry",
        "MeshService",
        "MeshTCPRoute",
        "MeshTLS",
        "MeshTimeout",
        "MeshTrace",
        "MeshTrafficPermission",
        "MeshTrust",
        "MeshZoneAddress",
        "Workload",
    ];
    assert_eq!(asked(Flow::requested_by_global), global);
}

#[test]
fn protobuf_kinds_have_the_type_urls_of_the_protocol() {
    let urls: Vec<_> = all().map(|kind| kind.type_url()).filter(|url| !url.is_empty()).collect();
    let expected = [
        "kuma.mesh.v1alpha1.Mesh",
        "kuma.system.v1alpha1.Zone",
        "kuma.system.v1alpha1.ZoneInsight",
        "kuma.mesh.v1alpha1.MeshInsight",
        "kuma.mesh.v1alpha1.ServiceInsight",
        "kuma.system.v1alpha1.Secret",
        "kuma.system.v1alpha1.Secret",
        "kuma.system.v1alpha1.Config",
        "kuma.mesh.v1alpha1.Dataplane",
        "kuma.mesh.v1alpha1.DataplaneInsight",
    ];
    assert_eq!(urls, expected.map(|name| format!("type.googleapis.com/{name}")));
}

#[test]
fn what_is_no_spec_is_refused_without_panic() {
    for kind in all() {
        assert!(kind.decode(&[0xff; 7]).is_err(), "{kind:?}");
        assert!(kind.from_json(serde_json::json!([1])).is_err(), "{kind:?}");
        assert!(kind.decode(b" [1]").is_err(), "{kind:?}");
    }
}

/// The canonical mapping: numbers of 64 bits as text, times in RFC 3339, what has its default left
/// out.
#[test]
fn insights_have_the_json_of_protobuf() {
    let stats = serde_json::json!({ "responsesSent": "2", "responsesAcknowledged": "1" });
    let time = "2026-11-23T11:31:55.489587323Z";
    let subscription = |version: serde_json::Value| {
        serde_json::json!({
            "id": "c235b832",
            "connectTime": time,
            "status": { "lastUpdateTime": time, "total": stats },
            "version": version,
        })
    };
    let proxy = serde_json::json!({
        "subscriptions": [subscription(serde_json::json!({
            "kumaDp": { "version": "3.0.0", "kumaCpCompatible": true },
            "dependencies": { "coredns": "1" },
        }))],
        "mTLS": { "certificateExpirationTime": time, "issuedBackend": "kri_mid_default___identity_" },
        "metadata": { "workdir": "/var/lib/dp", "ports": [1.0, null] },
    });
    let mut zone = serde_json::json!({
        "subscriptions": [subscription(serde_json::json!({ "kumaCp": { "version": "3.0.0" } }))],
        "kdsStreams": { "globalToZone": { "globalInstanceId": "g", "connectTime": time } },
    });
    zone["subscriptions"][0]["status"]["stat"] = serde_json::json!({ "Mesh": stats });
    for (kind, json) in [(dataplane_insight::KIND, proxy), (zone_insight::KIND, zone)] {
        let bytes = kind.encode(&kind.from_json(json.clone()).unwrap()).unwrap();
        assert_eq!(kind.to_json(&bytes).unwrap(), json);
    }
}

/// As control planes were seen to send them, with other names.
#[test]
fn specs_on_the_wire_are_read_and_written_as_they_are() {
    for line in include_str!("../testdata/wire.txt").lines() {
        let (name, spec) = line.split_once(' ').unwrap();
        let kind = all().find(|kind| kind.name == name).unwrap();
        let read = kind.decode(spec.as_bytes()).unwrap();
        assert_eq!(kind.encode(&read).unwrap(), spec);
    }
}

#[test]
fn small_specs_have_the_json_of_protobuf() {
    for (kind, json, bytes) in [
        (mesh::KIND, r#"{"skipCreatingInitialPolicies":["*"]}"#, &b"\x42\x01*"[..]),
        (mesh::KIND, "{}", b""),
        (zone::KIND, r#"{"enabled":false}"#, b"\x0a\x00"),
        (zone::KIND, r#"{"enabled":true}"#, b"\x0a\x02\x08\x01"),
        (secret::KIND, r#"{"data":"aGk="}"#, b"\x0a\x04\x0a\x02hi"),
        (global_secret::KIND, r#"{"data":"aGk="}"#, b"\x0a\x04\x0a\x02hi"),
        (config::KIND, r#"{"config":"x"}"#, b"\x0a\x01x"),
    ] {
        let read = kind.from_json(serde_json::from_str(json).unwrap()).unwrap();
        assert_eq!(kind.encode(&read).unwrap(), bytes, "{json}");
        assert_eq!(kind.to_json(bytes).unwrap().to_string(), json);
    }
}

#[test]
fn a_zone_is_enabled_unless_it_says_otherwise() {
    let enabled = |json| {
        let zone = zone::KIND.from_json(json).unwrap();
        zone.downcast_ref::<zone::Zone>().unwrap().is_enabled()
    };
    let said = |value: bool| serde_json::json!({ "enabled": value });
    assert_eq!(
        [enabled(serde_json::json!({})), enabled(said(true)), enabled(said(false))],
        [true, true, false]
    );
}

#[test]
fn specs_and_statuses_are_read_by_their_types() {
    let key = resource::ResourceKey::global("a");
    let of = |spec: &'static str, status: &'static str| {
        Resource::new(
            key.clone(),
            resource::Labels::default(),
            spec.into(),
            status.into(),
            resource::Audience::default(),
        )
    };
    let spec = read::<workload::Workload>(&of("{}", "")).unwrap();
    assert_eq!(*spec, workload::Workload {});
    assert!(read::<workload::Workload>(&of("[", "")).is_err());
    let counted = status::<workload::Workload>(&of(
        "{}",
        r#"{"dataplaneProxies":{"connected":0,"healthy":0,"total":1}}"#,
    ));
    let proxies = workload::Proxies { connected: 0, healthy: 0, total: 1 };
    assert_eq!(counted.unwrap(), workload::Status { dataplane_proxies: Some(proxies) });
    assert_eq!(status::<workload::Workload>(&of("{}", "")).unwrap(), workload::Status::default());
    assert!(status::<workload::Workload>(&of("{}", "[")).is_err());
}

#[test]
fn policies_stand_in_the_order_they_run() {
    assert!(POLICIES.is_sorted_by_key(|policy| policy.phase));
}
