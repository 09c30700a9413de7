use super::*;

const CA: &str = include_str!("testdata/ca.pem");

fn violations(domain: &str, bundles: Vec<CaBundle>) -> String {
    let mut violations = Violations::default();
    MeshTrust { trust_domain: domain.into(), ca_bundles: bundles }.validate(&mut violations);
    violations.to_string()
}

#[test]
fn a_trust_has_a_domain_and_certificates() {
    let domain = "shop.east.mesh.local";
    assert_eq!(violations(domain, vec![CaBundle::pem(CA), CaBundle::pem(CA.repeat(2))]), "");
    assert_eq!(
        violations("spiffe://shop", vec![]),
        "spec.trustDomain: must be a trust domain such as shop.east.mesh.local; \
         spec.caBundles: must not be empty"
    );
    let missing = CaBundle { kind: CaBundleType::Pem, pem: None };
    assert_eq!(
        violations(domain, vec![CaBundle::pem(CA), missing]),
        "spec.caBundles[1].pem: must be set when type is Pem"
    );
}

#[test]
fn what_is_not_certificates_is_refused() {
    let truncated = CA.replace("\n-----END", "AAAA\n-----END");
    let key = CA.replace("CERTIFICATE", "PRIVATE KEY");
    for text in ["", "x", &truncated, &key, &format!("{CA}x"), &format!("x{CA}"), CA.split_at(40).0]
    {
        assert_eq!(
            violations("shop", vec![CaBundle::pem(text)]),
            "spec.caBundles[0].pem.value: must be one or more certificates in PEM",
            "{text}"
        );
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let json = serde_json::json!({
        "trustDomain": "shop.east.mesh.local",
        "caBundles": [{ "type": "Pem", "pem": { "value": CA } }],
    });
    let read = KIND.from_json(json.clone()).unwrap();
    assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), json);
    assert_eq!(KIND.blank_status(), "{}");
    let status = r#"{"origin":{"kri":"kri_mid_default___identity_"}}"#;
    let read: Status = serde_json::from_str(status).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), status);
}
