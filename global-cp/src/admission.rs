//! Which zones may speak.
//!
//! A zone shows who it is by a zone token with the scope `cp`, or by a client certificate, whose
//! authority is set by `tls.clientCaFile`: with a SPIFFE ID whose path is `/zone/<name>`, or with
//! its name as a DNS name. What it says about itself counts for nothing else.

use crate::zones;
use api::{
    author::Author,
    keys::{TokenKeys, ZONE_KEYS},
};
use daemon::Clock;
use identity::token::ZoneClaims;
use kds::{
    apply::Visibility,
    global::{Admission, Admitted, Presented, Refused},
    metadata::AUTHORIZATION,
};
use kinds::zone::{self, Zone};
use parking_lot::Mutex;
use resource::{ResourceKey, ZoneName};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use store::{
    Backend,
    view::{Closed, Feed, KindSet},
};
use tokio_util::sync::CancellationToken;

/// The secret that lists the IDs of zone tokens that are not accepted any more.
const REVOCATIONS: &str = "zone-token-revocations";
/// What a token must allow.
const SCOPE: &str = "cp";

/// Decides who may speak.
pub(crate) struct Gatekeeper<B> {
    backend: B,
    author: Author,
    keys: TokenKeys,
    clock: Clock,
    plain: Vec<String>,
    /// Ends what a zone was admitted to.
    admitted: Mutex<BTreeMap<ZoneName, CancellationToken>>,
}

impl<B: Backend> Gatekeeper<B> {
    pub(crate) fn new(backend: B, author: Author, plain: Vec<String>, clock: Clock) -> Self {
        let keys = TokenKeys::global(&author.kinds, ZONE_KEYS, REVOCATIONS);
        Self { backend, author, keys, clock, plain, admitted: Mutex::default() }
    }

    /// The zone that `presented` proves to be.
    fn who(&self, presented: &Presented<'_>) -> Result<ZoneName, Refused> {
        let (metadata, claimed) = (presented.metadata, presented.claimed());
        let named = |name: &str| {
            ZoneName::new(name).map_err(|error| Refused::Denied(format!("zone: {error}")))
        };
        if let Some(header) = metadata.get(AUTHORIZATION) {
            return named(&self.by_token(header.to_str().unwrap_or_default())?);
        }
        if let Some(peer) = presented.peer {
            let path = format!("/zone/{claimed}");
            let shown = !peer.spiffe_ids.is_empty() || !peer.dns_names.is_empty();
            let proves = peer.spiffe_ids.iter().any(|id| id.path() == path)
                || peer.dns_names.iter().any(|name| name == claimed);
            if proves {
                return named(claimed);
            }
            if shown {
                let reason = format!("the client certificate is not of zone {claimed:?}");
                return Err(Refused::Denied(reason));
            }
        }
        if self.plain.iter().any(|plain| plain == claimed || plain == "*") {
            return named(claimed);
        }
        let reason = "neither a zone token nor a client certificate was presented";
        Err(Refused::Unauthenticated(reason.into()))
    }

    fn by_token(&self, header: &str) -> Result<String, Refused> {
        let token =
            header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else {
            return Err(Refused::Unauthenticated("authorization must be a bearer token".into()));
        };
        let verified =
            self.keys.verify::<ZoneClaims>(&self.backend.reader(), &self.clock, token.trim());
        let claims = verified.map_err(|reason| Refused::Unauthenticated(reason.to_string()))?;
        claims.admits(&claims.zone, SCOPE).map_err(|reason| Refused::Denied(reason.to_string()))?;
        Ok(claims.zone)
    }

    /// Makes the Zone when it comes for the first time.
    async fn enter(&self, zone: &ZoneName) -> Result<(), Refused> {
        let reader = self.backend.reader();
        let key = ResourceKey::global(zone.as_str());
        if self.author.remembered(&reader, &zones::removed_row(zone.as_str())).is_some() {
            let reason =
                format!("zone {zone} was deleted; it may come back when somebody creates it");
            return Err(Refused::Denied(reason));
        }
        if self.author.get(&reader, zone::KIND, &key).is_some() {
            return Ok(());
        }
        let unavailable = |error: &dyn std::error::Error| {
            tracing::error!(%zone, %error, "the Zone of a new zone cannot be stored");
            Refused::Unavailable("the store is not available".into())
        };
        let item = self.author.create(zone::KIND, key, json!({"enabled": true}));
        let item = item.map_err(|error| unavailable(&error))?;
        let committed =
            self.backend.commit(vec![item]).await.map_err(|error| unavailable(&error))?;
        self.backend.wait_for(committed.revision).await.map_err(|error| unavailable(&error))
    }

