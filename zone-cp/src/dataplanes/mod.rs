//! Proxies of the zone: their sessions, their streams, and what becomes of their Dataplanes.
//!
//! A call passes the `desk`, which asks who it is. A session or stream then is a value in the
//! `registry`; whatever it says marks its proxy as dirty, and one task, `life`, writes down what is so
//! by then: the Dataplane, its insight, the address of an ingress.

mod ads;
mod auth;
mod bootstrap;
mod desk;
mod driven;
mod insight;
mod life;
mod limits;
mod place;
mod pods;
mod presence;
mod proxy;
mod questions;
mod registry;
mod server;
mod session;
mod taken;
#[cfg(test)]
mod tests;

pub use self::{
    place::NoKind,
    pods::{NotReviewed, Pod, Review, Reviewed},
    questions::Questions,
};

use self::{
    auth::Tokens,
    desk::Desk,
    life::Numbers,
    place::{Ids, Shelf},
    registry::Registry,
};
use crate::{identities::Issuer, names::Names, reconcile::Meshes};
use api::expiry::Holder;
use daemon::{Clock, Metrics};
use identity::tls::TlsListener;
use kinds::labels::Place;
use std::sync::Arc;
use store::{Backend, Kinds};
use tokio_util::sync::CancellationToken;

/// What proxies are served with.
#[derive(Debug)]
pub struct Parts<B> {
    /// Where their resources are kept.
    pub store: B,
    /// The kinds of the store.
    pub kinds: Arc<Kinds>,
    /// Which zone this is.
    pub place: Place,
    /// Which process of the zone's control plane this is.
    pub instance: String,
    /// What they get.
    pub meshes: Meshes,
    /// Who they are.
    pub issuer: Issuer,
    /// What their DNS answers.
    pub names: Arc<Names>,
    /// Who knows the tokens of pods, if the zone is a Kubernetes cluster.
    pub cluster: Option<Arc<dyn Review>>,
    /// Where their numbers are published.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
}

/// The proxies of a zone.
#[derive(Clone, Debug)]
pub struct Dataplanes<B> {
    store: B,
    desk: Arc<Desk>,
    numbers: Numbers,
}

impl<B: Backend + Clone + 'static> Dataplanes<B> {
    /// None are connected yet. `stop` ends all of it.
    pub fn new(parts: Parts<B>, stop: CancellationToken) -> Result<Self, NoKind> {
        let Parts { store, kinds, place, instance, meshes, .. } = parts;
        let Parts { issuer, names, cluster, metrics, clock, .. } = parts;
        let (reader, ids) = (store.reader(), Ids::of(&kinds)?);
        let tokens = Tokens::new(kinds.clone(), reader.clone(), clock.clone(), cluster);
        let shelf = Shelf { reader, ids, place, peer: kinds.peer };
        let registry = Arc::new(Registry::new(shelf, clock, instance, issuer.clone()));
        let desk = Arc::new(Desk { registry, tokens, meshes, issuer, names, stop });
        Ok(Self { store, desk, numbers: Numbers::new(&metrics) })
    }

    /// Answers questions about their Envoys.
    #[must_use]
    pub fn questions(&self) -> Questions {
        Questions(self.desk.registry.clone())
    }

    /// Which of their tokens expire.
    #[must_use]
    pub fn expiring(&self) -> Arc<dyn Holder> {
        self.desk.clone()
    }

    /// Serves them on `listener`, until the stop.
    pub fn serve(&self, listener: TlsListener) -> impl Future<Output = ()> + Send + use<B> {
        server::serve(self.desk.clone(), listener, self.desk.stop.clone())
    }

    /// Writes down what becomes of them, until the stop. Holds the store no longer.
    pub async fn keep(self) -> anyhow::Result<()> {
        Ok(life::run(self.desk, self.store, self.numbers).await?)
    }
}
