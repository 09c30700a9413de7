use super::*;
use crate::tests::{violations, written};
use ::xds::{
    draft::{At, Passthrough, Place, ProxyDraft, Speaks},
    policy::Policy,
};
use serde_json::json;

fn matches(places: serde_json::Value) -> Vec<String> {
    let found = violations(KIND.kind, json!({ "default": { "appendMatch": places } }));
    let short = |it: &String| it.replace("spec.default.appendMatch", "");
    found.iter().map(short).collect()
}

#[test]
fn every_violation_has_its_path() {
    for (places, expected) in [
        (
            json!([
                { "type": "Domain", "value": "api.example.com", "port": 443, "protocol": "tls" },
                { "type": "Domain", "value": "*.example.com", "protocol": "tls" },
                { "type": "Domain", "value": "*", "port": 80, "protocol": "http" },
                { "type": "IP", "value": "fd00::1", "port": 3306, "protocol": "mysql" },
                { "type": "CIDR", "value": "10.0.0.0/8" },
            ]),
            &[][..],
        ),
        (
            json!([
                { "type": "IP", "value": "10.0.0", "port": 0 },
                { "type": "CIDR", "value": "10.0.0.1", "protocol": "mysql" },
                { "type": "IP", "value": "10.0.0.1", "port": 65536 },
            ]),
            &[
                "[0].port: port must be in the range [1, 65535]",
                "[0].value: must be a valid IP address",
                "[1].port: port must be defined for Mysql protocol",
                "[1].value: must be a valid CIDR",
                "[2].port: port must be in the range [1, 65535]",
            ],
        ),
        (
            json!([
                { "type": "Domain", "value": "a.b" },
                { "type": "Domain", "value": "*.a.b", "protocol": "http2" },
                { "type": "Domain", "value": "*a.b", "port": 1, "protocol": "tls" },
                { "type": "Domain", "value": "*.*.b", "port": 2, "protocol": "tls" },
                { "type": "Domain", "value": "a b", "port": 3, "protocol": "grpc" },
                { "type": "Domain", "value": "", "port": 4, "protocol": "tls" },
            ]),
            &[
                "[0].protocol: protocol tcp is not supported for a domain",
                "[0].port: port must be defined for a domain, which the proxy resolves",
                "[1].port: port must be defined for wildcards of http2",
                "[2].value: must be a domain name, or one after '*.', or '*'",
                "[3].value: must be a domain name, or one after '*.', or '*'",
                "[4].value: must be a domain name, or one after '*.', or '*'",
                "[5].value: must be a domain name, or one after '*.', or '*'",
            ],
        ),
        (
            json!([{ "type": "Name", "value": "a", "protocol": "udp" }, { "type": "IP" }]),
            &[
                "[0].type: in body should be one of [Domain IP CIDR]",
                "[0].protocol: in body should be one of [tcp tls grpc http http2 mysql]",
                "[1].value: in body is required",
            ],
        ),
    ] {
        assert_eq!(matches(places.clone()), expected, "{places}");
    }
    assert_eq!(
        violations(
            KIND.kind,
            json!({
                "targetRef": { "kind": "Dataplane", "sectionName": "a" },
                "default": { "passthroughMode": "Some" },
            })
        ),
        ["spec.default.passthroughMode: in body should be one of [All Matched None]"]
    );
    assert_eq!(
        violations(KIND.kind, json!({ "targetRef": { "kind": "Dataplane", "sectionName": "a" } })),
        ["spec.targetRef.sectionName: can only be used with inbound policies"]
    );
}

#[test]
fn places_that_envoy_cannot_tell_apart_are_refused() {
    let place = |kind: &str, value: &str, port: u32, protocol: &str| json!({ "type": kind, "value": value, "port": port, "protocol": protocol });
    for (one, two, expected) in [
        (place("Domain", "a.b", 80, "http"), place("Domain", "c.d", 80, "http"), &[][..]),
        (place("Domain", "a.b", 80, "http"), place("Domain", "c.d", 81, "grpc"), &[]),
        (place("Domain", "a.b", 80, "tls"), place("Domain", "c.d", 80, "tls"), &[]),
        (place("IP", "10.0.0.1", 80, "tls"), place("IP", "10.0.0.1", 80, "tcp"), &[]),
        (
            place("Domain", "a.b", 80, "http"),
            place("Domain", "a.b", 80, "http"),
            &["[1].value: a.b is already defined for this port and protocol"],
        ),
        (
            place("Domain", "a.b", 80, "http"),
            place("Domain", "c.d", 80, "grpc"),
            &["[1].protocol: protocols http and grpc cannot be told apart here"],
        ),
        (
            place("IP", "10.0.0.1", 80, "tcp"),
            place("IP", "10.0.0.1", 80, "mysql"),
            &["[1].protocol: protocols tcp and mysql cannot be told apart here"],
        ),
        (
            place("CIDR", "10.0.0.0/8", 80, "tcp"),
            place("CIDR", "10.1.0.0/8", 80, "tcp"),
            &[r#"[1].value: "10.0.0.0/8" and "10.1.0.0/8" are the same"#],
        ),
        (
            place("IP", "fd00::1", 80, "tcp"),
            place("CIDR", "fd00:0::1/128", 80, "tcp"),
            &[r#"[1].value: "fd00::1" and "fd00:0::1/128" are the same"#],
        ),
    ] {
        assert_eq!(matches(json!([one, two])), expected, "{one} {two}");
    }
    let anywhere = json!([
        { "type": "IP", "value": "10.0.0.1", "protocol": "http" },
        { "type": "IP", "value": "10.0.0.1", "protocol": "http2" },
    ]);
    let reason = "[1].protocol: protocols http and http2 cannot be told apart here";
    assert_eq!(matches(anywhere), [reason]);
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "targetRef": { "kind": "Mesh" },
        "default": {
            "passthroughMode": "Matched",
            "appendMatch": [
                { "type": "Domain", "value": "api.example.com", "port": 443, "protocol": "tls" },
                { "type": "IP", "value": "10.0.0.1", "protocol": "tcp" },
                { "type": "CIDR", "value": "10.0.0.0/8", "port": 80, "protocol": "http" },
            ],
        },
    });
    assert_eq!(written(KIND.kind, spec.clone()), spec);
}

