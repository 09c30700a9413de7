use super::*;
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::LazyLock};

/// Making a key is slow; the tests share some.
static KEYS: LazyLock<[SigningKey; 2]> =
    LazyLock::new(|| [(); 2].map(|()| SigningKey::generate().unwrap()));

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    Timestamp::from_second(1_795_457_058).unwrap()
}

fn keys(serials: &[u32]) -> KeySet {
    let mut keys = KeySet::default();
    for (serial, key) in serials.iter().zip(&*KEYS) {
        keys.insert(*serial, key.private_pem()).unwrap();
    }
    keys
}

fn web() -> DataplaneClaims {
    DataplaneClaims {
        name: "web-1".into(),
        mesh: "default".into(),
        tags: BTreeMap::from([("team".into(), vec!["a".into()])]),
        r#type: "dataplane".into(),
        workload: "web".into(),
    }
}

fn decoded(token: &str) -> [Value; 2] {
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    [parts[0], parts[1]]
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
}

/// A token's claims, but for its ID, which is checked here.
fn claims(token: &str) -> Value {
    let [header, mut body] = decoded(token);
    assert_eq!(header, json!({"alg": "RS256", "kid": "1", "typ": "JWT"}));
    let id = body.as_object_mut().unwrap().remove("jti").unwrap();
    id.as_str().unwrap().parse::<Uuid>().unwrap();
    body
}

