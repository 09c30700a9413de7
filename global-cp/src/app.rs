//! From settings to a running control plane.

use crate::{
    Addresses, Config,
    about::settings,
    admission::Gatekeeper,
    audiences::Audiences,
    envoys::OfZones,
    first_start,
    hooks::GlobalHooks,
    numbers::{Numbers, Stored},
    ports::{self, Ports},
    zones::{Insights, Propagation},
};
use anyhow::{Context as _, Result};
use api::{
    About, ApiState, Place, author::Author, mesh_defaults::MeshDefaults, propagation::Propagate,
    serve,
};
use daemon::{Clock, Metrics, Ready, Tasks, admin, data, ready::Guard};
use futures::FutureExt as _;
use identity::tls::{Alpn, ServerTls, TlsListener};
use kds::global::Server;
use resource::Peer;
use std::{future::Future, sync::Arc};
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
        let author = Author { kinds: self.kinds.clone(), place: Place::global().here };
        let (store, clock) = (&self.store, &self.clock);
        first_start::ensure(store, &author, &self.config, clock).await?;
        let about = About::of_this_process();
        let insights = Arc::new(Insights::new(
            author.clone(),
            store.reader(),
            about.instance_id.clone(),
            clock.clone(),
        ));
        insights.close_all(store).await?;
        let metrics = Metrics::default();
        metrics.collect(Stored { reader: store.reader(), kinds: self.kinds.clone() });
        let allowed = self.config.allowed_trust.clone();
        let mut audiences = Audiences::new(author.clone(), store.reader(), allowed);
        // Before zones are served: what has not been judged is hidden.
        audiences.step(store).await?;
        let plain = self.config.kds.plain_zones.clone();
        let gate = Gatekeeper::new(store.clone(), author.clone(), plain, clock.clone());
        let (watched, gate) = (gate.follow().await?, Arc::new(gate));
        let propagation = Propagation::new(
            author.clone(),
            store.reader(),
            clock.clone(),
            &metrics,
            insights.clone(),
        );
        let kds = Server::new(
            (store.clone(), self.kinds.clone()),
            settings(&about),
            gate.clone(),
            Arc::new(Numbers::new(&metrics, propagation.clone())),
            shutdown.clone(),
        )?;
        let (reader, zones) = (store.reader(), kds.admin());
        let envoys = OfZones { author: author.clone(), reader, zones };
        let known: (_, Arc<dyn Propagate>) = (envoys, propagation);
        let router = api::router(self.api_state(about, author, known, shutdown.clone())?);
        let admin = admin::router(self.ready.clone(), metrics);

        let (tasks, tls) = (&mut self.tasks, &self.tls);
        let zones = TlsListener::new(self.ports.kds, tls.clone(), Alpn::Grpc);
        let (store, stop) = (self.store, || shutdown.clone());
        tasks.spawn("zones.insights", insights.run(store.clone(), stop()));
        tasks.spawn(
            "zones.admission",
            until(stop(), gate.withdraw(watched).map(|ended| Ok(ended?))),
        );
        tasks.spawn("audiences", until(stop(), audiences.run(store)));
        tasks.spawn("kds.serve", kds.serve(zones.incoming()).map(|ended| Ok(ended?)));
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

    fn api_state(
        &self,
        about: About,
        author: Author,
        (envoys, propagation): (OfZones, Arc<dyn Propagate>),
        shutdown: CancellationToken,
    ) -> Result<ApiState<Local>> {
        Ok(ApiState {
            backend: self.store.clone(),
            kinds: self.kinds.clone(),
            place: Place::global(),
            clock: self.clock.clone(),
            entry: self.config.api.entry(&about.hostname),
            about,
            config: serde_json::to_value(&self.config)?,
            hooks: Arc::new(GlobalHooks { meshes: MeshDefaults { author } }),
            global: None,
            propagation: Some(propagation),
            envoys: Some(Arc::new(envoys)),
            shutdown,
        })
    }
}

/// Runs `task` until `stop`.
async fn until(stop: CancellationToken, task: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = task => ended,
    }
}
