//! What the API server asks before it takes an object: defaults and checks, over TLS.
//!
//! Every process of a control plane answers, also one that stands by. What answers depend on is known
//! before it is asked: no question costs a request to the API server.

mod certificates;
mod config;
mod keeper;
mod known;
mod object;
mod review;
mod rules;
mod server;
#[cfg(test)]
mod tests;
mod webhooks;

pub use self::config::Config;

use self::{
    keeper::{Keeper, Place as Kept},
    known::Known,
    rules::{Fields, Rules},
    server::{Judge, Numbers},
    webhooks::Ours,
};
use anyhow::Result;
use api::serve;
use daemon::{Clock, Metrics, Tasks};
use identity::tls::{Alpn, ServerTls, TlsListener};
use kinds::{container_patch, labels::Place};
use kube::Client;
use std::{fmt, sync::Arc};
use store::{Kinds, view::Reader};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

/// The certificates of a control plane in a cluster: it shows the same one to proxies, to users and to
/// the API server.
pub struct Certificates {
    keeper: Keeper,
    webhooks: Ours,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("tls", self.keeper.tls()).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads those that another process made, or makes them. Waits for an API server that is away.
    /// The certificate names the services of the control plane, and `more`.
    pub async fn open(
        client: Client,
        config: &crate::Config,
        more: &[String],
        clock: Clock,
    ) -> Result<Self> {
        let namespace = config.system_namespace.clone();
        let admission = &config.admission;
        let services = [crate::SERVICE, &admission.service];
        let names = services.into_iter().flat_map(|name| names(name, &namespace));
        let local = ["localhost", "127.0.0.1", "::1"].map(String::from);
        let names = names.chain(local).chain(more.iter().cloned()).collect();
        let secret = admission.secret.clone();
        let webhooks = Ours {
            client: client.clone(),
            namespace: namespace.clone(),
            service: admission.service.clone(),
            names: admission.webhooks.clone(),
        };
        let keeper = Keeper::open(Kept { client, namespace, secret, names }, clock).await?;
        Ok(Self { keeper, webhooks })
    }

    /// What every server of the control plane shows, now and after each renewal.
    #[must_use]
    pub const fn tls(&self) -> &Arc<ServerTls> {
        self.keeper.tls()
    }

    /// What its clients trust, as PEM.
    #[must_use]
    pub fn trusted(&self) -> watch::Receiver<Arc<str>> {
        self.keeper.trusted()
    }

    /// Renews them in time, and keeps what webhooks trust right.
    pub fn spawn(self, tasks: &mut Tasks, stop: &CancellationToken) {
        let kept = self.webhooks.keep(self.keeper.trusted());
        tasks.spawn("admission.webhooks", until(stop.clone(), kept));
        tasks.spawn("admission.certificates", until(stop.clone(), self.keeper.run()));
    }
}

/// As clients in the cluster may call a service.
fn names(service: &str, namespace: &str) -> [String; 4] {
    [
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ]
}

/// What admission needs of the rest of a control plane.
pub struct Admission {
    /// Talks to the API server.
    pub client: Client,
    /// The settings.
    pub config: crate::Config,
    /// The zone.
    pub place: Place,
    /// Whether there is a global.
    pub federated: bool,
    /// The domains of the mesh's names, for sidecars; empty: the usual ones.
    pub apexes: Vec<String>,
    /// What there are resources of.
    pub kinds: Arc<Kinds>,
    /// The resources.
    pub reader: Reader,
    /// Where questions are counted.
    pub metrics: Metrics,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Admission {
    /// Answers on `listener` until `stop`.
    pub fn spawn(
        self,
        listener: TcpListener,
        certificates: &Certificates,
        tasks: &mut Tasks,
        stop: &CancellationToken,
    ) {
        let known = Known::default();
        known.watch(&self.client, &self.config.system_namespace, tasks, stop);
        let tls = TlsListener::new(listener, certificates.tls().clone(), Alpn::Http);
        let router = server::router(self.judge(known, certificates.trusted()));
        let stop = stop.clone();
        tasks.spawn("admission", async move {
            serve::tls(tls, router, stop).await;
            Ok::<_, anyhow::Error>(())
        });
    }

    fn judge(self, known: Known, trusted: watch::Receiver<Arc<str>>) -> Judge {
        let crate::Config { system_namespace, admission, injector, .. } = self.config;
        let account = |of: &str| format!("system:serviceaccount:{of}");
        let own = account(&format!("{system_namespace}:{}", crate::SERVICE));
        let others = admission.trusted.iter().map(|of| account(of));
        let rules = Rules {
            system_namespace,
            place: self.place,
            federated: self.federated,
            fields: Arc::new(Fields::of(&self.kinds)),
            kinds: self.kinds.clone(),
            reader: self.reader.clone(),
            trusted: [own].into_iter().chain(others).collect(),
        };
        Judge {
            rules,
            known,
            injector,
            apexes: self.apexes,
            reader: self.reader,
            patches: self.kinds.id_of(container_patch::KIND.name),
            trusted,
            numbers: Numbers::new(&self.metrics),
        }
    }
}

async fn until(stop: CancellationToken, part: impl Future<Output = ()>) -> Result<()> {
    stop.run_until_cancelled(part).await;
    Ok(())
}