#[test]
fn bytes_are_spoken_unless_it_is_said() {
    let spec = json!({ "default": { "appendMatch": [{ "type": "IP", "value": "10.0.0.1" }] } });
    let place = json!({ "type": "IP", "value": "10.0.0.1", "protocol": "tcp" });
    assert_eq!(written(KIND.kind, spec), json!({ "default": { "appendMatch": [place] } }));
}

fn draft(confs: &[serde_json::Value]) -> Passthrough {
    // As policies are merged: what later ones append comes last.
    let mut all: Conf = Conf::default();
    for conf in confs {
        let Conf { passthrough_mode, append_match } = serde_json::from_value(conf.clone()).unwrap();
        all.passthrough_mode = passthrough_mode.or(all.passthrough_mode);
        all.append_match.get_or_insert_default().extend(append_match.unwrap_or_default());
    }
    let mut draft = ProxyDraft::default();
    MeshPassthrough::shape_proxy(&all, &mut draft);
    draft.passthrough
}

fn place(port: Option<u16>, at: At, speaks: Speaks) -> Place {
    Place { port, at, speaks }
}

#[test]
fn a_policy_that_says_nothing_lets_nothing_through_and_one_of_all_everything() {
    let listed = json!([{ "type": "IP", "value": "10.0.0.1" }]);
    let nothing = Passthrough::Places([].into());
    assert_eq!(draft(&[json!({})]), nothing);
    assert_eq!(draft(&[json!({ "passthroughMode": "None", "appendMatch": listed })]), nothing);
    let all = json!({ "passthroughMode": "All", "appendMatch": listed });
    assert_eq!(draft(&[all]), Passthrough::Everything);
}

#[test]
fn places_are_told_apart_as_their_protocol_can() {
    let network = |text: &str| At::Network(text.parse().unwrap());
    let conf = json!({ "appendMatch": [
        { "type": "CIDR", "value": "10.1.2.3/8", "port": 53 },
        { "type": "IP", "value": "fd00::1", "protocol": "tls" },
        { "type": "IP", "value": "10.0.0.1", "port": 3306, "protocol": "mysql" },
        { "type": "Domain", "value": "API.example.com.", "port": 443, "protocol": "tls" },
        { "type": "Domain", "value": "*.Example.com", "protocol": "tls" },
        { "type": "Domain", "value": "*", "port": 80, "protocol": "grpc" },
    ] });
    let expected = [
        place(Some(53), network("10.0.0.0/8"), Speaks::Bytes),
        place(None, network("fd00::1/128"), Speaks::Tls),
        place(Some(3306), network("10.0.0.1/32"), Speaks::MySql),
        place(Some(443), At::Host("api.example.com".into()), Speaks::Tls),
        place(None, At::Under("example.com".into()), Speaks::Tls),
        place(Some(80), At::Anywhere, Speaks::Requests(::xds::Protocol::Grpc)),
    ];
    assert_eq!(draft(&[conf]), Passthrough::Places(expected.into()));
}

/// Each policy is checked alone; together they may say what Envoy cannot tell apart.
#[test]
fn of_two_policies_about_one_place_the_later_one_counts() {
    let said = |protocol: &str| {
        json!({ "appendMatch": [
        { "type": "IP", "value": "10.0.0.1", "port": 80, "protocol": protocol },
    ] })
    };
    let at = At::Network("10.0.0.1/32".parse().unwrap());
    let one = |speaks| Passthrough::Places([place(Some(80), at.clone(), speaks)].into());
    assert_eq!(draft(&[said("tcp"), said("mysql")]), one(Speaks::MySql));
    let http2 = Speaks::Requests(::xds::Protocol::Http2);
    assert_eq!(draft(&[said("http"), said("http2")]), one(http2));
    let Passthrough::Places(both) = draft(&[said("tls"), said("tcp")]) else { panic!() };
    assert_eq!(both.len(), 2);
}

/// What came from elsewhere was not checked here.
#[test]
fn what_cannot_be_told_apart_at_all_is_left_out() {
    let conf = json!({ "appendMatch": [
        { "type": "IP", "value": "10.0.0" },
        { "type": "IP", "value": "10.0.0.1", "port": 65536 },
        { "type": "Domain", "value": "a.b", "port": 1 },
        { "type": "Domain", "value": "a.b", "protocol": "tls" },
        { "type": "Domain", "value": "*.a.b", "protocol": "http" },
        { "type": "Domain", "value": "a b", "port": 1, "protocol": "http" },
    ] });
    assert_eq!(draft(&[conf]), Passthrough::Places([].into()));
}
