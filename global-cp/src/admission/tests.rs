use super::*;
use identity::{
    tls::{Fingerprint, Peer},
    token::{KeySet, SigningKey, mint},
};
use jiff::Timestamp;
use kds::{dialect::Dialect, metadata::CLIENT_ID};
use kinds::{global_secret, labels::Place};
use resource::AnySpec;
use std::time::Duration;
use store::{Expected, Kinds, Local, Memory};
use tokio::{task::JoinSet, time::timeout};
use tonic::metadata::MetadataMap;

const NOW: &str = "2026-11-24T12:00:00Z";
const PATIENCE: Duration = Duration::from_secs(60);

struct Gate {
    gate: Arc<Gatekeeper<Local>>,
    author: Author,
    key: SigningKey,
    keys: KeySet,
    _tasks: JoinSet<()>,
}

impl Gate {
    async fn new(plain: &[&str]) -> Self {
        let kinds = Kinds { list: kinds::all().collect(), peer: resource::Peer::Zone };
        let clock = Clock::since(NOW.parse().unwrap());
        let (store, writer) = store::open(Memory::new(1), kinds.clone(), clock.clone()).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        let author = Author { kinds: Arc::new(kinds), place: Place::Global };
        let plain = plain.iter().map(|zone| (*zone).to_owned()).collect();
        let gate = Arc::new(Gatekeeper::new(store, author.clone(), plain, clock));
        let key = SigningKey::generate().unwrap();
        let mut keys = KeySet::default();
        keys.insert(1, key.private_pem()).unwrap();
        let gate = Self { gate, author, key, keys, _tasks: tasks };
        gate.secret(&format!("{ZONE_KEYS}1"), gate.key.private_pem()).await;
        gate
    }

    async fn secret(&self, name: &str, text: &str) {
        let spec: AnySpec = Arc::new(global_secret::GlobalSecret::of(text.as_bytes()));
        let key = ResourceKey::global(name);
        let kind = global_secret::KIND;
        let item = self.author.write(kind, key, &spec, Expected::Anything).unwrap();
        self.gate.backend.commit(vec![item]).await.unwrap();
    }

    fn token(&self, zone: &str, scope: &str) -> String {
        let claims = ZoneClaims { zone: zone.into(), scope: vec![scope.into()] };
        let now: Timestamp = NOW.parse().unwrap();
        mint(&self.keys, &claims, now, Duration::from_secs(3600)).unwrap()
    }

    fn valid_for(&self, zone: &str, seconds: u64) -> String {
        token(&self.keys, zone, seconds)
    }

    /// Withdraws until the set is dropped.
    async fn watch(&self) -> JoinSet<()> {
        let (watching, mut tasks) = (self.gate.clone(), JoinSet::new());
        let feed = watching.follow().await.unwrap();
        tasks.spawn(async { watching.withdraw(feed).await.unwrap() });
        tasks
    }

    async fn admit(
        &self,
        client_id: &str,
        authorization: Option<&str>,
        peer: Option<&Peer>,
    ) -> Result<Admitted, Refused> {
        let mut metadata = MetadataMap::new();
        metadata.insert(CLIENT_ID, client_id.parse().unwrap());
        if let Some(authorization) = authorization {
            metadata.insert(AUTHORIZATION, authorization.parse().unwrap());
        }
        let presented = Presented { metadata: &metadata, peer, dialect: Dialect::Plain };
        self.gate.admit(presented).await
    }
}

fn token(keys: &KeySet, zone: &str, seconds: u64) -> String {
    let claims = ZoneClaims { zone: zone.into(), scope: vec!["cp".into()] };
    mint(keys, &claims, NOW.parse().unwrap(), Duration::from_secs(seconds)).unwrap()
}

fn name(admitted: Result<Admitted, Refused>) -> Result<String, Refused> {
    admitted.map(|admitted| admitted.zone.to_string())
}

fn peer(spiffe_id: Option<&str>, dns_name: Option<&str>) -> Peer {
    let spiffe_id: Vec<&str> = spiffe_id.into_iter().collect();
    let dns_name: Vec<&str> = dns_name.into_iter().collect();
    names(&spiffe_id, &dns_name)
}

