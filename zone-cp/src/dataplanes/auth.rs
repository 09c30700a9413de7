//! Who a proxy is: by its token, never by what it says.

use super::pods::{NotReviewed, Pod, Review, Reviewed};
use api::{
    expiry::{Entry, Holder, Renewal, Sort, by_mesh},
    keys::TokenKeys,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use daemon::Clock;
use identity::token::{DataplaneClaims, DataplaneFacts, Refused};
use jiff::Timestamp;
use kinds::dataplane::Dataplane;
use parking_lot::Mutex;
use proto::kuma::mesh::v1alpha1::dataplane::networking::listener;
use resource::{Labels, MeshName, ResourceKey, label};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};
use store::{Kinds, view::Reader};
use tokio::sync::watch;
use tonic::Status;

/// A longer credential is none.
const LONGEST: usize = 16 << 10;

/// Why a proxy is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unauthenticated {
    #[error("there is no token in `authorization`")]
    NoToken,
    #[error("the token names no mesh")]
    NoMesh,
    #[error("mesh {0} has no key that signs dataplane tokens")]
    NoKeys(MeshName),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    NotReviewed(#[from] NotReviewed),
}

impl Unauthenticated {
    /// As a proxy hears it. A zone that may lack a key for now says so by another code: the proxy
    /// tries again, and gives up for all others.
    pub(super) fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::NoKeys(_)
            | Self::Refused(Refused::UnknownKey(_) | Refused::NotYetValid(_))
            | Self::NotReviewed(NotReviewed::Unavailable(_)) => Status::unavailable(text),
            Self::NoToken
            | Self::NoMesh
            | Self::Refused(_)
            | Self::NotReviewed(NotReviewed::Refused(_)) => Status::unauthenticated(text),
        }
    }
}

/// Why a proxy may not be the Dataplane that it wants to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Forbidden {
    #[error("{0}")]
    Claims(Refused),
    #[error("Dataplane {key} exists, and the token is not for it: {reason}")]
    TakeOver { key: ResourceKey, reason: Refused },
    #[error(
        "the SPIFFE ID of {0} contains its workload, so its token must be bound to one: create it for a workload"
    )]
    Unbound(ResourceKey),
    #[error("the SPIFFE ID of {0} contains its workload, so it needs the label kuma.io/workload")]
    NoWorkload(ResourceKey),
    #[error("the token is for mesh {:?}, not {asked:?}", token.as_str())]
    OtherMesh { token: MeshName, asked: String },
    #[error("the token is for {pod}, which is not Dataplane {key}")]
    OtherPod { pod: Pod, key: ResourceKey },
    #[error("the Dataplane of {0} is made of the pod: its proxy must not send one")]
    Sends(Pod),
}

impl Forbidden {
    /// As a proxy hears it. Whoever has the name may leave.
    pub(super) fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::TakeOver { .. } => Status::already_exists(text),
            Self::Claims(_)
            | Self::Unbound(_)
            | Self::NoWorkload(_)
            | Self::OtherMesh { .. }
            | Self::OtherPod { .. }
            | Self::Sends(_) => Status::permission_denied(text),
        }
    }
}

/// A token that is good. What it is good for is asked afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) who: Who,
    /// As it came.
    pub(super) token: Arc<str>,
    /// It is none from then on.
    pub(super) expires: Timestamp,
}

/// Whom a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Whoever has a token of the mesh, as far as its claims go.
    Proxy { mesh: MeshName, claims: DataplaneClaims },
    /// A pod, in whatever mesh its Dataplane is.
    Pod(Pod),
}

/// The tokens of all meshes, and those of the cluster if the zone is one.
#[derive(Debug)]
pub(super) struct Tokens {
    kinds: Arc<Kinds>,
    reader: Reader,
    clock: Clock,
    cluster: Option<Arc<dyn Review>>,
    /// Reading a key takes longer than verifying with it.
    keys: Mutex<BTreeMap<MeshName, Arc<TokenKeys>>>,
    /// Keys or lists of revoked tokens are others now.
    changed: watch::Sender<()>,
    /// The tokens of what is open: whose, until when, and how many streams each opened.
    open: Mutex<BTreeMap<Shown, usize>>,
}

