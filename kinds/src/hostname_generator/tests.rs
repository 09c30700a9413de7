use super::*;
use crate::LabelSelector;
use serde_json::{Value, json};

fn violations(spec: Value) -> String {
    KIND.from_json(spec).map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
}

#[test]
fn a_generator_selects_one_kind_and_makes_host_names() {
    let service = json!({ "meshService": { "matchLabels": { "kuma.io/origin": "global" } } });
    let one = "spec.selector: exactly one selector (meshService, meshExternalService or meshMultiZoneService) must be defined";
    for (spec, expected) in [
        (
            json!({ "selector": service, "template": "{{ .DisplayName }}.svc.{{ .Zone }}.mesh.local" }),
            "",
        ),
        (
            json!({ "selector": service, "template": r#"{{ label "a/b" }}.{{ .Namespace }}"#, "later": 1 }),
            "",
        ),
        (json!({ "template": "a" }), one),
        (
            json!({ "selector": { "meshService": {}, "meshMultiZoneService": {} }, "template": "a" }),
            one,
        ),
        (json!({ "selector": service, "template": "" }), "spec.template: must not be empty"),
        (
            json!({ "selector": service, "template": "{{ .Nope }}" }),
            r#"spec.template: unknown field "Nope""#,
        ),
        (
            json!({ "selector": service, "template": "{{ .Zone }}._x" }),
            r#"spec.template: "sample._x" is not a host name"#,
        ),
    ] {
        assert_eq!(violations(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn a_missing_label_or_a_bad_name_gives_no_host_name() {
    let generator = HostnameGenerator {
        template: r#"{{ label "pod" }}.{{ .DisplayName }}"#.into(),
        ..HostnameGenerator::default()
    };
    let service = |display_name| Service {
        name: "cart-x",
        display_name,
        namespace: "",
        mesh: "shop",
        zone: "east",
    };
    let pod = |key: &str| (key == "pod").then_some("cart-0");
    assert_eq!(generator.hostname(&service("cart"), pod), Ok("cart-0.cart".into()));
    let missing = NoHostname::Values(NotRendered::Label("pod".into()));
    assert_eq!(generator.hostname(&service("cart"), |_| None), Err(missing));
    let bad = NoHostname::Name("cart-0.a_b".into());
    assert_eq!(generator.hostname(&service("a_b"), pod), Err(bad));
}

#[test]
fn a_generator_of_multi_zone_services_needs_a_peer_that_knows_them() {
    let mut generator = HostnameGenerator::default();
    assert_eq!(generator.needs(), Features::default());
    generator.selector.mesh_multi_zone_service = Some(LabelSelector::default());
    assert!(generator.needs().has(Feature::HostnameGeneratorMultiZone));
}
