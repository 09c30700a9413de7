//! Which zones may speak (decision 2).
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
    metadata::{AUTHORIZATION, CLIENT_ID},
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
        let metadata = presented.metadata;
        let claimed = metadata.get(CLIENT_ID).and_then(|name| name.to_str().ok());
        let claimed = claimed.unwrap_or_default();
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

    /// Ends the streams of zones that are gone, and all when keys or revocations change: who may
    /// still speak comes back at once.
    pub(crate) async fn withdraw(self: Arc<Self>) -> Result<(), Closed> {
        let (zones, secrets) =
            (self.author.id(zone::KIND), self.author.id(kinds::global_secret::KIND));
        let mut feed = Feed::of(&self.backend.reader(), KindSet::from_iter([zones, secrets]));
        // What there is already was looked at when somebody was admitted.
        feed.next().await?;
        loop {
            for update in feed.next().await? {
                let name = &update.key.name;
                if update.kind == zones && update.now.is_none() {
                    self.cancel(|zone| zone.as_str() == &**name);
                }
                if update.kind == secrets && (name.starts_with(ZONE_KEYS) || &**name == REVOCATIONS)
                {
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