/// Of a token: its mesh, whose it is, and when it ends. Those of a cluster are not shown: it renews
/// them itself.
type Shown = (MeshName, Arc<str>, Timestamp);

/// A stream that a token opened.
struct Open<'a> {
    tokens: &'a Tokens,
    token: Shown,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut open = self.tokens.open.lock();
        if let Some(streams) = open.get_mut(&self.token) {
            *streams = streams.saturating_sub(1);
            if *streams == 0 {
                open.remove(&self.token);
            }
        }
    }
}

impl Holder for Tokens {
    fn entries(&self, soon: Timestamp) -> Vec<Entry> {
        let open = self.open.lock();
        let ends = open.keys().map(|(mesh, whose, ends)| (mesh, &**whose, *ends));
        let renewal = Renewal::by("whoever made them: atoll token dataplane");
        by_mesh(Sort::ProxyTokens, &renewal, soon, ends)
    }
}

impl Tokens {
    pub(super) fn new(
        kinds: Arc<Kinds>,
        reader: Reader,
        clock: Clock,
        cluster: Option<Arc<dyn Review>>,
    ) -> Self {
        let (keys, changed) = (Mutex::default(), watch::Sender::new(()));
        Self { kinds, reader, clock, cluster, keys, changed, open: Mutex::default() }
    }

    /// Every token that is in use is looked at again.
    pub(super) fn look_again(&self) {
        self.changed.send_replace(());
    }

    /// Waits until the token of `bearer` is good no more, and says why. Cancel safe.
    pub(super) async fn end_of(&self, bearer: &Bearer) -> Unauthenticated {
        let mut changed = self.changed.subscribe();
        let _open = self.opened(bearer);
        loop {
            match self.accept(bearer.token.as_bytes()).await {
                // It was good, and nobody says that it is not.
                Ok(_) | Err(Unauthenticated::NotReviewed(NotReviewed::Unavailable(_)))
                    if self.clock.now() < bearer.expires => {}
                Ok(_) => return Unauthenticated::Refused(Refused::Expired(bearer.expires)),
                Err(error) => return error,
            }
            tokio::select! {
                biased;
                () = self.clock.sleep_until(bearer.expires) => {}
                changed = changed.changed() => changed.expect("the sender is held here"),
            }
        }
    }

    fn opened(&self, bearer: &Bearer) -> Option<Open<'_>> {
        let Who::Proxy { mesh, claims } = &bearer.who else { return None };
        let whose = [&claims.name, &claims.workload].into_iter().find(|name| !name.is_empty());
        let whose = whose.map_or("any proxy", |name| name.as_str()).into();
        let token = (mesh.clone(), whose, bearer.expires);
        *self.open.lock().entry(token.clone()).or_default() += 1;
        Some(Open { tokens: self, token })
    }

    /// Accepts what stands in `authorization`: a token, with `Bearer` before it or without.
    pub(super) async fn accept(&self, authorization: &[u8]) -> Result<Bearer, Unauthenticated> {
        let text = std::str::from_utf8(authorization).map_err(|_| Unauthenticated::NoToken)?;
        let token = text.strip_prefix("Bearer ").unwrap_or(text).trim();
        if token.is_empty() || token.len() > LONGEST {
            return Err(Unauthenticated::NoToken);
        }
        // Only to know whose keys to ask. It counts once they have signed it.
        let mesh = match (claimed_mesh(token), &self.cluster) {
            (Some(mesh), _) => mesh,
            (None, Some(cluster)) => {
                let Reviewed { pod, expires } = cluster.review(token).await?;
                return Ok(Bearer { who: Who::Pod(pod), token: token.into(), expires });
            }
            (None, None) => return Err(Unauthenticated::NoMesh),
        };
        let keys = self.of(&mesh).ok_or_else(|| Unauthenticated::NoKeys(mesh.clone()))?;
        let accepted = keys.accept::<DataplaneClaims>(&self.reader, &self.clock, token)?;
        let (who, expires) = (Who::Proxy { mesh, claims: accepted.claims }, accepted.expires);
        Ok(Bearer { who, token: token.into(), expires })
    }

    /// `None` if the mesh has no keys: it may be a name that somebody made up.
    fn of(&self, mesh: &MeshName) -> Option<Arc<TokenKeys>> {
        if let Some(keys) = self.keys.lock().get(mesh) {
            return Some(keys.clone());
        }
        let keys = Arc::new(TokenKeys::of_mesh(&self.kinds, mesh));
        if keys.now(&self.reader).keys.is_empty() {
            return None;
        }
        Some(self.keys.lock().entry(mesh.clone()).or_insert(keys).clone())
    }
}

