//! The parts of a zone's control plane, each made of what they all share.

use crate::{
    Config,
    beacons::{self, Beacons},
    dataplanes::{self, Dataplanes, Review},
    defaults,
    following::Global,
    hooks::OwnZone,
    identities::{self, Identities, Issuer},
    join,
    names::{Dns, Names},
    propagation, reconcile, services,
};
use anyhow::{Context, Result};
use api::{
    About, ApiState, Hooks, NoHooks, admin_token,
    author::Author,
    expiry::{Expiry, Holder, TokenFile},
    following::Follow,
    freshness::Freshness,
    inspect::Envoys,
    mesh_defaults::MeshDefaults,
    mesh_insights::MeshInsights,
    propagation::Propagate,
};
use axum::Router;
use daemon::{Clock, Metrics, Ready, Tasks, ready::Guard};
use dns::Records;
use futures::{FutureExt as _, future::BoxFuture};
use kds::{admin::Answerer, zone::Handle};
use kinds::labels::{Env, Place};
use resource::{MeshName, ZoneName};
use std::sync::Arc;
use store::{Backend, Kinds, Local};
use tokio_util::sync::CancellationToken;

/// What all parts share.
pub struct Parts {
    /// What was set.
    pub config: Config,
    /// The zone.
    pub zone: ZoneName,
    /// Where it writes.
    pub place: Place,
    /// Names this process.
    pub instance: String,
    /// Names the place where resources are kept, if that outlives this process.
    pub home: Option<String>,
    /// Whether the zone has no global.
    pub alone: bool,
    /// Its kinds.
    pub kinds: Arc<Kinds>,
    /// Where they are kept.
    pub store: Local,
    /// What time it is.
    pub clock: Clock,
    /// Ends everything.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("zone", &self.zone).finish_non_exhaustive()
    }
}

/// What the API tells besides what is stored.
#[derive(Default)]
pub struct Told {
    /// What Envoys say.
    pub envoys: Option<Arc<dyn Envoys>>,
    /// How fresh the zone is.
    pub freshness: Option<Arc<dyn Freshness>>,
    /// What expires.
    pub expiry: Option<Arc<Expiry>>,
    /// What became of resources in proxies.
    pub propagation: Option<Arc<dyn Propagate>>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

const MISSING: &str = "a kind is missing";

impl Parts {
    const fn env(&self) -> Env {
        self.config.environment.env()
    }

    fn author(&self) -> Author {
        Author { kinds: self.kinds.clone(), place: self.place.clone() }
    }

    /// Makes what a zone has from its first start on.
    pub(crate) async fn first_start(&self) -> Result<()> {
        let (store, data) = (&self.store, &self.config.data_dir);
        admin_token::ensure(store, &self.kinds, &self.place, data, &self.clock).await?;
        self.defaults().await
    }

    /// Makes the resources among that.
    pub async fn defaults(&self) -> Result<()> {
        let (store, author) = (&self.store, self.author());
        defaults::ensure(store, &author, &self.zone).await?;
        if self.alone {
            defaults::ensure_meshes(store, &author).await?;
        }
        Ok(())
    }

    /// Gives new meshes their defaults, unless there is a global that does.
    pub(crate) fn mesh_defaults(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let (store, author, stop) = (self.store.clone(), self.author(), self.stop.clone());
        let alone = self.alone;
        async move {
            if alone {
                return defaults::follow_meshes(store, author, stop).await;
            }
            drop(store);
            stop.cancelled().await;
            Ok(())
        }
    }

    /// Connects with global, if there is one. `guard` is held until everything that matters is
    /// known.
    pub(crate) fn join(
        &self,
        tasks: &mut Tasks,
        answerer: Arc<dyn Answerer>,
        guard: Guard,
    ) -> Result<Option<Handle>> {
        let shared = (&self.store, &self.kinds);
        let names = (&*self.instance, self.home.clone());
        let client = join::client(&self.config, shared, names, answerer, &self.clock)?;
        let Some(client) = client else {
            drop(guard);
            return Ok(None);
        };
        let (handle, stop) = (client.handle(), self.stop.clone());
        tasks.spawn("kds.complete", join::complete(handle.clone(), guard, stop.clone()));
        tasks.spawn("kds", async move {
            client.run(stop).await;
            Ok(())
        });
        Ok(Some(handle))
    }

    /// Keeps authorities and certificates.
    pub(crate) fn identities(
        &self,
        issuer: &Issuer,
        global: Option<&Handle>,
    ) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
        let (store, zone, clock) = (self.store.clone(), self.zone.clone(), self.clock.clone());
        let identities =
            Identities::new(store, &self.kinds, zone, self.env(), issuer.clone(), clock);
        let global = global.map(Handle::state);
        Ok(identities.context(MISSING)?.under(global).run(self.stop.clone()))
    }

    /// Counts what there is in each mesh, unless there is a global that does.
    pub(crate) fn mesh_insights(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let counting = self.alone.then(|| MeshInsights::new(self.author(), self.store.reader()));
        let (store, stop) = (self.store.clone(), self.stop.clone());
        async move {
            match counting {
                Some(counting) => Ok(counting.run(store, stop).await?),
                None => {
                    drop(store);
                    stop.cancelled().await;
                    Ok(())
                }
            }
        }
    }

