//! Compares what all kinds say about travelling with the table of the protocol: who gets what.

use super::all;
use bytes::Bytes;
use resource::{
    Audience, Feature, Features, Kind, MeshName, Peer, ResourceKey, Scope, TransitName, ZoneName,
    label,
};
use std::collections::BTreeMap;

/// A line a kind: its name; its scope; whether what global wrote goes to zones (`down`), what a
/// zone wrote to global (`up`), and from there to other zones (`across`, `producers`); whether a
/// zone may write it (`own`); whether names get a hash on their way; its status when nothing is
/// known.
const TABLE: &str = r#"
Mesh                      global down -  -         -   kept
Dataplane                 mesh   -    up -         own hashed
DataplaneInsight          mesh   -    up -         own hashed
ServiceInsight            mesh   down -  -         -   hashed
MeshInsight               global -    -  -         own hashed
Config                    global down -  -         own kept
Secret                    mesh   down -  -         own kept
GlobalSecret              global down -  -         own kept
Zone                      global -    -  -         own hashed
ZoneInsight               global -    -  -         own hashed {}
HostnameGenerator         global down up -         own hashed
MeshExternalService       mesh   down up -         own hashed {"vip":{}}
MeshIdentity              mesh   down up -         own hashed {}
MeshMultiZoneService      mesh   down -  -         -   hashed {}
MeshOpenTelemetryBackend  mesh   down up -         own hashed {}
MeshService               mesh   -    up across    own hashed {"tls":{},"dataplaneProxies":{}}
MeshTrust                 mesh   down up -         own hashed {}
MeshZoneAddress           mesh   -    up across    own hashed
Workload                  mesh   -    up -         own hashed {}
MeshAccessLog             mesh   down up producers own hashed {}
MeshCircuitBreaker        mesh   down up producers own hashed
MeshFaultInjection        mesh   down up -         own hashed
MeshHealthCheck           mesh   down up producers own hashed
MeshHTTPRoute             mesh   down up producers own hashed
MeshLoadBalancingStrategy mesh   down up producers own hashed
MeshMetric                mesh   down up -         own hashed {}
MeshPassthrough           mesh   down up -         own hashed
MeshProxyPatch            mesh   down up -         own hashed
MeshRateLimit             mesh   down up -         own hashed
MeshRetry                 mesh   down up producers own hashed
MeshTCPRoute              mesh   down up producers own hashed
MeshTimeout               mesh   down up producers own hashed
MeshTLS                   mesh   down up -         own hashed
MeshTrace                 mesh   down up -         own hashed {}
MeshTrafficPermission     mesh   down up -         own hashed
ContainerPatch            mesh   -    -  -         own hashed
Beacon                    global down -  -         own kept
BeaconEcho                global -    up -         own hashed
"#;

/// A spec of each kind; one of a producer, where there can be one.
const SPECS: &str = r#"
Beacon {"number":1}
BeaconEcho {"stored":1}
Dataplane {"networking":{"address":"10.0.0.1"}}
HostnameGenerator {"selector":{"meshService":{}},"template":"a"}
MeshExternalService {"match":{"port":443}}
MeshMultiZoneService {"selector":{"meshService":{"matchLabels":{"a":"b"}}},"ports":[{"port":80}]}
MeshZoneAddress {"address":"10.0.0.1","port":1}
MeshAccessLog {"to":[{"targetRef":TARGET,"default":{"backends":[{"type":"File","file":{"path":"/a"}}]}}]}
MeshCircuitBreaker {"to":[{"targetRef":TARGET,"default":{"connectionLimits":{"maxConnections":1}}}]}
MeshFaultInjection {"to":[{"targetRef":{"kind":"Mesh"},"default":{"http":[{"abort":{"httpStatus":500,"percentage":1}}]}}]}
MeshHealthCheck {"to":[{"targetRef":TARGET,"default":{"interval":"1s","http":{"path":"/"}}}]}
MeshHTTPRoute {"to":[{"targetRef":TARGET,"rules":[]}]}
MeshLoadBalancingStrategy {"to":[{"targetRef":TARGET,"default":{"loadBalancer":{"type":"Random"}}}]}
MeshMetric {"default":{}}
MeshPassthrough {"default":{"passthroughMode":"All"}}
MeshProxyPatch {"default":{"appendModifications":[{"cluster":{"operation":"Remove"}}]}}
MeshRateLimit {"to":[{"targetRef":{"kind":"Mesh"},"default":{"local":{"tcp":{"disabled":true}}}}]}
MeshRetry {"to":[{"targetRef":TARGET,"default":{"tcp":{"maxConnectAttempt":1}}}]}
MeshTCPRoute {"to":[{"targetRef":TARGET,"rules":[]}]}
MeshTimeout {"to":[{"targetRef":TARGET,"default":{"idleTimeout":"1s"}}]}
MeshTLS {"rules":[{"default":{"mode":"Strict"}}]}
MeshTrace {"default":{"backends":[]}}
MeshTrafficPermission {"rules":[{"default":{"allow":[{"spiffeID":{"type":"Prefix","value":"spiffe://a"}}]}}]}
"#;

