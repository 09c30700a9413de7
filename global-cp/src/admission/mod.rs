//! Which zones may speak.
//!
//! A zone shows who it is by a zone token with the scope `cp`, or by a client certificate, whose
//! authority is set by `tls.clientCaFile`: with a SPIFFE ID whose path is `/zone/<name>`, or with
//! its name as a DNS name. What it says about itself counts for nothing else.
//!
//! A zone may speak as long as its credential counts, not only when it comes: what it was admitted
//! to ends with the token or the certificate, with the key that signed the token, and with the Zone.

mod certificate;
mod guests;
#[cfg(test)]
mod tests;

use self::guests::{Credential, Guests, INVENTED};
use crate::zones;
use api::{
    author::Author,
    expiry::{Entry, Holder, Renewal, Sort},
    keys::{TokenKeys, ZONE_KEYS, global_secret},
};
use daemon::Clock;
use identity::token::{Accepted, ZoneClaims};
use jiff::Timestamp;
use kds::{
    apply::Visibility,
    global::{Admission, Admitted, Presented, Refused},
    metadata::AUTHORIZATION,
};
use kinds::zone::{self, Zone};
use resource::{Labels, ResourceKey, ZoneName};
use serde_json::json;
use std::sync::Arc;
use store::{
    Backend,
    view::{Closed, Feed, KindSet, Reader},
};
use tokio::sync::Mutex;

/// The secret that lists the IDs of zone tokens that are not accepted any more.
const REVOCATIONS: &str = "zone-token-revocations";
/// The secret that lists the fingerprints of client certificates that are not accepted any more.
const CERTIFICATE_REVOCATIONS: &str = "zone-certificate-revocations";
/// What a token must allow.
const SCOPE: &str = "cp";
/// The label of a Zone of which nothing is known but the name that it said. Who writes the Zone
/// takes it away.
const NAMED_ITSELF: &str = "atoll.io/named-itself";

/// Decides who may speak.
pub(crate) struct Gatekeeper<B> {
    backend: B,
    author: Author,
    keys: TokenKeys,
    clock: Clock,
    plain: Vec<String>,
    guests: Guests,
    /// Held while a Zone is made for a name that may be made up: they are counted before.
    inventing: Mutex<()>,
}

/// How it is known that there is a zone of a name.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// A credential or a setting says so.
    Known,
    /// Nobody but itself says so.
    NamedItself,
}

/// What a zone proved to be.
struct Proof {
    zone: ZoneName,
    credential: Credential,
    /// When the credential ends.
    until: Option<Timestamp>,
}

impl<B: Backend> Gatekeeper<B> {
    pub(crate) fn new(backend: B, author: Author, plain: Vec<String>, clock: Clock) -> Self {
        let keys = TokenKeys::global(&author.kinds, ZONE_KEYS, REVOCATIONS);
        let (guests, inventing) = (Guests::default(), Mutex::default());
        Self { backend, author, keys, clock, plain, guests, inventing }
    }

    /// The zone that `presented` proves to be.
    fn who(&self, presented: &Presented<'_>) -> Result<Proof, Refused> {
        let (metadata, claimed) = (presented.metadata, presented.claimed());
        let mut tokens = metadata.get_all(AUTHORIZATION).iter();
        match (tokens.next(), tokens.next()) {
            (None, _) => {}
            (Some(header), None) => return self.by_token(header.to_str().unwrap_or_default()),
            (Some(_), Some(_)) => {
                let reason = "authorization is given more than once";
                return Err(Refused::Unauthenticated(reason.into()));
            }
        }
        if let Some(peer) = presented.peer
            && let Some(zone) = certificate::zone(peer, claimed)?
        {
            if peer.expires.is_some_and(|end| end <= self.clock.now()) {
                let reason = "the client certificate expired since the connection was made";
                return Err(Refused::Unauthenticated(reason.into()));
            }
            let credential = Credential::Certificate(peer.fingerprint);
            return Ok(Proof { zone, credential, until: peer.expires });
        }
        if self.plain.iter().any(|plain| plain == claimed || plain == "*") {
            let zone = named(claimed)?;
            return Ok(Proof { zone, credential: Credential::Setting, until: None });
        }
        let reason = "neither a zone token nor a client certificate was presented";
        Err(Refused::Unauthenticated(reason.into()))
    }

    fn by_token(&self, header: &str) -> Result<Proof, Refused> {
        let token =
            header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else {
            return Err(Refused::Unauthenticated("authorization must be a bearer token".into()));
        };
        let Accepted { claims, expires, .. } = self.accept(token.trim())?;
        claims.admits(&claims.zone, SCOPE).map_err(|reason| Refused::Denied(reason.to_string()))?;
        let credential = Credential::Token(token.trim().into());
        Ok(Proof { zone: named(&claims.zone)?, credential, until: Some(expires) })
    }

    fn accept(&self, token: &str) -> Result<Accepted<ZoneClaims>, Refused> {
        let accepted = self.keys.accept(&self.backend.reader(), &self.clock, token);
        accepted.map_err(|reason| Refused::Unauthenticated(reason.to_string()))
    }

    /// Whether a credential that was accepted still is, by the keys and revocations of now.
    fn recheck(&self, credential: &Credential) -> Result<(), Refused> {
        match credential {
            Credential::Token(token) => self.accept(token).map(drop),
            Credential::Certificate(Some(one)) if self.revoked().all.contains(one) => {
                Err(Refused::Unauthenticated(format!("the client certificate {one} is revoked")))
            }
            Credential::Certificate(_) | Credential::Setting => Ok(()),
        }
    }