    /// Makes services, addresses and names out of workloads.
    pub fn services(&self, metrics: Metrics) -> impl Future<Output = Result<()>> + Send + 'static {
        let config = &self.config;
        let apexes = config.dns.apexes.clone();
        let (place, services, vips) = (self.place.clone(), &config.services, &config.vips);
        let mut settings = services::Settings::new(place, services, vips, apexes);
        if self.env() == Env::Kubernetes {
            settings.system_namespace = Some(config.kubernetes.system_namespace.clone());
        }
        let (store, kinds) = (self.store.clone(), (*self.kinds).clone());
        services::run(store, kinds, settings, self.clock.clone(), metrics, self.stop.clone())
    }

    /// The tables of each mesh.
    pub(crate) fn meshes(&self, issuer: &Issuer) -> Result<reconcile::Meshes> {
        let config = self.kinds.id_of(kinds::config::KIND.name).context(MISSING)?;
        let (zone, issuer, clock) =
            (self.zone.clone(), Arc::new(issuer.clone()), self.clock.clone());
        Ok(reconcile::Meshes::new(zone, issuer, clock, self.store.reader(), config))
    }

    /// Keeps what proxies get.
    pub(crate) fn reconcile(
        &self,
        meshes: &reconcile::Meshes,
        renewed: identities::Changes,
        guard: Guard,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let (meshes, store, kinds) = (meshes.clone(), self.store.clone(), self.kinds.clone());
        let stop = self.stop.clone();
        async move { Ok(meshes.run(&store, &kinds, renewed, guard, stop).await?) }
    }

    /// Serves proxies.
    pub(crate) fn dataplanes(
        &self,
        meshes: reconcile::Meshes,
        issuer: Issuer,
        names: &Arc<Names>,
        cluster: Option<Arc<dyn Review>>,
        metrics: &Metrics,
    ) -> Result<Dataplanes<Local>> {
        let parts = dataplanes::Parts {
            store: self.store.clone(),
            kinds: self.kinds.clone(),
            place: self.place.clone(),
            instance: self.instance.clone(),
            meshes,
            issuer,
            names: names.clone(),
            cluster,
            metrics: metrics.clone(),
            clock: self.clock.clone(),
        };
        Ok(Dataplanes::new(parts, self.stop.clone())?)
    }

    /// What expires: `held` besides what is stored and in files.
    pub(crate) fn expiry(
        &self,
        held: Vec<Arc<dyn Holder>>,
        metrics: &Metrics,
    ) -> Result<Arc<Expiry>> {
        let files = join::expiring(&self.config)?.into_iter();
        let holders = files.chain(held).chain([TokenFile::admin(&self.config.data_dir)]).collect();
        let (shared, reader) = ((&*self.kinds, &self.place), self.store.reader());
        let expiry = Expiry::new(shared, reader, self.clock.clone(), holders);
        expiry.publish(metrics);
        Ok(expiry)
    }

    /// What became of resources in proxies.
    pub(crate) fn propagation(
        &self,
        meshes: &reconcile::Meshes,
        envoys: &dataplanes::Questions,
    ) -> propagation::Own {
        propagation::Own {
            zone: self.zone.clone(),
            kinds: self.kinds.clone(),
            reader: self.store.reader(),
            clock: self.clock.clone(),
            meshes: meshes.clone(),
            envoys: envoys.clone(),
        }
    }

    /// Tells global how far its beacons come.
    pub(crate) fn echo(
        &self,
        beacons: &Beacons,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        beacons::run(beacons.clone(), self.author(), self.store.clone(), self.stop.clone())
    }

    /// Its tables as they are without proxies, and what tells global how far beacons come.
    pub fn line(&self) -> Result<[BoxFuture<'static, Result<()>>; 2]> {
        let (issuer, renewed) = Issuer::new(self.clock.clone());
        let meshes = self.meshes(&issuer)?;
        let echo = self.echo(meshes.beacons());
        let guard = Ready::new(self.stop.clone()).guard("xds");
        Ok([self.reconcile(&meshes, renewed, guard).boxed(), echo.boxed()])
    }

    /// Keeps the names of services.
    pub(crate) fn names(
        &self,
        names: Arc<Names>,
        records: Arc<Records>,
    ) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
        let mesh = MeshName::new(&self.config.dns.mesh).context("dns.mesh")?;
        let services = self.kinds.id_of(kinds::mesh_service::KIND.name).context(MISSING)?;
        let (reader, stop) = (self.store.reader(), self.stop.clone());
        Ok(async move {
            names.run(&reader, services, Some(Dns { mesh, records }), stop).await;
            Ok(())
        })
    }

    fn hooks(&self) -> Arc<dyn Hooks> {
        let zone = self.zone.clone();
        if self.alone {
            Arc::new(OwnZone { zone, next: MeshDefaults { author: self.author() } })
        } else {
            Arc::new(OwnZone { zone, next: NoHooks })
        }
    }

    /// The REST API.
    pub fn api(&self, about: About, global: Option<Handle>, told: Told) -> Result<Router> {
        let Told { envoys, freshness, expiry, propagation } = told;
        Ok(api::router(ApiState {
            backend: self.store.clone(),
            kinds: self.kinds.clone(),
            place: api::Place { here: self.place.clone(), federated: !self.alone },
            clock: self.clock.clone(),
            entry: self.config.api.entry(&about.hostname),
            about,
            config: serde_json::to_value(&self.config)?,
            hooks: self.hooks(),
            global: global.map(|handle| Arc::new(Global(handle)) as Arc<dyn Follow>),
            propagation,
            freshness,
            expiry,
            envoys,
            shutdown: self.stop.clone(),
        }))
    }
}

/// Serves no proxy before the zone knows everything once: what it did not know would be taken for
/// gone.
pub(crate) async fn open_when_complete(
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