const TARGET: &str = r#"{"kind":"MeshService","labels":{"kuma.io/display-name":"cart"}}"#;

fn line(kind: &Kind) -> String {
    let word = |is: bool, word: &'static str| if is { word } else { "-" };
    let scope = match kind.scope {
        Scope::Global => "global",
        Scope::Mesh => "mesh",
    };
    let seen = |peer, labels: &[(&str, &str)]| !audience(kind, peer, labels).hidden;
    let (global, zone) = (label::ORIGIN_GLOBAL, label::ORIGIN_ZONE);
    let down = seen(Peer::Zone, &[(label::ORIGIN, global)]);
    let up = seen(Peer::Global, &[(label::ORIGIN, zone)]);
    let of_east = [(label::ORIGIN, zone), (label::ZONE, "east")];
    let producer = [(label::ROLE, label::ROLE_PRODUCER), (label::NAMESPACE, "shop")];
    let producer: Vec<_> = of_east.into_iter().chain(producer).collect();
    let across = if seen(Peer::Zone, &of_east) {
        "across"
    } else {
        word(seen(Peer::Zone, &producer), "producers")
    };
    let name = match kind.transit_name {
        TransitName::Hashed => "hashed",
        TransitName::Kept => "kept",
    };
    let status = if kind.has_status { kind.blank_status() } else { Bytes::new() };
    let status = String::from_utf8(status.into()).unwrap();
    let own = word(kind.flow.written_in_zones(), "own");
    let words = [kind.name, scope, word(down, "down"), word(up, "up"), across, own, name, &status];
    words.join(" ").trim_end().to_owned()
}

fn audience(kind: &Kind, peer: Peer, labels: &[(&str, &str)]) -> Audience {
    let specs = SPECS.trim().lines().filter_map(|line| line.split_once(' '));
    let specs: BTreeMap<&str, &str> = specs.collect();
    let trust = serde_json::json!({
        "trustDomain": "a",
        "caBundles": [{ "type": "Pem", "pem": { "value": include_str!("mesh_trust/testdata/ca.pem") } }],
    });
    let spec = match specs.get(kind.name) {
        _ if kind.name == "MeshTrust" => trust,
        Some(spec) => serde_json::from_str(&spec.replace("TARGET", TARGET)).unwrap(),
        None => serde_json::json!({}),
    };
    let spec = kind.from_json(spec).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    let spec = kind.encode(&spec).unwrap();
    // The one Config that goes anywhere.
    let name = if kind.name == "Config" { "kuma-cluster-id" } else { "a" };
    let key = match kind.scope {
        Scope::Global => ResourceKey::global(name),
        Scope::Mesh => ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), name),
    };
    let labels = labels.iter().copied().collect();
    kind.resource(key, labels, spec, Bytes::new(), peer).unwrap().head.audience.clone()
}

#[test]
fn kinds_travel_as_the_protocol_says() {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected: BTreeMap<String, String> = TABLE
        .trim()
        .lines()
        .map(|line| (line.split_whitespace().next().unwrap().to_owned(), words(line)))
        .collect();
    let mut wrong = Vec::new();
    for kind in all() {
        let (found, expected) = (line(&kind), expected.get(kind.name));
        if Some(&found) != expected {
            wrong.push((found, expected.cloned()));
        }
    }
    assert_eq!(wrong, [], "{wrong:#?}");
}

#[test]
fn what_came_from_another_and_what_stays_is_not_sent() {
    for kind in all() {
        let hidden = |peer, labels: &[(&str, &str)]| audience(&kind, peer, labels).hidden;
        // To global a zone sends what it wrote itself.
        assert!(hidden(Peer::Global, &[(label::ORIGIN, label::ORIGIN_GLOBAL)]), "{kind:?}");
        for peer in [Peer::Global, Peer::Zone] {
            assert!(hidden(peer, &[(label::SYNC, label::DISABLED)]), "{kind:?}");
        }
    }
}

#[test]
fn what_goes_across_spares_its_zone_and_those_who_do_not_know_it() {
    let of_east = [(label::ORIGIN, label::ORIGIN_ZONE), (label::ZONE, "east")];
    let producer = [(label::ROLE, label::ROLE_PRODUCER), (label::NAMESPACE, "shop")];
    let producer: Vec<_> = of_east.into_iter().chain(producer).collect();
    let owner = ZoneName::new("east").ok();
    for kind in all() {
        let service = audience(&kind, Peer::Zone, &of_east);
        if !service.hidden {
            assert_eq!((service.owner, service.needs), (owner.clone(), Features::default()));
        }
        let policy = audience(&kind, Peer::Zone, &producer);
        if kind.targets.is_some() && !policy.hidden {
            let needs = Features::default().with(Feature::ProducerPolicyFlow);
            assert_eq!((policy.owner, policy.needs), (owner.clone(), needs), "{kind:?}");
        }
    }
}
