//! What global does, whatever its zones and users connect through.

use crate::{
    Config,
    about::settings,
    admission::Gatekeeper,
    audiences::Audiences,
    envoys::OfZones,
    hooks::GlobalHooks,
    numbers::{Numbers, Stored},
    zones::{Freshness, Insights, Propagation, WithProxies},
};
use anyhow::Result;
use api::{
    About, ApiState, Place,
    author::Author,
    expiry::{Expiry, Holder},
    mesh_defaults::MeshDefaults,
    mesh_insights::MeshInsights,
};
use axum::Router;
use daemon::{Clock, Metrics};
use futures::{FutureExt as _, future::BoxFuture};
use kds::global::Server;
use std::sync::Arc;
use store::{Backend as _, Kinds, Local};
use tokio_util::sync::CancellationToken;

/// What all of it shares.
#[derive(Clone)]
pub struct Parts {
    /// What was set.
    pub config: Config,
    /// Its kinds.
    pub kinds: Arc<Kinds>,
    /// Where they are kept.
    pub store: Local,
    /// What time it is.
    pub clock: Clock,
    /// This process.
    pub about: About,
    /// What of it expires and is not stored.
    pub expiring: Vec<Arc<dyn Holder>>,
    /// What it counts.
    pub metrics: Metrics,
    /// Ends everything.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A task and its name.
pub type Task = (&'static str, BoxFuture<'static, Result<()>>);

/// Global without ports. Nothing of it runs by itself.
pub struct Core {
    /// Takes the connections of zones.
    pub zones: Server<Local>,
    /// Answers users.
    pub router: Router,
    /// Must run meanwhile.
    pub tasks: Vec<Task>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("zones", &self.zones).finish_non_exhaustive()
    }
}

impl Parts {
    /// Writes as a control plane.
    #[must_use]
    pub fn author(&self) -> Author {
        Author { kinds: self.kinds.clone(), place: Place::global().here }
    }

    /// Judges what is stored. Everything else may begin afterwards.
    pub async fn core(self) -> Result<Core> {
        let (author, store, clock) = (self.author(), &self.store, &self.clock);
        let insights = Arc::new(Insights::new(
            author.clone(),
            store.reader(),
            self.about.instance_id.clone(),
            clock.clone(),
        ));
        insights.close_all(store).await?;
        self.metrics.collect(Stored { reader: store.reader(), kinds: self.kinds.clone() });
        let allowed = self.config.allowed_trust.clone();
        let mut audiences = Audiences::new(author.clone(), store.reader(), allowed);
        // Before zones are served: what has not been judged is hidden.
        audiences.step(store).await?;
        let plain = self.config.kds.plain_zones.clone();
        let gate = Gatekeeper::new(store.clone(), author, plain, clock.clone());
        let (watched, gate) = (gate.follow().await?, Arc::new(gate));
        let (reader, metrics) = (|| store.reader(), &self.metrics);
        let next = insights.clone();
        let freshness = Freshness::new(self.author(), reader(), clock.clone(), metrics, next);
        let next = freshness.clone();
        let propagation = Propagation::new(self.author(), reader(), clock.clone(), metrics, next);
        let zones = Server::new(
            (store.clone(), self.kinds.clone()),
            settings(&self.about, self.config.kds.zone_quota.quotas()),
            gate.clone(),
            Arc::new(Numbers::new(&self.metrics, propagation.clone())),
            self.stop.clone(),
        )?;
        let (reader, connected) = (store.reader(), zones.admin());
        let expiring = self.expiring.iter().cloned().chain([gate.clone() as Arc<dyn Holder>]);
        let (kinds, place) = (&*self.kinds, &Place::global().here);
        let expiry = Expiry::new((kinds, place), reader.clone(), clock.clone(), expiring.collect());
        expiry.publish(&self.metrics);
        let propagation = WithProxies { propagation, zones: connected.clone() };
        let envoys = OfZones { author: self.author(), reader, zones: connected };
        let stop = || self.stop.clone();
        let meshes = MeshInsights::new(self.author(), store.reader());
        let meshes = meshes.run(store.clone(), stop());
        let tasks: Vec<Task> = vec![
            ("zones.insights", insights.run(store.clone(), stop()).boxed()),
            ("zones.admission", until(stop(), gate.withdraw(watched).map(|it| Ok(it?))).boxed()),
            ("meshes.insights", meshes.map(|ended| Ok(ended?)).boxed()),
            ("beacons", freshness.clone().shine(store.clone(), stop()).boxed()),
            ("beacons.echoes", until(stop(), freshness.clone().listen()).boxed()),
            ("audiences", until(stop(), audiences.run(store.clone())).boxed()),
        ];
        let router = api::router(ApiState {
            propagation: Some(Arc::new(propagation)),
            freshness: Some(freshness),
            expiry: Some(expiry),
            envoys: Some(Arc::new(envoys)),
            ..self.api()?
        });
        Ok(Core { zones, router, tasks })
    }

    fn api(self) -> Result<ApiState<Local>> {
        Ok(ApiState {
            hooks: Arc::new(GlobalHooks { meshes: MeshDefaults { author: self.author() } }),
            config: serde_json::to_value(&self.config)?,
            entry: self.config.api.entry(&self.about.hostname),
            backend: self.store,
            kinds: self.kinds,
            place: Place::global(),
            clock: self.clock,
            about: self.about,
            global: None,
            propagation: None,
            freshness: None,
            expiry: None,
            envoys: None,
            shutdown: self.stop,
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
