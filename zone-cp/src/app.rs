//! From settings to a running control plane.

use crate::{
    Addresses, Config,
    dataplanes::{self, Dataplanes},
    defaults,
    identities::{self, Identities, Issuer},
    join,
    names::{Dns, Names},
    ports::{Ports, Sockets},
    reconcile, services,
};
use anyhow::{Context, Result};
use api::{About, ApiState, NoHooks, admin_token, author::Author, mesh_defaults::MeshDefaults};
use daemon::{Clock, Metrics, Ready, Tasks, admin, data, ready::Guard};
use dns::Records;
use identity::tls::ServerTls;
use kinds::labels::Env;
use resource::{MeshName, Peer, ZoneName};
use std::{pin::Pin, sync::Arc};
use store::{Backend, Kinds, Local, Memory, StoreError};
use tokio_util::sync::CancellationToken;

type Writer = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// A control plane whose ports are open and whose store is loaded. Nothing runs yet.
pub struct Bound {
    /// Where it listens.
    pub addresses: Addresses,
    config: Config,
    zone: ZoneName,
    ports: Ports,
    kinds: Arc<Kinds>,
    store: Local,
    writer: Writer,
    records: Arc<Records>,
    clock: Clock,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Opens ports, certificate and store. What cannot be opened is named, and nothing was changed.
pub async fn bind(config: &Config) -> Result<Bound> {
    let clock = Clock::system();
    let zone = ZoneName::new(&config.zone.name).context("zone.name")?;
    let records = Arc::<Records>::default();
    let sockets = Sockets::open(config, records.clone()).await?;
    join::check(config)?;
    let open_tls = || ServerTls::open("tls", &config.tls, &config.data_dir, clock.clone());
    // A certificate that is not readable is found before anything is made.
    let given = if config.tls.cert_file.is_empty() { None } else { Some(open_tls()?) };
    data::prepare("dataDir", &config.data_dir)?;
    let ports = sockets.with(Arc::new(given.map_or_else(open_tls, Ok)?));
    let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Global };
    let (store, writer): (Local, Writer) = match config.store.kind {
        crate::config::StoreKind::Embedded => {
            let file = config.data_dir.join("store.redb");
            let opened = store::open_file(file, kinds.clone(), clock.clone()).await;
            let (store, writer) = opened.context("store")?;
            (store, Box::pin(writer.run_on_thread()))
        }
        crate::config::StoreKind::Memory => {
            let memory = Memory::new(uuid::Uuid::new_v4().as_u64_pair().0);
            let (store, writer) = store::open(memory, kinds.clone(), clock.clone())?;
            (store, Box::pin(writer.run_on_thread()))
        }
    };
    let (addresses, kinds) = (ports.addresses()?, Arc::new(kinds));
    let config = config.clone();
    Ok(Bound { addresses, config, zone, ports, kinds, store, writer, records, clock })
}

impl Bound {
    /// Runs until `shutdown`.
    #[expect(clippy::too_many_lines, reason = "the list of all parts, in order, without logic")]
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        tracing::info!(zone = %self.zone, addresses = ?self.addresses, "listening");
        let Self { config, zone, ports, kinds, store, writer, records, clock, .. } = self;
        let place = defaults::place(zone.clone());
        let (mut tasks, stop) = (Tasks::default(), || shutdown.clone());
        let (metrics, ready) = (Metrics::default(), Ready::new(shutdown.clone()));
        let guards = ["store", "kds", "xds"].map(|part| ready.guard(part));
        let [store_guard, kds_guard, xds_guard] = guards;

        tasks.spawn("admin", serve_admin(ports.admin, ready.clone(), metrics.clone(), stop()));
        tasks.spawn("store", async move { Ok(writer.await?) });
        admin_token::ensure(&store, &kinds, &place, &config.data_dir, &clock).await?;
        let alone = config.global.address.is_empty();
        let author = Author { kinds: kinds.clone(), place: place.clone() };
        defaults::ensure(&store, &author, &zone).await?;
        if alone {
            defaults::ensure_meshes(&store, &author).await?;
        }
        drop(store_guard);