fn names(spiffe_ids: &[&str], dns_names: &[&str]) -> Peer {
    Peer {
        spiffe_ids: spiffe_ids.iter().map(|id| id.parse().unwrap()).collect(),
        dns_names: dns_names.iter().map(|&name| name.into()).collect(),
        ..Peer::unknown(std::net::SocketAddr::from(([127, 0, 0, 1], 1)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_says_who_a_zone_is() {
    let gate = Gate::new(&[]).await;
    let bearer = |token: String| format!("Bearer {token}");
    let east = bearer(gate.token("east", "cp"));
    assert_eq!(name(gate.admit("east", Some(&east), None).await), Ok("east".into()));
    let south = bearer(gate.token("south", "cp"));
    let other = r#"client-id is "north", the credential is of "south""#;
    let refused = name(gate.admit("north", Some(&south), None).await);
    assert_eq!(refused, Err(Refused::Denied(other.into())));
    let row =
        gate.author.get(&gate.gate.backend.reader(), zone::KIND, &ResourceKey::global("south"));
    assert!(row.is_none(), "nothing is made for a zone that was not let in");
    let ingress = bearer(gate.token("east", "ingress"));
    let wrong = Refused::Denied(r#"the token is for scope "ingress", not "cp""#.into());
    assert_eq!(name(gate.admit("east", Some(&ingress), None).await), Err(wrong));
    let unusual = bearer(gate.token("East.1", "cp"));
    let refused = name(gate.admit("East.1", Some(&unusual), None).await);
    assert!(matches!(refused, Err(Refused::Denied(_))), "{refused:?}");
    for bad in ["Bearer nope", "Basic eDp5", "x", ""] {
        let refused = name(gate.admit("east", Some(bad), None).await);
        assert!(matches!(refused, Err(Refused::Unauthenticated(_))), "{bad}: {refused:?}");
    }
    let none = "neither a zone token nor a client certificate was presented";
    let refused = name(gate.admit("east", None, None).await);
    assert_eq!(refused, Err(Refused::Unauthenticated(none.into())));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_says_who_a_zone_is() {
    let gate = Gate::new(&[]).await;
    let admit = async |zone: &str, peer: &Peer| name(gate.admit(zone, None, Some(peer)).await);
    let by_id = peer(Some("spiffe://example.org/zone/east"), None);
    let by_name = peer(None, Some("east"));
    assert_eq!(admit("east", &by_id).await, Ok("east".into()));
    assert_eq!(admit("east", &by_name).await, Ok("east".into()));
    for other in [by_id, by_name, peer(Some("spiffe://example.org/zone/west/x"), None)] {
        let refused = Refused::Denied(r#"the client certificate is not of zone "west""#.into());
        assert_eq!(admit("west", &other).await, Err(refused));
    }
    let nobody = admit("east", &peer(None, None)).await;
    assert!(matches!(nobody, Err(Refused::Unauthenticated(_))), "{nobody:?}");
}

#[tokio::test(start_paused = true)]
async fn plain_zones_are_those_that_a_setting_names() {
    let gate = Gate::new(&["east"]).await;
    assert_eq!(name(gate.admit("east", None, None).await), Ok("east".into()));
    let refused = name(gate.admit("west", None, None).await);
    assert!(matches!(refused, Err(Refused::Unauthenticated(_))), "{refused:?}");
    let all = Gate::new(&["*"]).await;
    assert_eq!(name(all.admit("west", None, None).await), Ok("west".into()));
    let unusual = name(all.admit("a.b", None, None).await);
    assert!(matches!(unusual, Err(Refused::Denied(_))), "{unusual:?}");
}

#[tokio::test(start_paused = true)]
async fn names_that_zones_make_up_fill_nothing_and_keep_nobody_out_who_is_known() {
    let gate = Gate::new(&["*", "north"]).await;
    let admit = async |zone: &str| name(gate.admit(zone, None, None).await);
    for i in 0..INVENTED {
        assert!(admit(&format!("zone-{i}")).await.is_ok());
    }
    let full = "1024 zones came that only '*' in kds.plainZones lets in; name this one there, or \
                write its Zone";
    assert_eq!(admit("one-more").await, Err(Refused::Denied(full.into())));
    let zones = || gate.gate.backend.reader().rows(gate.author.id(zone::KIND)).1.len();
    assert_eq!((zones(), gate.gate.guests.zones()), (INVENTED, INVENTED), "nothing is kept of it");
    assert_eq!(admit("zone-7").await, Ok("zone-7".into()), "who is there may come back");
    assert_eq!(admit("north").await, Ok("north".into()), "a setting names it");
    let token = format!("Bearer {}", gate.token("east", "cp"));
    let east = gate.admit("east", Some(&token), None).await;
    assert_eq!(name(east), Ok("east".into()), "a token names it");
    // A Zone that a user writes is none that was made up.
    let spec: AnySpec = zone::KIND.from_json(json!({"enabled": true})).unwrap();
    let key = ResourceKey::global("zone-7");
    let item = gate.author.write(zone::KIND, key, &spec, Expected::Anything).unwrap();
    gate.gate.backend.commit(vec![item]).await.unwrap();
    assert_eq!(admit("one-more").await, Ok("one-more".into()));
}

#[tokio::test(start_paused = true)]
async fn what_a_zone_showed_last_is_listed_with_its_end() {
    use api::expiry::{Holder as _, Sort};
    let gate = Gate::new(&["plain"]).await;
    gate.admit("plain", None, None).await.unwrap();
    for seconds in [60, 7200] {
        let token = format!("Bearer {}", gate.valid_for("east", seconds));
        gate.admit("east", Some(&token), None).await.unwrap();
    }
    let expires = NOW.parse::<Timestamp>().ok().map(|now| now + Duration::from_secs(300));
    let west = Peer { expires, ..peer(None, Some("west")) };
    gate.admit("west", None, Some(&west)).await.unwrap();
    let entries = gate.gate.entries(Timestamp::MAX);
    let entries: Vec<_> =
        entries.iter().map(|it| (it.sort, &*it.name, it.not_after.to_string())).collect();
    assert_eq!(
        entries,
        [
            (Sort::ZoneToken, "east", "2026-11-24T14:00:00Z".to_owned()),
            (Sort::ZoneCertificate, "west", "2026-11-24T12:05:00Z".to_owned()),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_bound_to_one_zone() {
    let gate = Gate::new(&["*"]).await;
    let admit = async |peer: &Peer| name(gate.admit("east", None, Some(peer)).await);
    let [east, west] = ["spiffe://a.example/zone/east", "spiffe://a.example/zone/west"];
    for one in [
        names(&[east], &[]),
        names(&[], &["east", "east"]),
        names(&[east], &["east"]),
        names(&[east], &["east.example.org", "*.example.org"]),
    ] {
        assert_eq!(admit(&one).await, Ok("east".into()), "{one:?}");
    }
    let ids = "the client certificate has 2 SPIFFE IDs, and not one";
    let several = "the client certificate names several zones: east, west";
    let other = r#"the client certificate is not of zone "east""#;
    for (peer, reason) in [
        (names(&[east, west], &[]), ids),
        (names(&[east, "spiffe://a.example/workload/web"], &[]), ids),
        (names(&[], &["west", "east"]), several),
        (names(&[east], &["west"]), several),
        (names(&[west], &["east"]), several),
        (names(&[west], &[]), other),
        (names(&["spiffe://a.example/workload/east"], &[]), other),
        (names(&["spiffe://a.example/zone/east/x"], &[]), other),
        (names(&["spiffe://a.example/x/zone/east"], &[]), other),
        (names(&[], &["east.example.org"]), other),
    ] {
        // Not even where a setting lets everybody in: what is shown must be true.
        assert_eq!(admit(&peer).await, Err(Refused::Denied(reason.into())), "{peer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_token_but_a_zones_own_lets_it_in() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let gate = Gate::new(&[]).await;
    let good = gate.token("east", "cp");
    let [_, body, signature] = <[&str; 3]>::try_from(good.split('.').collect::<Vec<_>>()).unwrap();
    let other_key = SigningKey::generate().unwrap();
    let claims = ZoneClaims { zone: "east".into(), scope: vec!["cp".into()] };
    let now: Timestamp = NOW.parse().unwrap();
    let by = |serial, pem: &str, from| {
        let mut keys = KeySet::default();
        keys.insert(serial, pem).unwrap();
        mint(&keys, &claims, from, Duration::from_secs(60)).unwrap()
    };
    let header = |header: serde_json::Value| {
        format!("{}.{body}.{signature}", URL_SAFE_NO_PAD.encode(header.to_string()))
    };
    let user = identity::token::UserClaims { name: "ann".into(), groups: vec![] };
    let user = mint(&gate.keys, &user, now, Duration::from_secs(60)).unwrap();
    for (token, reason) in [
        (by(1, other_key.private_pem(), now), "the token's signature is wrong"),
        (by(2, other_key.private_pem(), now), r#"no key has the token's serial number "2""#),
        (by(1, gate.key.private_pem(), now - Duration::from_secs(61)), "the token expired at"),
        (
            by(1, gate.key.private_pem(), now + Duration::from_secs(61)),
            "the token is not valid before",
        ),
        (header(json!({"alg": "none", "kid": "1"})), r#""none""#),
        (format!("{}..", header(json!({"alg": "none"}))), "the token"),
        // The public key is no secret: it must not be taken for one.
        (header(json!({"alg": "HS256", "kid": "1"})), r#""HS256""#),
        (header(json!({"alg": "RS384", "kid": "1"})), r#""RS384""#),
        (user, "the token has not the claims of its sort"),
    ] {
        let refused = gate.admit("east", Some(&format!("Bearer {token}")), None).await;
        let Err(Refused::Unauthenticated(refused)) = name(refused) else {
            panic!("let in, or refused otherwise, instead of {reason:?}");
        };
        assert!(refused.contains(reason), "{refused:?} has not {reason:?}");
    }
    // Neither a certificate nor a setting makes up for a bad token.
    let peer = peer(Some("spiffe://a.example/zone/east"), None);
    let refused = name(gate.admit("east", Some("Bearer x"), Some(&peer)).await);
    assert!(matches!(refused, Err(Refused::Unauthenticated(_))), "{refused:?}");
    let mut twice = MetadataMap::new();
    twice.insert(CLIENT_ID, "east".parse().unwrap());
    for _ in 0..2 {
        twice.append(AUTHORIZATION, format!("Bearer {good}").parse().unwrap());
    }
    let presented = Presented { metadata: &twice, peer: None, dialect: Dialect::Plain };
    let refused = name(gate.gate.admit(presented).await);
    let reason = "authorization is given more than once";
    assert_eq!(refused, Err(Refused::Unauthenticated(reason.into())));
}

#[tokio::test(start_paused = true)]
async fn what_a_credential_opened_ends_with_it() {
    let gate = Gate::new(&["plain"]).await;
    let _watching = gate.watch().await;
    let short = format!("Bearer {}", gate.valid_for("east", 600));
    let long = format!("Bearer {}", gate.valid_for("east", 3600));
    let mut peer = peer(None, Some("west"));
    peer.expires = Some(NOW.parse::<Timestamp>().unwrap() + Duration::from_secs(1200));
    // The later one first: the wait must become shorter.
    let later = gate.admit("east", Some(&long), None).await.unwrap();
    let certified = gate.admit("west", None, Some(&peer)).await.unwrap();
    let sooner = gate.admit("east", Some(&short), None).await.unwrap();
    let plain = gate.admit("plain", None, None).await.unwrap();
    let begun = tokio::time::Instant::now();
    let after = async |admitted: &Admitted| {
        timeout(PATIENCE * 100, admitted.withdrawn.cancelled()).await.unwrap();
        begun.elapsed().as_secs()
    };
    assert_eq!(after(&sooner).await, 600);
    assert!(!certified.withdrawn.is_cancelled());
    assert_eq!(after(&certified).await, 1200);
    // The connection is still open, and its certificate was verified once.
    let refused = name(gate.admit("west", None, Some(&peer)).await);
    let reason = "the client certificate expired since the connection was made";
    assert_eq!(refused, Err(Refused::Unauthenticated(reason.into())));
    assert!(!later.withdrawn.is_cancelled());
    assert_eq!(after(&later).await, 3600);
    assert!(!plain.withdrawn.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn keys_are_exchanged_and_nobody_notices() {
    let gate = Gate::new(&[]).await;
    let _watching = gate.watch().await;
    let old = format!("Bearer {}", gate.token("east", "cp"));
    let east = gate.admit("east", Some(&old), None).await.unwrap();
    let second = SigningKey::generate().unwrap();
    gate.secret(&format!("{ZONE_KEYS}2"), second.private_pem()).await;
    let mut keys = KeySet::default();
    keys.insert(2, second.private_pem()).unwrap();
    let new = format!("Bearer {}", token(&keys, "west", 3600));
    // Admitted by the new key, so the gate has seen it; the old token still counts.
    let west = gate.admit("west", Some(&new), None).await.unwrap();
    let again = gate.admit("east", Some(&old), None).await.unwrap();
    assert!(!east.withdrawn.is_cancelled() && !again.withdrawn.is_cancelled());

    let key = ResourceKey::global(&format!("{ZONE_KEYS}1"));
    let gone = gate.author.delete(global_secret::KIND, key);
    gate.gate.backend.commit(vec![gone]).await.unwrap();
    timeout(PATIENCE, east.withdrawn.cancelled()).await.unwrap();
    assert!(again.withdrawn.is_cancelled() && !west.withdrawn.is_cancelled());
    let refused = name(gate.admit("east", Some(&old), None).await);
    assert!(matches!(refused, Err(Refused::Unauthenticated(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_zone_stays_out_until_somebody_makes_it_again() {
    let gate = Gate::new(&[]).await;
    let _watching = gate.watch().await;
    let token = format!("Bearer {}", gate.token("east", "cp"));
    let east = gate.admit("east", Some(&token), None).await.unwrap();
    let key = ResourceKey::global("east");
    let removed = zones::removed_row("east");
    let delete = gate.author.delete(zone::KIND, key.clone());
    let remember = gate.author.remember(&removed, "removed").unwrap();
    gate.gate.backend.commit(vec![delete, remember]).await.unwrap();
    timeout(PATIENCE, east.withdrawn.cancelled()).await.unwrap();
    let reason = "zone east was deleted; it may come back when somebody creates it";
    for _ in 0..2 {
        let refused = name(gate.admit("east", Some(&token), None).await);
        assert_eq!(refused, Err(Refused::Denied(reason.into())));
    }
    let create = gate.author.create(zone::KIND, key, json!({"enabled": true})).unwrap();
    let allow = gate.author.forget(&removed);
    gate.gate.backend.commit(vec![create, allow]).await.unwrap();
    let back = gate.admit("east", Some(&token), None).await.unwrap();
    assert!(!back.withdrawn.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_and_a_deleted_zone_end_what_is_open() {
    let gate = Gate::new(&["plain"]).await;
    let _watching = gate.watch().await;
    let token = format!("Bearer {}", gate.token("east", "cp"));
    let other = format!("Bearer {}", gate.token("east", "cp"));
    let spared = gate.admit("east", Some(&other), None).await.unwrap();
    let [east, plain] = [
        gate.admit("east", Some(&token), None).await.unwrap(),
        gate.admit("plain", None, None).await.unwrap(),
    ];
    let delete = gate.author.delete(zone::KIND, ResourceKey::global("plain"));
    gate.gate.backend.commit(vec![delete]).await.unwrap();
    timeout(PATIENCE, plain.withdrawn.cancelled()).await.unwrap();
    assert!(!east.withdrawn.is_cancelled());

    let body = token.split('.').nth(1).unwrap();
    let body = {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        URL_SAFE_NO_PAD.decode(body).unwrap()
    };
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    gate.secret(REVOCATIONS, body["jti"].as_str().unwrap()).await;
    timeout(PATIENCE, east.withdrawn.cancelled()).await.unwrap();
    assert!(!spared.withdrawn.is_cancelled(), "only what the list names");
    let refused = name(gate.admit("east", Some(&token), None).await);
    assert!(matches!(refused, Err(Refused::Unauthenticated(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_revoked_certificate_ends_what_it_opened_and_opens_nothing() {
    let gate = Gate::new(&["*"]).await;
    let _watching = gate.watch().await;
    let named =
        |der: &[u8]| Peer { fingerprint: Some(Fingerprint::of(der)), ..peer(None, Some("east")) };
    let (one, other) = (named(b"one"), named(b"other"));
    let ended = gate.admit("east", None, Some(&one)).await.unwrap();
    let spared = gate.admit("east", None, Some(&other)).await.unwrap();
    let fingerprint = Fingerprint::of(b"one").to_string();
    let list = format!("nonsense, {}\n", fingerprint.to_uppercase());
    gate.secret(CERTIFICATE_REVOCATIONS, &list).await;
    timeout(PATIENCE, ended.withdrawn.cancelled()).await.unwrap();
    assert!(!spared.withdrawn.is_cancelled(), "only what the list names");
    let refused = name(gate.admit("east", None, Some(&one)).await);
    let reason = format!("the client certificate {fingerprint} is revoked");
    assert_eq!(refused, Err(Refused::Unauthenticated(reason)), "no setting makes up for it");
    assert_eq!(name(gate.admit("east", None, Some(&other)).await), Ok("east".into()));
    gate.secret(CERTIFICATE_REVOCATIONS, "").await;
    assert_eq!(name(gate.admit("east", None, Some(&one)).await), Ok("east".into()));
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_shows_ever_new_tokens_fills_nothing() {
    let gate = Gate::new(&[]).await;
    let admit = async |zone: &str| {
        let token = format!("Bearer {}", gate.token(zone, "cp"));
        (gate.admit(zone, Some(&token), None).await.unwrap(), token)
    };
    let (west, _) = admit("west").await;
    let (first, token) = admit("east").await;
    let (second, _) = admit("east").await;
    let mut others = Vec::new();
    for _ in 2..guests::CREDENTIALS {
        others.push(admit("east").await.0);
    }
    // Whoever is still in use shows its token again.
    let again = gate.admit("east", Some(&token), None).await.unwrap();
    assert!(!second.withdrawn.is_cancelled(), "as many as there may be");
    others.push(admit("east").await.0);
    assert!(second.withdrawn.is_cancelled(), "the one shown least recently");
    for goes_on in others.iter().chain([&first, &again, &west]) {
        assert!(!goes_on.withdrawn.is_cancelled());
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_comes_between_proof_and_admission_counts() {
    let gate = Gate::new(&[]).await;
    let token = format!("Bearer {}", gate.token("east", "cp"));
    let mut metadata = MetadataMap::new();
    metadata.insert(CLIENT_ID, "east".parse().unwrap());
    metadata.insert(AUTHORIZATION, token.parse().unwrap());
    let presented = Presented { metadata: &metadata, peer: None, dialect: Dialect::Plain };
    let [early, late] = [(); 2].map(|()| gate.gate.who(&presented).unwrap());
    let admitted = gate.gate.let_in(early).await.unwrap();
    // Whoever withdraws has looked already, and found nobody.
    gate.gate.guests.dismiss(&admitted.zone);
    let gone =
        gate.author.delete(global_secret::KIND, ResourceKey::global(&format!("{ZONE_KEYS}1")));
    gate.gate.backend.commit(vec![gone]).await.unwrap();
    let refused = name(gate.gate.let_in(late).await);
    assert!(matches!(refused, Err(Refused::Unauthenticated(_))), "{refused:?}");
}
