//! Whose certificates count, as a value.

use super::{
    super::{
        plan::{Here, Member, Memory, View, plan},
        trust::{Claim, trust},
    },
    *,
};

/// The members of the mesh in east, of which one has this template.
fn members(template: &str) -> Vec<Member> {
    let spec = json!({"spiffeID": {"trustDomain": template}});
    let spec = mesh_identity::KIND.encode(&mesh_identity::KIND.from_json(spec).unwrap()).unwrap();
    let identity = mesh_identity::KIND
        .resource(proxy("identity"), Labels::default(), spec, "".into(), Peer::Global)
        .unwrap();
    let view = View {
        mesh: &shop(),
        exists: true,
        identities: vec![Arc::new(identity)],
        trusts: vec![],
        secrets: vec![],
        files: |_| Err("there are none".into()),
        relayed: None,
        now: start(),
    };
    let here = Here { zone: zone("east"), env: Env::Universal };
    plan(&here, &view, &mut Memory::default()).members
}

fn claims(claims: &[(Option<&str>, &str, &str)]) -> Vec<Arc<Claim>> {
    let claim = |(age, (zone, name, authority)): (usize, &(Option<&str>, &str, &str))| Claim {
        zone: zone.map(self::zone),
        domain: domain(name),
        authorities: [(*authority).to_owned()].into(),
        created: start() + Duration::from_secs(age as u64),
    };
    claims.iter().enumerate().map(claim).map(Arc::new).collect()
}

fn trusted(template: &str, said: &[(Option<&str>, &str, &str)]) -> Vec<(String, Vec<String>)> {
    let trust = trust(&zone("east"), &members(template), &claims(said));
    let domains = trust.0.into_iter();
    domains.map(|(domain, set)| (domain.to_string(), set.into_iter().collect())).collect()
}

fn expect(domains: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    domains.iter().map(|(domain, set)| ((*domain).to_owned(), texts(set))).collect()
}

#[test]
fn no_zone_speaks_for_the_trust_domain_of_another() {
    let said = [
        (Some("west"), "shop.east.local", "forged"),
        (Some("east"), "shop.east.local", "own"),
        (Some("north"), "shop.west.local", "early"),
        (Some("west"), "shop.west.local", "west"),
        (None, "shop.west.local", "global"),
    ];
    let expected =
        expect(&[("shop.east.local", &["own"]), ("shop.west.local", &["global", "west"])]);
    assert_eq!(trusted("shop.{{ .Zone }}.local", &said), expected);
    // Also not while the zone itself says nothing.
    assert_eq!(trusted("shop.{{ .Zone }}.local", &said[..1]), expect(&[]));
}

#[test]
fn a_trust_domain_that_the_template_makes_common_is_everybodys() {
    let said = [(Some("west"), "shop.local", "west"), (Some("east"), "shop.local", "own")];
    assert_eq!(trusted("shop.local", &said), expect(&[("shop.local", &["own", "west"])]));
}

#[test]
fn of_several_the_first_one_counts_where_no_template_decides() {
    let said = [
        (Some("west"), "corp", "first"),
        (Some("north"), "corp", "second"),
        (Some("west"), "corp", "third"),
    ];
    assert_eq!(trusted("{{ .Zone }}.local", &said), expect(&[("corp", &["first", "third"])]));
    let own = [said[0], said[1], (Some("east"), "corp", "own")];
    assert_eq!(trusted("{{ .Zone }}.local", &own), expect(&[("corp", &["own"])]));
}