        let hostname = hostname();
        let short: String = uuid::Uuid::new_v4().to_string().chars().take(4).collect();
        let instance = format!("{hostname}-{short}");
        let (issuer, renewed) = Issuer::new(clock.clone());
        let meshes = reconcile::Meshes::new(
            zone.clone(),
            Arc::new(issuer.clone()),
            clock.clone(),
            store.reader(),
            kinds.id_of(kinds::config::KIND.name).context("a kind is missing")?,
        );
        let names = Arc::new(Names::default());
        let parts = dataplanes::Parts {
            store: store.clone(),
            kinds: kinds.clone(),
            place: place.clone(),
            instance: instance.clone(),
            meshes: meshes.clone(),
            issuer: issuer.clone(),
            names: names.clone(),
            clock: clock.clone(),
        };
        let dataplanes = Dataplanes::new(parts, stop())?;
        let answerer = Arc::new(dataplanes.questions());
        let client = join::client(&config, (&store, &kinds), &instance, answerer, &clock)?;
        let (federated, known) = (client.is_some(), client.as_ref().map(|client| client.handle()));
        match client {
            Some(client) => {
                tasks.spawn("kds.complete", join::complete(client.handle(), kds_guard, stop()));
                let stop = stop();
                tasks.spawn("kds", async move {
                    client.run(stop).await;
                    Ok(())
                });
            }
            None => drop(kds_guard),
        }

        let identities = Identities::new(
            store.clone(),
            &kinds,
            zone.clone(),
            Env::Universal,
            issuer.clone(),
            clock.clone(),
        );
        tasks.spawn("identities", identities.context("a kind is missing")?.run(stop()));
        let settings = services::Settings::universal(
            zone.clone(),
            &config.services,
            &config.vips,
            config.dns.apexes.clone(),
        );
        tasks.spawn(
            "services",
            services::run(
                store.clone(),
                (*kinds).clone(),
                settings,
                clock.clone(),
                metrics.clone(),
                stop(),
            ),
        );
        let follow = follow_meshes(meshes.clone(), &store, &kinds, renewed, xds_guard, stop());
        tasks.spawn("reconcile", follow);
        tasks.spawn("xds.open", open_when_complete(meshes, ready, issuer, stop()));

        let served = dataplanes.serve(ports.proxies);
        tasks.spawn("dataplanes", async move {
            served.await;
            Ok(())
        });
        tasks.spawn("dataplanes.keep", async move { Ok(dataplanes.keep().await?) });
        let mesh = MeshName::new(&config.dns.mesh).context("dns.mesh")?;
        let following =
            follow_names(names.clone(), (&store, &kinds), Dns { mesh, records }, stop());
        tasks.spawn("names", join::after(known, stop(), following?));
        let dns = ports.dns;
        let stopped = stop();
        tasks.spawn("dns", async move { Ok(dns.run(stopped).await?) });

        let about = About {
            version: env!("CARGO_PKG_VERSION").into(),
            instance_id: instance,
            hostname: hostname.clone(),
            gui: String::new(),
        };
        let router = api::router(ApiState {
            entry: config.api.entry(&hostname),
            config: serde_json::to_value(&config)?,
            backend: store,
            kinds,
            place: api::Place { here: place, federated },
            clock,
            about,
            hooks: if alone { Arc::new(MeshDefaults { author }) } else { Arc::new(NoHooks) },
            shutdown: shutdown.clone(),
        });
        if let Some(http) = ports.http {
            let (router, stop) = (router.clone(), stop());
            tasks.spawn("api.http", async move {
                api::serve::plain(http, router, stop).await;
                Ok(())
            });
        }
        if let Some(https) = ports.https {
            let stop = stop();
            tasks.spawn("api.https", async move {
                api::serve::tls(https, router, stop).await;
                Ok(())
            });
        }
        Ok(tasks.run(shutdown).await?)
    }
}

async fn serve_admin(
    listener: tokio::net::TcpListener,
    ready: Ready,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<()> {
    let router = admin::router(ready, metrics);
    Ok(axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?)
}

/// Keeps what proxies get.
fn follow_meshes(
    meshes: reconcile::Meshes,
    store: &Local,
    kinds: &Arc<Kinds>,
    renewed: identities::Changes,
    guard: Guard,
    stop: CancellationToken,
) -> impl Future<Output = Result<()>> + Send + 'static {
    let (store, kinds) = (store.clone(), kinds.clone());
    async move { Ok(meshes.run(&store, &kinds, renewed, guard, stop).await?) }
}

/// Serves no proxy before the zone knows everything once: what it did not know would be taken for
/// gone.
async fn open_when_complete(
    meshes: reconcile::Meshes,
    ready: Ready,
    issuer: Issuer,
    stop: CancellationToken,
) -> Result<()> {
    let complete = async {
        ready.wait_for("kds").await;
        issuer.complete().await;
    };
    if stop.run_until_cancelled(complete).await.is_some() {
        meshes.open();
        stop.cancelled().await;
    }
    Ok(())
}

/// Keeps the names of services.
fn follow_names(
    names: Arc<Names>,
    (store, kinds): (&Local, &Kinds),
    dns: Dns,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let reader = store.reader();
    let services = kinds.id_of(kinds::mesh_service::KIND.name).context("a kind is missing")?;
    Ok(async move {
        names.run(&reader, services, Some(dns), stop).await;
        Ok(())
    })
}

/// The name of the machine.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