fn claimed_mesh(token: &str) -> Option<MeshName> {
    #[derive(Deserialize)]
    struct Claimed {
        #[serde(rename = "Mesh")]
        mesh: String,
    }
    let body = token.split('.').nth(1)?;
    let body = URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok()?;
    let claimed: Claimed = serde_json::from_slice(&body).ok()?;
    MeshName::new(&claimed.mesh).ok()
}

/// What a Dataplane is, for a token.
pub(super) struct Wanted<'a> {
    pub(super) key: &'a ResourceKey,
    pub(super) labels: &'a Labels,
    pub(super) spec: &'a Dataplane,
}

impl Bearer {
    /// Whether the bearer may be anything in `mesh`.
    pub(super) fn may_join(&self, mesh: &str) -> Result<(), Forbidden> {
        match &self.who {
            Who::Proxy { mesh: token, .. } if token.as_str() != mesh => {
                Err(Forbidden::OtherMesh { token: token.clone(), asked: mesh.to_owned() })
            }
            Who::Proxy { .. } | Who::Pod(_) => Ok(()),
        }
    }

    /// Whether the bearer says itself what its Dataplane is.
    pub(super) fn may_send(&self) -> Result<(), Forbidden> {
        match &self.who {
            Who::Proxy { .. } => Ok(()),
            Who::Pod(pod) => Err(Forbidden::Sends(pod.clone())),
        }
    }

    /// Whether the bearer may be `wanted`. If something of that name is `stored` the token must be
    /// for that one too: labels that the proxy chose itself prove nothing.
    pub(super) fn may_be(
        &self,
        wanted: &Wanted<'_>,
        stored: Option<&Wanted<'_>>,
        needs_workload: bool,
    ) -> Result<(), Forbidden> {
        let unnamed = wanted.labels.get(label::WORKLOAD).is_none_or(str::is_empty);
        match &self.who {
            Who::Proxy { claims, .. } => {
                admits(claims, wanted).map_err(Forbidden::Claims)?;
                if let Some(stored) = stored {
                    let taken = |reason| Forbidden::TakeOver { key: stored.key.clone(), reason };
                    admits(claims, stored).map_err(taken)?;
                }
                if needs_workload && !unnamed && claims.workload.is_empty() {
                    return Err(Forbidden::Unbound(wanted.key.clone()));
                }
            }
            // What is stored of a pod was read off the pod.
            Who::Pod(pod) => match stored {
                Some(stored) if pod.is(stored.labels) => {}
                Some(_) | None => {
                    let key = wanted.key.clone();
                    return Err(Forbidden::OtherPod { pod: pod.clone(), key });
                }
            },
        }
        if needs_workload && unnamed {
            return Err(Forbidden::NoWorkload(wanted.key.clone()));
        }
        Ok(())
    }
}

/// Whether claims are for a Dataplane.
fn admits(claims: &DataplaneClaims, wanted: &Wanted<'_>) -> Result<(), Refused> {
    let labels = wanted.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    let ingress = wanted.spec.has_listener(listener::Type::ZoneIngress);
    claims.admits(&DataplaneFacts {
        mesh: wanted.key.mesh.as_ref().map_or("", MeshName::as_str),
        name: &wanted.key.name,
        r#type: if ingress { "ingress" } else { "dataplane" },
        labels: &labels.collect(),
        workload: wanted.labels.get(label::WORKLOAD),
    })
}
