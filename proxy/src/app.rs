//! One proxy from its settings to its end.

use crate::{
    config::Settings,
    dataplane::Dataplane,
    envoy::{Envoy, Launch, Socket, System},
    probe,
    session::{LARGEST_ANSWER, Session, Tls},
    version,
    workdir::Workdir,
};
use anyhow::{Context, Result, bail};
use daemon::{Metrics, Ready, Tasks};
use proto::atoll::proxy::v1::{Address, ControlPlane, Hello, State};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A proxy that is about to run.
#[derive(Debug)]
pub struct Bound {
    settings: Settings,
    dataplane: Dataplane,
    workdir: Workdir,
    readiness: TcpListener,
    dial: Tls,
    envoy_version: String,
}

/// Reads the Dataplane, takes the working directory and opens the port.
pub async fn bind(mut settings: Settings) -> Result<Bound> {
    // Envoy runs in its working directory, where a relative path would mean something else.
    if settings.envoy.path.contains('/') {
        let path = std::path::absolute(&settings.envoy.path).context("envoy.path")?;
        settings.envoy.path = path.to_string_lossy().into_owned();
    }
    let dataplane = read(&settings)?;
    match (&settings.advertised, dataplane.is_zone_ingress) {
        (Some(_), false) => bail!("dataplane: has no listener of type ZoneIngress"),
        (None, true) => {
            bail!("dataplane: has a listener of type ZoneIngress, so zone-ingress runs it")
        }
        (Some(_), true) | (None, false) => {}
    }
    let dial = Tls::new(&settings.zone)?;
    let envoy_version = version::of(&settings.envoy.path).await.context("envoy.path")?;
    let folder = settings.workdir.as_ref().map_or_else(
        || std::env::temp_dir().join(format!("atoll-{}-{}", dataplane.mesh, dataplane.name)),
        PathBuf::from,
    );
    let workdir = Workdir::open(&folder).context("workdir")?;
    let readiness = daemon::listen(settings.readiness.address, "readiness.address").await?;
    workdir.end_stale().await.context("workdir")?;
    Ok(Bound { settings, dataplane, workdir, readiness, dial, envoy_version })
}

