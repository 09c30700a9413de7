//! Who may speak, decided before anything of a call is parsed.

use crate::{
    apply::Visibility,
    dialect::Dialect,
    metadata::{CLIENT_ID, dialect},
    observe::Observer,
};
use daemon::Repeats;
use futures::future::BoxFuture;
use identity::tls::Peer;
use resource::ZoneName;
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, metadata::MetadataMap, server::NamedService};
use tower::Service;

/// What a zone shows to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The metadata of its call, with its token if it has one.
    pub metadata: &'a MetadataMap,
    /// Its connection, with what its certificate says; `None` if the connection is not TLS.
    pub peer: Option<&'a Peer>,
    /// Whether it speaks as ours do. A plain zone has no token.
    pub dialect: Dialect,
}

impl Presented<'_> {
    /// Refuses a call that names another zone than the one whose credential it has.
    pub fn check_name(&self, zone: &ZoneName) -> Result<(), Refused> {
        let claimed = self.claimed();
        if claimed == zone.as_str() {
            return Ok(());
        }
        Err(Refused::Denied(format!("client-id is {claimed:?}, the credential is of {zone:?}")))
    }

    /// The zone that the call says it is of.
    #[must_use]
    pub fn claimed(&self) -> &str {
        let name = self.metadata.get(CLIENT_ID).and_then(|name| name.to_str().ok());
        name.unwrap_or_default()
    }
}

/// Who was let in.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The zone, as its credential says.
    pub zone: ZoneName,
    /// Ends its streams when it is cancelled: the zone was deleted, or its credential revoked.
    pub withdrawn: CancellationToken,
}

/// Why a zone was not let in. The text is for the zone and for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It does not show who it is.
    #[error("{0}")]
    Unauthenticated(String),
    /// It may not do that.
    #[error("{0}")]
    Denied(String),
    /// Nothing can be said now.
    #[error("{0}")]
    Unavailable(String),
}

impl Refused {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Denied(_) => "denied",
            Self::Unavailable(_) => "unavailable",
        }
    }

    fn to_status(&self) -> Status {
        match self {
            Self::Unauthenticated(reason) => Status::unauthenticated(reason),
            Self::Denied(reason) => Status::permission_denied(reason),
            Self::Unavailable(reason) => Status::unavailable(reason),
        }
    }
}

/// Decides who may speak.
#[tonic::async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Says which zone this is, or why it is none. Called for each call of a zone.
    async fn admit(&self, presented: Presented<'_>) -> Result<Admitted, Refused>;

    /// Whether what `zone` sends now may be seen by other zones.
    fn visibility(&self, _zone: &ZoneName) -> Visibility {
        Visibility::Shown
    }
}

/// What was found out about a call, for the one that handles it.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) admitted: Admitted,
    pub(super) dialect: Dialect,
}

/// A service behind an admission.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    pub(super) admission: Arc<dyn Admission>,
    pub(super) observer: Arc<dyn Observer>,
    /// A zone that is refused tries again and again, with several calls each time.
    pub(super) refusals: Arc<Repeats>,
    pub(super) service: S,
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let ready = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, ready);
        let (admission, refusals) = (self.admission.clone(), self.refusals.clone());
        let observer = self.observer.clone();
        Box::pin(async move {
            let metadata = MetadataMap::from_headers(request.headers().clone());
            let peer = request.extensions().get::<Peer>().cloned();
            match admit(&*admission, &refusals, &metadata, peer.as_ref()).await {
                Ok(guest) => {
                    request.extensions_mut().insert(guest);
                    service.call(request).await
                }
                Err(refused) => {
                    observer.turned_away(refused.reason());
                    Ok(refused.to_status().into_http())
                }
            }
        })
    }
}

async fn admit(
    admission: &dyn Admission,
    refusals: &Repeats,
    metadata: &MetadataMap,
    peer: Option<&Peer>,
) -> Result<Guest, Refused> {
    let dialect = dialect(metadata);
    let presented = Presented { metadata, peer, dialect };
    let admitted = admission.admit(presented).await;
    let admitted = admitted.and_then(|it| presented.check_name(&it.zone).map(|()| it));
    if let Err(refused) = &admitted {
        let (claimed, reason) = (presented.claimed(), refused.to_string());
        if let Some(unsaid) = refusals.say((claimed, &reason)) {
            let address = peer.map(|peer| peer.address);
            tracing::warn!(?address, client_id = ?claimed, ?reason, unsaid, "zone refused");
        }
    }
    Ok(Guest { admitted: admitted?, dialect })
}
