//! From settings to a running control plane.

use crate::{
    Addresses, Config,
    core::Parts,
    first_start,
    ports::{self, Ports},
};
use anyhow::{Context as _, Result};
use api::{About, expiry::TokenFile, serve};
use daemon::{Clock, Metrics, Ready, Tasks, admin, data, ready::Guard};
use futures::FutureExt as _;
use identity::tls::{Alpn, ServerTls, TlsListener};
use resource::Peer;
use std::sync::Arc;
use store::{Backend as _, Kinds, Local, view::Reader};
use tokio_util::sync::CancellationToken;

/// A control plane whose ports are open and whose store is loaded.
pub struct Bound {
    /// Where it listens.
    pub addresses: Addresses,
    config: Config,
    ports: Ports,
    tls: Arc<ServerTls>,
    store: Local,
    kinds: Arc<Kinds>,
    tasks: Tasks,
    clock: Clock,
    ready: Ready,
    starting: Guard,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Opens ports, certificate and store. What cannot be opened is named, and nothing was changed.
pub async fn bind(config: &Config, shutdown: &CancellationToken) -> Result<Bound> {
    let clock = Clock::system();
    let (ports, addresses) = ports::open(config).await?;
    let open_tls = || ServerTls::open("tls", &config.tls, &config.data_dir, clock.clone());
    // A certificate that is not readable is found before anything is made.
    let given = if config.tls.cert_file.is_empty() { None } else { Some(open_tls()?) };
    data::prepare("dataDir", &config.data_dir)?;
    let tls = Arc::new(given.map_or_else(open_tls, Ok)?);
    let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Zone };
    let mut tasks = Tasks::default();
    let opened = config.store.open(&config.data_dir, &kinds, &clock).await;
    let (store, writing) = opened.context("store")?;
    tasks.spawn("store", async { Ok(writing.await?) });
    let (config, kinds, ready) = (config.clone(), Arc::new(kinds), Ready::new(shutdown.clone()));
    let starting = ready.guard("store");
    Ok(Bound { addresses, config, ports, tls, store, kinds, tasks, clock, ready, starting })
}

impl Bound {
    /// Looks at what is stored.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<()> {
        let parts = Parts {
            config: self.config.clone(),
            kinds: self.kinds,
            store: self.store,
            clock: self.clock,
            about: About::of_this_process(),
            expiring: vec![self.tls.clone(), TokenFile::admin(&self.config.data_dir)],
            metrics: Metrics::default(),
            stop: shutdown.clone(),
        };
        let (store, author, clock) = (&parts.store, parts.author(), &parts.clock);
        first_start::ensure(store, &author, &self.config, clock).await?;
        let admin = admin::router(self.ready.clone(), parts.metrics.clone());
        self.tls.count(&parts.metrics);
        let core = parts.core().await?;

        let (tasks, tls) = (&mut self.tasks, &self.tls);
        let zones = TlsListener::new(self.ports.kds, tls.clone(), Alpn::Grpc);
        let (router, stop) = (core.router, || shutdown.clone());
        for (name, task) in core.tasks {
            tasks.spawn(name, task);
        }
        tasks.spawn("kds.serve", core.zones.serve(zones.incoming()).map(|ended| Ok(ended?)));
        if let Some(port) = self.ports.http {
            tasks.spawn("api.http", serve::plain(port, router.clone(), stop()).map(Ok));
        }
        if let Some(port) = self.ports.https {
            let port = TlsListener::new(port, tls.clone(), Alpn::Http);
            tasks.spawn("api.https", serve::tls(port, router, stop()).map(Ok));
        }
        tasks.spawn("admin", serve::plain(self.ports.admin, admin, stop()).map(Ok));
        drop(self.starting);
        tracing::info!(addresses = ?self.addresses, "listening");
        Ok(self.tasks.run(shutdown).await?)
    }
}