fn read(settings: &Settings) -> Result<Dataplane> {
    if let Some(resource) = &settings.resource {
        return Dataplane::read(resource.clone()).context("resource");
    }
    let path = Path::new(settings.dataplane.as_deref().unwrap_or_default());
    let named = || format!("dataplane: {}", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    Dataplane::parse(&text).with_context(named)
}

impl Bound {
    /// Where the process says whether it is ready.
    pub fn readiness(&self) -> Result<SocketAddr> {
        Ok(self.readiness.local_addr()?)
    }

    /// Where Envoy runs.
    #[must_use]
    pub fn workdir(&self) -> &Path {
        self.workdir.path()
    }

    /// Runs until `shutdown` is cancelled and Envoy has lost its connections.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        info!(
            mesh = self.dataplane.mesh,
            dataplane = self.dataplane.name,
            workdir = %self.workdir.path().display(),
            readiness = %self.readiness()?,
            "proxy starting"
        );
        let mut tasks = Tasks::default();
        let (ready, metrics) = (Ready::new(shutdown.clone()), Metrics::default());
        let (configures, configured) = watch::channel(false);
        let (connects, connected) = watch::channel(false);
        let (serves, serving) = watch::channel(false);
        let (probed, inbounds) = watch::channel(self.unprobed());
        let (tells, state) = watch::channel(State::default());
        let admin = Socket { path: self.workdir.admin_socket(), limit: LARGEST_ANSWER };
        let gone = CancellationToken::new();

        let session = Session {
            dial: self.dial.clone(),
            hello: self.hello(),
            token_file: PathBuf::from(&self.settings.token_file),
            renewed: None,
            state,
            workdir: self.workdir.clone(),
            configured: configures,
            connected: connects,
            admin: Arc::new(admin.clone()),
        };
        let (leave, left) = (shutdown.clone(), gone.clone());
        tasks.spawn("proxy.session", async move {
            session.run(leave).await;
            // Not before the control plane knows: nobody shall be sent to an Envoy that drains.
            left.cancel();
            Ok(())
        });
        let envoy = Envoy {
            runner: System,
            admin,
            launch: self.launch(),
            workdir: self.workdir.clone(),
            drain: self.settings.envoy.drain_time,
        };
        tasks.spawn("proxy.envoy", async move { Ok(envoy.run(configured, serves, gone).await?) });
        let until = shutdown.clone();
        let told = serving.clone();
        tasks.spawn("proxy.state", async move {
            until.run_until_cancelled_owned(tell(told, inbounds, tells)).await;
            Ok(())
        });
        let probes = self.dataplane.probes.clone();
        let until = shutdown.clone();
        tasks.spawn("proxy.probes", async move {
            let all = probes.iter().map(|(name, probe)| {
                let alive = |alive| probe::set(&probed, name, alive);
                probe::run(name, probe, &probe::Network, alive)
            });
            let all = async {
                futures::future::join_all(all).await;
                // There may be none.
                std::future::pending::<()>().await;
            };
            until.run_until_cancelled(all).await;
            Ok(())
        });
        let until = shutdown.clone();
        let guarded = guard(ready.clone(), connected, serving);
        tasks.spawn("proxy.ready", async move {
            until.run_until_cancelled_owned(guarded).await;
            Ok(())
        });
        let router = daemon::admin::router(ready, metrics);
        let until = shutdown.clone();
        let listener = self.readiness;
        tasks.spawn("proxy.readiness", async move {
            let serve = axum::serve(listener, router);
            Ok(serve.with_graceful_shutdown(until.cancelled_owned()).await?)
        });
        Ok(tasks.run(shutdown).await?)
    }

    /// Applications are dead until they answered.
    fn unprobed(&self) -> BTreeMap<String, bool> {
        self.dataplane.probes.keys().map(|name| (name.clone(), false)).collect()
    }

    fn hello(&self) -> Hello {
        let target = &self.dial.target;
        Hello {
            mesh: self.dataplane.mesh.clone(),
            name: self.dataplane.name.clone(),
            dataplane: self.dataplane.json.clone(),
            binds_vips: self.settings.bind_vips,
            advertised: self.settings.advertised.as_ref().map(|advertised| Address {
                host: advertised.address.clone(),
                port: advertised.port.into(),
            }),
            version: env!("CARGO_PKG_VERSION").into(),
            envoy_version: self.envoy_version.clone(),
            wants_records: false,
            state: None,
            instance: uuid::Uuid::new_v4().to_string(),
            control_plane: Some(ControlPlane {
                address: Some(Address { host: target.host.clone(), port: target.port.into() }),
                server_name: target.server_name.clone(),
                ca: self.dial.ca.clone(),
            }),
        }
    }

    fn launch(&self) -> Launch {
        let envoy = &self.settings.envoy;
        let mut arguments = vec![
            "-c".into(),
            self.workdir.bootstrap().to_string_lossy().into_owned(),
            "--disable-hot-restart".into(),
            "--drain-strategy".into(),
            "immediate".into(),
            "--drain-time-s".into(),
            envoy.drain_time.as_secs().max(1).to_string(),
            "--log-level".into(),
            envoy.log_level.clone(),
        ];
        if let Some(concurrency) = envoy.concurrency {
            arguments.extend(["--concurrency".into(), concurrency.to_string()]);
        }
        Launch {
            program: envoy.path.clone(),
            arguments,
            folder: self.workdir.path().to_owned(),
            log: envoy.log_file.as_ref().map(PathBuf::from),
        }
    }
}

/// Puts together what the control plane is told.
async fn tell(
    mut serving: watch::Receiver<bool>,
    mut inbounds: watch::Receiver<BTreeMap<String, bool>>,
    state: watch::Sender<State>,
) {
    loop {
        let now = State {
            ready: *serving.borrow_and_update(),
            inbounds: inbounds.borrow_and_update().clone(),
        };
        state.send_if_modified(|state| {
            let changed = *state != now;
            *state = now;
            changed
        });
        let changed = tokio::select! {
            biased;
            changed = serving.changed() => changed,
            changed = inbounds.changed() => changed,
        };
        // The process ends.
        if changed.is_err() {
            return;
        }
    }
}

/// Ready while Envoy serves, and had a session once: a control plane that is away takes nothing
/// away from the application.
async fn guard(
    ready: Ready,
    mut connected: watch::Receiver<bool>,
    mut serving: watch::Receiver<bool>,
) {
    let mut envoy = Some(ready.guard("envoy"));
    let session = ready.guard("session");
    if connected.wait_for(|connected| *connected).await.is_err() {
        return;
    }
    drop(session);
    loop {
        let serves = *serving.borrow_and_update();
        envoy = if serves { None } else { envoy.or_else(|| Some(ready.guard("envoy"))) };
        if serving.changed().await.is_err() {
            return;
        }
    }
}
