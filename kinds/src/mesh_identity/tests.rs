use super::*;
use crate::{Condition, LabelSelector};
use serde_json::{Value, json};

fn violations(spec: Value) -> Vec<String> {
    let spec: MeshIdentity = serde_json::from_value(spec).unwrap();
    let mut violations = Violations::default();
    spec.validate(&mut violations);
    violations.iter().map(ToString::to_string).collect()
}

#[test]
fn every_violation_has_its_path() {
    let provider = |provider: Value| violations(json!({ "provider": provider }));
    let bundled = |bundled: Value| provider(json!({ "type": "Bundled", "bundled": bundled }));
    let none: [&str; 0] = [];
    assert_eq!(violations(json!({})), none);
    assert_eq!(bundled(json!({ "autogenerate": { "enabled": true } })), none);
    assert_eq!(provider(json!({ "type": "Spire", "spire": {} })), none);
    assert_eq!(
        provider(json!({ "type": "Bundled" })),
        ["spec.provider.bundled: must be set when type is Bundled"]
    );
    assert_eq!(provider(json!({ "type": "Spire" })), none);
    assert_eq!(
        provider(json!({ "type": "Extension" })),
        ["spec.provider.extension: must be set when type is Extension"]
    );
    assert_eq!(
        provider(json!({ "type": "Extension", "extension": { "name": "" } })),
        ["spec.provider.extension.name: must not be empty"]
    );
    assert_eq!(
        provider(json!({ "type": "Spire", "spire": { "agent": { "timeout": "0s" } } })),
        ["spec.provider.spire.agent.timeout: must be greater than zero when defined"]
    );
    assert_eq!(
        bundled(json!({ "certificateParameters": { "expiry": "-1s" } })),
        [
            "spec.provider.bundled.certificateParameters.expiry: must be greater than zero when defined",
            "spec.provider.bundled.ca: must be set when autogenerate is not enabled",
        ]
    );
    assert_eq!(
        bundled(json!({ "autogenerate": { "enabled": true }, "ca": {} })),
        ["spec.provider.bundled.ca: must not be set when autogenerate is enabled"]
    );
    assert_eq!(
        bundled(json!({ "ca": { "certificate": { "type": "Secret" } } })),
        [
            "spec.provider.bundled.ca.certificate.secretRef.name: must be set when type is Secret",
            "spec.provider.bundled.ca.privateKey: must be set",
        ]
    );
}

#[test]
fn templates_make_spiffe_ids() {
    let path =
        "must begin with a slash, and between slashes have letters, digits, '.', '-' and '_'";
    for (domain, given, expected) in [
        ("{{ .Mesh }}.example", "/{{ .Workload }}/{{ label \"team\" }}", vec![]),
        ("{{ label \"team\" }}", "/ns/{{ .Namespace }}", vec![]),
        (
            "{{ .Nope }}",
            "x",
            vec![
                r#"spec.spiffeID.trustDomain: unknown field "Nope""#.to_owned(),
                format!("spec.spiffeID.path: {path}"),
            ],
        ),
        (
            "a_b",
            "/a//b",
            vec![
                r#"spec.spiffeID.trustDomain: "a_b" makes no trust domain"#.to_owned(),
                format!("spec.spiffeID.path: {path}"),
            ],
        ),
        ("a", "/{{ .Workload", vec!["spec.spiffeID.path: unclosed action".to_owned()]),
        ("a", "/..", vec![format!("spec.spiffeID.path: {path}")]),
    ] {
        let spec = json!({ "spiffeID": { "trustDomain": domain, "path": given } });
        assert_eq!(violations(spec), expected, "{domain} {given}");
    }
}

fn selecting(labels: &[(&str, &str)]) -> MeshIdentity {
    let match_labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let dataplane = Some(LabelSelector { match_labels });
    MeshIdentity { selector: Some(Selector { dataplane }), ..MeshIdentity::default() }
}

#[test]
fn the_closest_identity_is_taken_then_the_first_by_name() {
    let (all, none) = (selecting(&[]), MeshIdentity::default());
    let half = MeshIdentity { selector: Some(Selector::default()), ..MeshIdentity::default() };
    let team = selecting(&[("team", "a")]);
    let other = selecting(&[("team", "b"), ("x", "y")]);
    let labels = Labels::from_iter([("team", "a"), ("x", "y")]);
    let name = |identities: &[(&'static str, &MeshIdentity)], labels: &Labels| {
        best(identities.iter().copied(), labels).map(|(name, _)| name)
    };
    let identities =
        [("z", &team), ("y", &team), ("b", &all), ("a", &none), ("0", &half), ("1", &other)];
    assert_eq!(name(&identities, &labels), Some("y"));
    assert_eq!(name(&identities, &Labels::default()), Some("b"));
    assert_eq!(name(&[("a", &none), ("b", &half)], &labels), None);
}

#[test]
fn a_spiffe_id_is_by_default_the_workload_in_the_zones_domain() {
    let (identity, own) = (selecting(&[]), Labels::default());
    let place = Place { mesh: "shop", zone: "east", kubernetes: false };
    let cart = Labels::from_iter([("kuma.io/workload", "cart")]);
    let id = identity.spiffe_id(place, &own, &cart);
    assert_eq!(id.as_deref(), Ok("spiffe://shop.east.mesh.local/workload/cart"));
    let nobody = identity.spiffe_id(place, &own, &Labels::default());
    assert_eq!(nobody, Err(NoSpiffeId::Empty("Workload")));

    let place = Place { kubernetes: true, ..place };
    let pod = Labels::from_iter([
        ("k8s.kuma.io/namespace", "shop"),
        ("k8s.kuma.io/service-account", "cart"),
    ]);
    let id = identity.spiffe_id(place, &own, &pod);
    assert_eq!(id.as_deref(), Ok("spiffe://shop.east.mesh.local/ns/shop/sa/cart"));
    assert_eq!([false, true].map(|kubernetes| identity.needs_workload(kubernetes)), [true, false]);
}

#[test]
fn a_label_in_the_trust_domain_is_the_identitys() {
    let spec = json!({ "spiffeID": { "trustDomain": "{{ label \"team\" }}.test", "path": "/a" } });
    let identity: MeshIdentity = serde_json::from_value(spec).unwrap();
    let place = Place { mesh: "shop", zone: "east", kubernetes: false };
    let team = |team| Labels::from_iter([("team", team)]);
    let id = identity.spiffe_id(place, &team("own"), &team("proxy"));
    assert_eq!(id.as_deref(), Ok("spiffe://own.test/a"));
}

#[test]
fn an_identity_is_ready_if_it_says_so() {
    let ready = |condition: Condition| Status { conditions: vec![condition] }.is_ready();
    assert!(ready(Condition::holds("Ready", "Ready", "")));
    assert!(ready(Condition::fails("Ready", "PartiallyReady", "")));
    assert!(!ready(Condition::fails("Ready", "NotReady", "")));
    assert!(!ready(Condition::holds("Provider", "ProviderInitialized", "")));
    assert!(!Status::default().is_ready());
}

#[test]
fn the_json_is_that_of_the_field() {
    let json = json!({
        "selector": { "dataplane": { "matchLabels": {} } },
        "provider": { "type": "Bundled", "bundled": {
            "meshTrustCreation": "Enabled",
            "insecureAllowSelfSigned": true,
            "autogenerate": { "enabled": true },
        } },
    });
    let read = KIND.from_json(json.clone()).unwrap();
    assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), json);
}
