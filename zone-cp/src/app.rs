//! From settings to a running control plane.

use crate::{
    Addresses, Config, Environment,
    beacons::Own,
    cluster::{self, Cluster},
    identities::Issuer,
    join,
    names::Names,
    parts::{Parts, Told, open_when_complete},
    ports::{Ports, Sockets, alive},
    propagation,
};
use anyhow::{Context, Result};
use api::{About, expiry::Holder, serve};
use axum::Router;
use daemon::{Clock, Metrics, Ready, Tasks, admin, data};
use dns::Records;
use identity::tls::{ServerTls, TlsListener};
use kinds::labels::Place;
use kubernetes::admission::Certificates;
use resource::{Peer, ZoneName};
use std::sync::Arc;
use store::{Backend as _, Kinds, Local, StoreKind, Writing};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A control plane whose ports are open and whose store is loaded. Nothing runs yet.
pub struct Bound {
    /// Where it listens.
    pub addresses: Addresses,
    config: Config,
    zone: ZoneName,
    ports: Ports,
    tls: Arc<ServerTls>,
    kinds: Arc<Kinds>,
    store: Local,
    writer: Writing,
    /// Names the place of the store, if that outlives this process.
    home: Option<String>,
    cluster: Option<Cluster>,
    /// Where the API server asks, and what it trusts then.
    admission: Option<(TcpListener, Certificates)>,
    metrics: Metrics,
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
    let cluster = match config.environment {
        Environment::Universal => None,
        Environment::Kubernetes => {
            Some(Cluster::open(&config.kubernetes, &clock).await.context("kubernetes")?)
        }
    };
    let (tls, admission) = match &cluster {
        None => (open_tls(config, &clock)?, None),
        Some(cluster) => {
            data::prepare("dataDir", &config.data_dir)?;
            let listener = cluster.listen().await?;
            let certificates = alive(&sockets.admin, Box::pin(cluster.certificates())).await?;
            let certificates = certificates.context("kubernetes")?;
            (certificates.tls().clone(), Some((listener, certificates)))
        }
    };
    let ports = sockets.with(tls.clone());
    let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Global };
    let metrics = Metrics::default();
    let (store, writer) = match &cluster {
        None => config.store.open(&config.data_dir, &kinds, &clock).await.context("store")?,
        Some(cluster) => {
            let opened = alive(&ports.admin, Box::pin(cluster.store(&kinds, &metrics))).await?;
            opened.context("kubernetes")?
        }
    };
    let home = match &cluster {
        None => {
            (config.store.kind == StoreKind::Embedded).then(|| format!("store/{:x}", store.epoch()))
        }
        Some(cluster) => Some(cluster.name().await.context("kubernetes")?),
    };
    let (addresses, kinds) = (ports.addresses()?, Arc::new(kinds));
    let config = config.clone();
    Ok(Bound {
        addresses,
        config,
        zone,
        ports,
        tls,
        kinds,
        store,
        writer,
        home,
        cluster,
        admission,
        metrics,
        records,
        clock,
    })
}

