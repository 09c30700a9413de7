//! One proxy from its settings to its end.

use crate::{
    config::Settings,
    dataplane::Dataplane,
    envoy::{Envoy, Socket, System},
    numbers::Numbers,
    probe, probes,
    session::{self, LARGEST_ANSWER, Session, Tls},
    state::{self, Contact},
    transparent_proxy::has_ipv6,
    version,
    workdir::Workdir,
};
use anyhow::{Context, Result, bail};
use daemon::{Metrics, Ready, Tasks};
use proto::atoll::proxy::v1::State;
use serde_json::Value;
use std::{
    future::IntoFuture,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A proxy that is about to run.
#[derive(Debug)]
pub struct Bound {
    pub(crate) settings: Settings,
    pub(crate) dataplane: Dataplane,
    pub(crate) workdir: Workdir,
    readiness: TcpListener,
    pub(crate) dial: Tls,
    pub(crate) envoy_version: String,
    pub(crate) names: Option<(Vec<dns::Bound>, Arc<dns::Records>)>,
    probes: Option<TcpListener>,
}

/// Reads what the settings name, opens the ports and takes the working directory. What cannot be had
/// is named by its setting; nothing is changed before all the rest is there.
pub async fn bind(mut settings: Settings) -> Result<Bound> {
    // Envoy runs in its working directory, where a relative path would mean something else.
    if settings.envoy.path.contains('/') {
        let path = std::path::absolute(&settings.envoy.path).context("envoy.path")?;
        settings.envoy.path = path.to_string_lossy().into_owned();
    }
    let has_ipv6 = has_ipv6();
    settings.transparent_proxy = settings.transparent_proxy.on_machine(has_ipv6);
    for listen in [&mut settings.readiness.address, &mut settings.application_probes.listen] {
        *listen = anywhere(*listen, has_ipv6);
    }
    let dataplane = read(&settings)?;
    match (&settings.advertised, dataplane.is_zone_ingress) {
        (Some(_), false) => bail!("dataplane: has no listener of type ZoneIngress"),
        (None, true) => {
            bail!("dataplane: has a listener of type ZoneIngress, so zone-ingress runs it")
        }
        (Some(_), true) | (None, false) => {}
    }
    if settings.transparent_proxy.enabled && rustix::process::geteuid().is_root() {
        bail!(
            "transparentProxy: the sidecar must run as a user of its own, and not as root: what that \
             user opens is the only thing that is not redirected"
        )
    }
    let dial = Tls::new(&settings.zone)?;
    session::token(Path::new(&settings.token_file)).context("tokenFile")?;
    let envoy_version = version::of(&settings.envoy.path).await.context("envoy.path")?;
    let readiness = daemon::listen(settings.readiness.address, "readiness.address").await?;
    let names = names(&settings, &dataplane.mesh).await?;
    let probes = settings.application_probes.bind().await?;
    let folder = settings.workdir.as_ref().map_or_else(
        || std::env::temp_dir().join(format!("atoll-{}-{}", dataplane.mesh, dataplane.name)),
        PathBuf::from,
    );
    let workdir = Workdir::open(&folder).context("workdir")?;
    workdir.end_stale().await.context("workdir")?;
    Ok(Bound { settings, dataplane, workdir, readiness, dial, envoy_version, names, probes })
}

/// "Any address" of both families is that of one on a machine that has only one.
fn anywhere(listen: SocketAddr, has_ipv6: bool) -> SocketAddr {
    if !has_ipv6 && listen.ip() == Ipv6Addr::UNSPECIFIED {
        return SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port()));
    }
    listen
}

/// One server of names for each address, and the records that all of them answer from.
async fn names(
    settings: &Settings,
    mesh: &str,
) -> Result<Option<(Vec<dns::Bound>, Arc<dns::Records>)>> {
    let (mut servers, records) = (Vec::new(), Arc::<dns::Records>::default());
    for listen in settings.names() {
        let config = dns::Config { listen, ..settings.dns.of_mesh(mesh) };
        servers.push(dns::bind(&config, records.clone()).await?);
    }
    Ok((!servers.is_empty()).then_some((servers, records)))
}

fn read(settings: &Settings) -> Result<Dataplane> {
    let told = |mut dataplane: Value| {
        settings.transparent_proxy.tell(&mut dataplane);
        Dataplane::read(dataplane)
    };
    if let Some(resource) = &settings.resource {
        return told(resource.clone()).context("resource");
    }
    let Some(path) = settings.dataplane.as_deref().map(Path::new) else {
        return Ok(Dataplane::existing(&settings.existing)?);
    };
    let named = || format!("dataplane: {}", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    Dataplane::parse(&text).and_then(told).with_context(named)
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
        let (mut tasks, stop) = (Tasks::default(), || shutdown.clone());
        let (ready, metrics) = (Ready::new(stop()), Metrics::default());
        let numbers = Numbers::new(&metrics);
        let (configures, configured) = watch::channel(false);
        let (contacts, contact) = watch::channel(Contact::default());
        let (serves, serving) = watch::channel(false);
        let (probed, inbounds) = watch::channel(self.unprobed());
        let (tells, state) = watch::channel(State::default());
        // Else who hears the session would end with it, and before it has said why it ends.
        let _heard = (configures.clone(), contacts.clone());
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
            contact: contacts,
            ready: ready.clone(),
            admin: Arc::new(admin.clone()),
            records: self.names.as_ref().map(|(_, records)| records.clone()),
        };
        let (leave, left) = (stop(), gone.clone());
        tasks.spawn("proxy.session", async move {
            session.run(leave).await?;
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
            starts: numbers.starts.clone(),
        };
        tasks.spawn("proxy.envoy", async move { Ok(envoy.run(configured, serves, gone).await?) });
        tasks.spawn("proxy.state", until(stop(), state::tell(serving.clone(), inbounds, tells)));
        tasks.spawn("proxy.probes", until(stop(), probe::all(self.dataplane.probes, probed)));
        let shown = state::show(ready.clone(), numbers, contact, serving);
        tasks.spawn("proxy.ready", until(stop(), shown));
        for names in self.names.into_iter().flat_map(|(servers, _)| servers) {
            let stop = stop();
            tasks.spawn("proxy.dns", async move { Ok(names.run(stop).await?) });
        }
        if let Some(listener) = self.probes {
            let serve = probes::serve(listener, self.settings.application_probes, stop());
            tasks.spawn("proxy.applicationProbes", serve);
        }
        let router = daemon::admin::router(ready, metrics);
        let serve = axum::serve(self.readiness, router)
            .with_graceful_shutdown(stop().cancelled_owned())
            .into_future();
        tasks.spawn("proxy.readiness", async move { Ok(serve.await?) });
        Ok(tasks.run(shutdown).await?)
    }
}

/// Runs a part that has no end of its own.
async fn until(stop: CancellationToken, part: impl Future<Output = ()>) -> Result<()> {
    stop.run_until_cancelled(part).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_one_that_the_machine_has() {
        let any = |text: &str, has_ipv6| anywhere(text.parse().unwrap(), has_ipv6).to_string();
        assert_eq!(any("[::]:9902", true), "[::]:9902");
        assert_eq!(any("[::]:9902", false), "0.0.0.0:9902");
        assert_eq!(any("[::1]:9902", false), "[::1]:9902");
        assert_eq!(any("0.0.0.0:9902", false), "0.0.0.0:9902");
    }
}