fn forged(header: &Value, body: &Value) -> String {
    let message = format!("{}.{}", encode(header).unwrap(), encode(body).unwrap());
    let signature = keys(&[1]).sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn refused(keys: &KeySet, token: &str) -> Refused {
    verify::<ZoneClaims>(keys, token, now(), &Revocations::default()).unwrap_err()
}

#[test]
fn tokens_have_the_shape_that_others_read() {
    let keys = keys(&[1]);
    let token = mint(&keys, &web(), now(), 24 * HOUR).unwrap();
    let standard = json!({"nbf": 1_795_457_053, "iat": 1_795_457_053});
    let with = |mut claims: Value, exp: i64| {
        let members = claims.as_object_mut().unwrap();
        members.extend(standard.as_object().unwrap().clone());
        members.insert("exp".into(), exp.into());
        claims
    };
    let expected = json!({
        "Name": "web-1", "Mesh": "default", "Tags": {"team": ["a"]}, "Type": "dataplane",
        "Workload": "web",
    });
    assert_eq!(claims(&token), with(expected, 1_795_543_458));

    let any = DataplaneClaims { mesh: "default".into(), ..DataplaneClaims::default() };
    let expected = json!({"Name": "", "Mesh": "default", "Tags": {}, "Type": "", "Workload": ""});
    let token = mint(&keys, &any, now(), 87_600 * HOUR).unwrap();
    assert_eq!(claims(&token), with(expected, 2_110_817_058));

    let zone = ZoneClaims { zone: "z1".into(), scope: vec!["egress".into()] };
    let token = mint(&keys, &zone, now(), HOUR).unwrap();
    assert_eq!(claims(&token), with(json!({"Zone": "z1", "Scope": ["egress"]}), 1_795_460_658));
    let token = mint(&keys, &ZoneClaims::default(), now(), HOUR).unwrap();
    assert_eq!(claims(&token), with(json!({"Zone": "", "Scope": null}), 1_795_460_658));

    let ann = UserClaims { name: "ann".into(), groups: vec!["team-a".into()] };
    let token = mint(&keys, &ann, now(), HOUR).unwrap();
    assert_eq!(claims(&token), with(json!({"Name": "ann", "Groups": ["team-a"]}), 1_795_460_658));
}

#[test]
fn another_implementation_accepts_a_token() {
    let token = mint(&keys(&[1]), &web(), now(), HOUR).unwrap();
    let key = jsonwebtoken::DecodingKey::from_rsa_pem(KEYS[0].public_pem().as_bytes()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.validate_exp = false;
    let data = jsonwebtoken::decode::<DataplaneClaims>(&token, &key, &validation).unwrap();
    assert_eq!(data.claims, web());

    let theirs = jsonwebtoken::EncodingKey::from_rsa_pem(KEYS[0].private_pem().as_bytes()).unwrap();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    header.kid = Some("1".into());
    let body = json!({"Zone": "z1", "Scope": null, "exp": 1_795_460_658, "jti": "one"});
    let token = jsonwebtoken::encode(&header, &body, &theirs).unwrap();
    let accepted: Accepted<ZoneClaims> =
        verify(&keys(&[1]), &token, now(), &Revocations::default()).unwrap();
    assert_eq!(
        accepted,
        Accepted {
            claims: ZoneClaims { zone: "z1".into(), scope: vec![] },
            id: "one".into(),
            expires: Timestamp::from_second(1_795_460_658).unwrap(),
        }
    );
}

#[test]
fn the_highest_serial_signs_and_all_of_them_verify() {
    let (old, both) = (keys(&[1]), keys(&[1, 2]));
    let zone = ZoneClaims { zone: "east".into(), scope: vec!["cp".into()] };
    let early = mint(&old, &zone, now(), HOUR).unwrap();
    let late = mint(&both, &zone, now(), HOUR).unwrap();
    assert_eq!(decoded(&late)[0]["kid"], "2");
    let mut public = KeySet::default();
    for (serial, key) in [1, 2].into_iter().zip(&*KEYS) {
        assert!(key.public_pem().starts_with("-----BEGIN RSA PUBLIC KEY-----\n"));
        public.insert(serial, &key.public_pem()).unwrap();
    }
    for token in [&early, &late] {
        for keys in [&both, &public] {
            let accepted = verify::<ZoneClaims>(keys, token, now(), &Revocations::default());
            assert_eq!(accepted.unwrap().claims, zone);
        }
    }
    assert_eq!(refused(&old, &late), Refused::UnknownKey("2".into()));
    assert_eq!(mint(&public, &zone, now(), HOUR), Err(MintError::NoKey));
    assert_eq!(mint(&KeySet::default(), &zone, now(), HOUR), Err(MintError::NoKey));
}

#[test]
fn a_private_key_is_read_again_and_a_damaged_one_changes_nothing() {
    let pem = KEYS[0].private_pem();
    assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
    assert_eq!(SigningKey::from_pem(pem).unwrap().public_pem(), KEYS[0].public_pem());
    let mut keys = keys(&[1]);
    let (half, _) = pem.split_at(pem.len() / 2);
    assert_eq!(keys.insert(1, half), Err(InvalidKey::Malformed));
    assert_eq!(keys.insert(1, ""), Err(InvalidKey::Malformed));
    let damaged = crate::pem::print("RSA PUBLIC KEY", &[1, 2, 3]);
    assert_eq!(keys.insert(1, &damaged), Err(InvalidKey::Rejected));
    assert_eq!(keys.signing_serial(), Some(1));
    assert!(!format!("{keys:?}").contains("MII"));
}

#[test]
fn a_token_is_refused_for_each_reason() {
    let set = keys(&[1]);
    let header = json!({"alg": "RS256", "kid": "1", "typ": "JWT"});
    let body = json!({"Zone": "z1", "Scope": null, "exp": 1_795_460_658, "jti": "one"});
    let good = forged(&header, &body);
    let accept = |token: &str, revoked: &str| {
        verify::<ZoneClaims>(&set, token, now(), &Revocations::parse(revoked)).map(|token| token.id)
    };
    assert_eq!(accept(&good, "other, two"), Ok("one".into()));
    assert_eq!(accept(&good, "other, one ,"), Err(Refused::Revoked("one".into())));

    let parts: Vec<_> = good.split('.').collect();
    let unsigned = encode(&json!({"alg": "none"})).unwrap();
    for signature in ["", parts[2]] {
        let token = format!("{unsigned}.{}.{signature}", parts[1]);
        assert_eq!(refused(&set, &token), Refused::Algorithm("none".into()));
    }
    for algorithm in ["HS256", "RS512", "ES256", "rs256", ""] {
        let token = forged(&json!({"alg": algorithm, "kid": "1"}), &body);
        assert_eq!(refused(&set, &token), Refused::Algorithm(algorithm.into()));
    }
    for kid in ["2", "", "01", "+1", "one"] {
        let token = forged(&json!({"alg": "RS256", "kid": kid}), &body);
        assert_eq!(refused(&set, &token), Refused::UnknownKey(kid.into()));
    }
    let mut other = KeySet::default();
    other.insert(1, KEYS[1].private_pem()).unwrap();
    assert_eq!(refused(&other, &good), Refused::Signature);
    let changed = encode(&json!({"Zone": "z2", "Scope": null, "exp": 1_795_460_658})).unwrap();
    let token = format!("{}.{changed}.{}", parts[0], parts[2]);
    assert_eq!(refused(&set, &token), Refused::Signature);

    for token in ["", "a.b", "a.b.c", "..", "a", &format!("{good}.x"), &"a.".repeat(9000)] {
        assert_eq!(refused(&set, token), Refused::Malformed, "{token:?}");
    }
}

#[test]
fn the_time_of_a_token_is_kept() {
    let keys = keys(&[1]);
    let token = mint(&keys, &ZoneClaims::default(), now(), HOUR).unwrap();
    let at = |seconds| {
        let when = now() + SignedDuration::from_secs(seconds);
        verify::<ZoneClaims>(&keys, &token, when, &Revocations::default())
            .map(|token| token.expires)
    };
    let (from, end) =
        (now() - SignedDuration::from_secs(5), now() + SignedDuration::from_secs(3600));
    assert_eq!([at(-5), at(0), at(3599)], [Ok(end), Ok(end), Ok(end)]);
    assert_eq!(at(-6), Err(Refused::NotYetValid(from)));
    assert_eq!(at(3600), Err(Refused::Expired(end)));

    let header = json!({"alg": "RS256", "kid": "1"});
    for body in [
        json!({"Zone": "z1", "Scope": null}),
        json!({"Zone": "z1", "Scope": null, "exp": "soon"}),
        json!({"Zone": "z1", "Scope": null, "exp": i64::MAX}),
        json!({"Scope": null, "exp": 1_795_460_658}),
        json!({"Name": "ann", "Groups": null, "exp": 1_795_460_658}),
        json!(7),
    ] {
        assert_eq!(refused(&keys, &forged(&header, &body)), Refused::Claims, "{body}");
    }
}

#[test]
fn claims_admit_only_what_they_say() {
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let facts = DataplaneFacts {
        mesh: "default",
        name: "web-1",
        r#type: "dataplane",
        labels: &labels,
        workload: Some("web"),
    };
    assert_eq!(web().admits(&facts), Ok(()));
    let any = DataplaneClaims { mesh: "default".into(), ..DataplaneClaims::default() };
    assert_eq!(any.admits(&facts), Ok(()));

    let reason = |claims: DataplaneClaims, facts| claims.admits(&facts).unwrap_err().to_string();
    let mesh = DataplaneFacts { mesh: "shop", ..facts };
    assert_eq!(reason(web(), mesh), r#"the token is for mesh "default", not "shop""#);
    let name = DataplaneFacts { name: "web-11", ..facts };
    assert_eq!(reason(web(), name), r#"the token is for name "web-1", not "web-11""#);
    let ingress = DataplaneFacts { r#type: "ingress", ..facts };
    assert_eq!(reason(any, ingress), r#"the token is for type "dataplane", not "ingress""#);
    let workload = DataplaneFacts { workload: None, ..facts };
    assert_eq!(reason(web(), workload), r#"the token is for workload "web", not """#);
    let none = BTreeMap::new();
    let label = DataplaneFacts { labels: &none, ..facts };
    assert_eq!(
        reason(web(), label),
        r#"the token does not allow the value "" of the label "team""#
    );

    let zone = ZoneClaims { zone: "east".into(), scope: vec!["egress".into(), "cp".into()] };
    assert_eq!(zone.admits("east", "cp"), Ok(()));
    let reason = |zone_name, scope| zone.admits(zone_name, scope).unwrap_err().to_string();
    assert_eq!(reason("west", "cp"), r#"the token is for zone "east", not "west""#);
    assert_eq!(reason("east", "ingress"), r#"the token is for scope "egress,cp", not "ingress""#);
}