impl Bound {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        tracing::info!(zone = %self.zone, addresses = ?self.addresses, "listening");
        let Self { config, zone, ports, tls, kinds, store, writer, home, .. } = self;
        let Self { cluster, admission, metrics, records, clock, .. } = self;
        let about = About::of_this_process();
        let parts = Parts {
            place: Place::Zone { name: zone.clone(), env: config.environment.env() },
            instance: about.instance_id.clone(),
            home,
            alone: config.global.address.is_empty(),
            stop: shutdown.clone(),
            config,
            zone,
            kinds,
            store,
            clock,
        };
        let (mut tasks, stop) = (Tasks::default(), || shutdown.clone());
        let ready = Ready::new(shutdown.clone());
        tls.count(&metrics);
        let mut starting = Some(ready.guard("store"));
        let admin = admin::router(ready.clone(), metrics.clone());
        tasks.spawn("admin", done(serve::plain(ports.admin, admin, stop())));
        tasks.spawn("store", async move { Ok(writer.await?) });
        let mut leading = None;
        if let Some((cluster, admission)) = cluster.as_ref().zip(admission) {
            let ready = (&ready, &mut starting);
            leading = cluster.begin(&mut tasks, &parts, admission, &metrics, ready).await;
            if leading.is_none() {
                drop(parts);
                return Ok(tasks.run(shutdown).await?);
            }
        }
        let [store_guard, kds_guard, xds_guard] = ["store", "kds", "xds"].map(|it| ready.guard(it));
        drop(starting);
        parts.first_start().await?;
        drop(store_guard);
        let (issuer, renewed) = Issuer::new(parts.clock.clone());
        let reviewer = cluster.as_ref().map(Cluster::reviewer);
        let (meshes, names) = (parts.meshes(&issuer)?, Arc::new(Names::default()));
        let dataplanes =
            parts.dataplanes(meshes.clone(), issuer.clone(), &names, reviewer, &metrics)?;
        let envoys = dataplanes.questions();
        let propagation = parts.propagation(&meshes, &envoys);
        metrics.collect(propagation::Numbers(Arc::new(propagation.clone())));
        let answers = Arc::new(propagation::Answers(propagation.clone()));
        let known = parts.join(&mut tasks, answers, kds_guard)?;

        let held = vec![tls as Arc<dyn Holder>, Arc::new(issuer.clone()), dataplanes.expiring()];
        let expiry = parts.expiry(held, &metrics)?;
        let beacons = meshes.beacons().clone();
        let fresh = Own { zone: parts.zone.clone(), beacons, global: known.clone() };
        metrics.collect(fresh.clone());
        tasks.spawn("beacons.echo", parts.echo(&fresh.beacons));
        tasks.spawn("identities", parts.identities(&issuer, known.as_ref())?);
        tasks.spawn("meshes.insights", parts.mesh_insights());
        tasks.spawn("services", parts.services(metrics.clone()));
        tasks.spawn("reconcile", parts.reconcile(&meshes, renewed, xds_guard));
        tasks.spawn("xds.open", open_when_complete(meshes, ready, issuer, stop()));
        tasks.spawn("dataplanes", done(dataplanes.serve(ports.proxies)));
        tasks.spawn("dataplanes.keep", dataplanes.keep());
        tasks.spawn("names", join::after(known.clone(), stop(), parts.names(names, records)?));
        let (dns, stopped) = (ports.dns, stop());
        tasks.spawn("dns", async move { Ok(dns.run(stopped).await?) });
        let told = Told {
            propagation: Some(Arc::new(propagation)),
            freshness: Some(Arc::new(fresh)),
            expiry: Some(expiry),
            envoys: Some(Arc::new(envoys)),
        };
        let router = parts.api(about, known.clone(), told)?;
        serve_api(&mut tasks, (ports.http, ports.https), router, &shutdown);
        if let Some(cluster) = &cluster {
            cluster.work(&mut tasks, &parts, known, &metrics);
        }
        // Who holds the store keeps its writer from ending.
        drop(parts);
        tasks.run(shutdown).await?;
        // Last, when this process writes nothing any more.
        cluster::give_up(leading).await;
        Ok(())
    }
}

fn serve_api(
    tasks: &mut Tasks,
    (http, https): (Option<TcpListener>, Option<TlsListener>),
    router: Router,
    stop: &CancellationToken,
) {
    if let Some(http) = http {
        tasks.spawn("api.http", done(serve::plain(http, router.clone(), stop.clone())));
    }
    if let Some(https) = https {
        tasks.spawn("api.https", done(serve::tls(https, router, stop.clone())));
    }
}

/// The certificate that is set, or one of our own.
fn open_tls(config: &Config, clock: &Clock) -> Result<Arc<ServerTls>> {
    let open = || ServerTls::open("tls", &config.tls, &config.data_dir, clock.clone());
    // A certificate that is not readable is found before anything is made.
    let given = if config.tls.cert_file.is_empty() { None } else { Some(open()?) };
    data::prepare("dataDir", &config.data_dir)?;
    Ok(Arc::new(given.map_or_else(open, Ok)?))
}

async fn done(part: impl Future<Output = ()>) -> Result<()> {
    part.await;
    Ok(())
}