    /// Follows what decides about admissions, from now on: to be called before the first one.
    pub(crate) async fn follow(&self) -> Result<Feed, Closed> {
        let kinds = [zone::KIND, kinds::global_secret::KIND].map(|kind| self.author.id(kind));
        let mut feed = Feed::of(&self.backend.reader(), KindSet::from_iter(kinds));
        // What there is already is looked at when somebody is admitted.
        feed.next().await?;
        Ok(feed)
    }

    /// Ends the streams of zones that are gone, and all when keys or revocations change: who may
    /// still speak comes back at once.
    pub(crate) async fn withdraw(self: Arc<Self>, mut feed: Feed) -> Result<(), Closed> {
        let zones = self.author.id(zone::KIND);
        loop {
            for update in feed.next().await? {
                let name = &update.key.name;
                if update.kind == zones {
                    let gone = update.now.is_none();
                    self.cancel(|zone| gone && zone.as_str() == &**name);
                } else if name.starts_with(ZONE_KEYS) || &**name == REVOCATIONS {
                    self.cancel(|_| true);
                }
            }
        }
    }

    fn cancel(&self, which: impl Fn(&ZoneName) -> bool) {
        self.admitted.lock().retain(|zone, token| {
            let cancelled = which(zone);
            if cancelled {
                token.cancel();
            }
            !cancelled
        });
    }
}

#[tonic::async_trait]
impl<B: Backend + 'static> Admission for Gatekeeper<B> {
    async fn admit(&self, presented: Presented<'_>) -> Result<Admitted, Refused> {
        let zone = self.who(&presented)?;
        // Before anything is made for it.
        presented.check_name(&zone)?;
        // Before the look at what there is, so that a deletion in between ends it.
        let withdrawn = self.admitted.lock().entry(zone.clone()).or_default().clone();
        self.enter(&zone).await?;
        Ok(Admitted { zone, withdrawn })
    }

    fn visibility(&self, zone: &ZoneName) -> Visibility {
        let key = ResourceKey::global(zone.as_str());
        let row = self.author.get(&self.backend.reader(), zone::KIND, &key);
        let zone = row.and_then(|row| kinds::read::<Zone>(&row).ok());
        if zone.is_none_or(|zone| zone.is_enabled()) {
            Visibility::Shown
        } else {
            Visibility::Hidden
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::{
        tls::Peer,
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
        keys: KeySet,
        _tasks: JoinSet<()>,
    }

    impl Gate {
        async fn new(plain: &[&str]) -> Self {
            let kinds = Kinds { list: kinds::all().collect(), peer: resource::Peer::Zone };
            let clock = Clock::since(NOW.parse().unwrap());
            let (store, writer) =
                store::open(Memory::new(1), kinds.clone(), clock.clone()).unwrap();
            let mut tasks = JoinSet::new();
            tasks.spawn(async { writer.run().await.unwrap() });
            let author = Author { kinds: Arc::new(kinds), place: Place::Global };
            let plain = plain.iter().map(|zone| (*zone).to_owned()).collect();
            let gate = Arc::new(Gatekeeper::new(store, author.clone(), plain, clock));
            let key = SigningKey::generate().unwrap();
            let mut keys = KeySet::default();
            keys.insert(1, key.private_pem()).unwrap();
            let gate = Self { gate, author, keys, _tasks: tasks };
            gate.secret(&format!("{ZONE_KEYS}1"), key.private_pem()).await;
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

    fn name(admitted: Result<Admitted, Refused>) -> Result<String, Refused> {
        admitted.map(|admitted| admitted.zone.to_string())
    }

    fn peer(spiffe_id: Option<&str>, dns_name: Option<&str>) -> Peer {
        Peer {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
            spiffe_ids: spiffe_id.iter().map(|id| id.parse().unwrap()).collect(),
            dns_names: dns_name.iter().map(|&name| name.into()).collect(),
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
    async fn a_revoked_token_and_a_deleted_zone_end_what_is_open() {
        let gate = Gate::new(&["plain"]).await;
        let (watching, mut tasks) = (gate.gate.clone(), JoinSet::new());
        let feed = watching.follow().await.unwrap();
        tasks.spawn(async { watching.withdraw(feed).await.unwrap() });
        let token = format!("Bearer {}", gate.token("east", "cp"));
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
        let refused = name(gate.admit("east", Some(&token), None).await);
        assert!(matches!(refused, Err(Refused::Unauthenticated(_))), "{refused:?}");
    }
}