    /// The certificates that are not accepted any more, and what in the list of them is none.
    fn revoked(&self) -> certificate::Revoked {
        let (reader, kinds) = (self.backend.reader(), &self.author.kinds);
        let list = global_secret(&reader, kinds, CERTIFICATE_REVOCATIONS);
        certificate::revoked(&list.unwrap_or_default())
    }

    /// Whoever wrote the list believes that somebody is kept out.
    fn complain(&self) {
        for (entry, error) in self.revoked().bad {
            tracing::warn!(entry, %error, "an entry of {CERTIFICATE_REVOCATIONS} revokes nothing");
        }
    }

    /// Lets in who proved to be a zone, unless that does not count any more.
    async fn let_in(&self, proof: Proof) -> Result<Admitted, Refused> {
        let Proof { zone, credential, until } = proof;
        // Before the look at what there is, so that a deletion in between ends it.
        let (withdrawn, new) = self.guests.admit(&zone, &credential, until);
        // Once more: a revocation that came before this did not find it.
        if new && let Err(refused) = self.recheck(&credential) {
            withdrawn.cancel();
            return Err(refused);
        }
        let invented = credential == Credential::Setting
            && !self.plain.iter().any(|plain| plain == zone.as_str());
        let entered = if invented {
            let _one = self.inventing.lock().await;
            self.enter(&zone, Origin::NamedItself).await
        } else {
            self.enter(&zone, Origin::Known).await
        };
        if let Err(refused) = entered {
            // Nothing is open, and made up names are not remembered.
            if matches!(refused, Refused::Denied(_)) {
                self.guests.dismiss(&zone);
            }
            return Err(refused);
        }
        Ok(Admitted { zone, withdrawn })
    }

    /// Makes the Zone when it comes for the first time.
    async fn enter(&self, zone: &ZoneName, origin: Origin) -> Result<(), Refused> {
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
        let labels = match origin {
            Origin::Known => Labels::default(),
            Origin::NamedItself => {
                self.check_room(&reader)?;
                Labels::from_iter([(NAMED_ITSELF, "true")])
            }
        };
        let item = self.author.create_with(zone::KIND, key, &labels, json!({"enabled": true}));
        let item = item.map_err(|error| unavailable(&error))?;
        let committed =
            self.backend.commit(vec![item]).await.map_err(|error| unavailable(&error))?;
        self.backend.wait_for(committed.revision).await.map_err(|error| unavailable(&error))
    }

    fn check_room(&self, reader: &Reader) -> Result<(), Refused> {
        let (_, rows) = reader.rows(self.author.id(zone::KIND));
        let invented = rows.iter().filter(|row| row.head.labels.get(NAMED_ITSELF).is_some());
        if invented.take(INVENTED).count() < INVENTED {
            return Ok(());
        }
        Err(Refused::Denied(format!(
            "{INVENTED} zones came that only '*' in kds.plainZones lets in; name this one there, \
             or write its Zone"
        )))
    }

    /// Follows what decides about admissions, from now on: to be called before the first one.
    pub(crate) async fn follow(&self) -> Result<Feed, Closed> {
        let kinds = [zone::KIND, kinds::global_secret::KIND].map(|kind| self.author.id(kind));
        let mut feed = Feed::of(&self.backend.reader(), KindSet::from_iter(kinds));
        // What there is already is looked at when somebody is admitted.
        feed.next().await?;
        self.complain();
        Ok(feed)
    }

    /// Ends the streams of zones that are gone, and those whose credential expires, was revoked, or
    /// was signed by a key that is no more.
    pub(crate) async fn withdraw(self: Arc<Self>, mut feed: Feed) -> Result<(), Closed> {
        let zones = self.author.id(zone::KIND);
        loop {
            let soonest = self.guests.soonest();
            let updates = tokio::select! {
                biased;
                updates = feed.next() => updates?,
                () = self.guests.sooner() => continue,
                () = self.clock.sleep_until(soonest.unwrap_or(Timestamp::MAX)), if soonest.is_some() => {
                    self.guests.expire(self.clock.now());
                    continue;
                }
            };
            let mut keys = false;
            for update in updates {
                let name = &update.key.name;
                if update.kind == zones {
                    if update.now.is_none()
                        && let Ok(zone) = ZoneName::new(name)
                    {
                        self.guests.dismiss(&zone);
                    }
                } else {
                    let lists = [REVOCATIONS, CERTIFICATE_REVOCATIONS];
                    keys |= name.starts_with(ZONE_KEYS) || lists.contains(&&**name);
                }
            }
            // Only those that it concerns: a new key disturbs nobody.
            if keys {
                self.complain();
                self.guests.keep(|credential| self.recheck(credential).is_ok());
            }
        }
    }
}

impl<B: Backend> Holder for Gatekeeper<B> {
    fn entries(&self, _soon: Timestamp) -> Vec<Entry> {
        let entry = |(zone, credential, ends): (ZoneName, Credential, Timestamp)| {
            let (sort, by) = match credential {
                Credential::Token(_) => (Sort::ZoneToken, format!("atoll token zone {zone}")),
                Credential::Certificate(_) | Credential::Setting => {
                    (Sort::ZoneCertificate, "whoever gave it to the zone".into())
                }
            };
            Entry::one(sort, zone.as_str(), ends, Renewal::by(by)).of_zone(zone.as_str())
        };
        self.guests.endings().into_iter().map(entry).collect()
    }
}

fn named(name: &str) -> Result<ZoneName, Refused> {
    ZoneName::new(name).map_err(|error| Refused::Denied(format!("zone: {error}")))
}

#[tonic::async_trait]
impl<B: Backend + 'static> Admission for Gatekeeper<B> {
    async fn admit(&self, presented: Presented<'_>) -> Result<Admitted, Refused> {
        let proof = self.who(&presented)?;
        // Before anything is made for it.
        presented.check_name(&proof.zone)?;
        self.let_in(proof).await
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
