//! A zone that is a Kubernetes cluster: what its control plane does with the API server.
//!
//! One control plane of a zone works, the one that holds a Lease. Others know what it knows, answer
//! the API server too, and are ready for it; nobody else is sent to them (decision 17).

use crate::{
    Parts,
    dataplanes::{NotReviewed, Pod, Review, Reviewed},
    refused::Teller,
};
use anyhow::{Context, Result};
use daemon::{Clock, Metrics, Ready, Tasks, ready::Guard};
use futures::{FutureExt as _, future::BoxFuture};
use kds::zone::Handle;
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use kubernetes::{
    OwnPod,
    admission::{Admission, Certificates},
    controllers::{self, Events, Settings, Writer},
    lease::{Held, Lease},
    tokens::{TokenError, Tokens},
};
use prometheus_client::metrics::gauge::Gauge;
use std::sync::Arc;
use store::{Backend as _, Kinds, Local, Writing};
use store_kubernetes::Problems;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    config: kubernetes::Config,
    problems: Problems,
    clock: Clock,
}

impl Cluster {
    /// The one that the settings name. Nobody is asked yet.
    pub(crate) async fn open(config: &kubernetes::Config, clock: &Clock) -> Result<Self> {
        let mut server = if config.kubeconfig.is_empty() {
            kube::Config::infer().await.context("this is no pod, and there is no kubeconfig")?
        } else {
            let file = Kubeconfig::read_from(&config.kubeconfig)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        };
        // Who asks tries again itself, and counts it.
        server.default_retry = false;
        let client = Client::try_from(server)?;
        let (config, clock) = (config.clone(), clock.clone());
        Ok(Self { client, config, problems: Problems::default(), clock })
    }

    /// Keeps resources as objects of the cluster.
    pub(crate) async fn store(
        &self,
        kinds: &Kinds,
        metrics: &Metrics,
    ) -> Result<(Local, Writing), store_kubernetes::OpenError> {
        let settings = store_kubernetes::Settings {
            system_namespace: self.config.system_namespace.clone(),
            problems: self.problems.clone(),
            metrics: metrics.clone(),
        };
        let (client, clock) = (self.client.clone(), self.clock.clone());
        store_kubernetes::open(client, settings, kinds.clone(), clock).await
    }

    /// Names the cluster.
    pub(crate) async fn name(&self) -> Result<String> {
        Ok(format!("cluster/{}", kubernetes::name::of(&self.client).await?))
    }

    /// What this control plane shows to everybody: all of a zone show the same.
    pub(crate) async fn certificates(&self) -> Result<Certificates> {
        let (client, clock) = (self.client.clone(), self.clock.clone());
        Certificates::open(client, &self.config, &[], clock).await
    }

    /// Opens the port on which the API server asks.
    pub(crate) async fn listen(&self) -> Result<TcpListener> {
        let address = self.config.admission.listen;
        Ok(daemon::listen(address, "kubernetes.admission.listen").await?)
    }

    /// Answers the API server, and waits until this process is the one that works. `None` if it is to
    /// stop before. It is ready, by what `starting` guards, while it stands by.
    pub(crate) async fn begin(
        &self,
        tasks: &mut Tasks,
        parts: &Parts,
        admission: (TcpListener, Certificates),
        metrics: &Metrics,
        (ready, starting): (&Ready, &mut Option<Guard>),
    ) -> Option<oneshot::Receiver<Held>> {
        self.admit(tasks, parts, admission, metrics);
        let help = "Whether this control plane is the one of its zone that works";
        let active = metrics.register("lease_held", help, Gauge::<i64>::default());
        let pod = self.own_pod();
        let leading = async {
            if let Some(pod) = &pod {
                // One that worked in this pod before, and did not end well, left it there.
                pod.mark(false).await;
            }
            let stands_by = |holder: &str| {
                ready.show("lease", vec![format!("stands by: {holder} works")]);
                drop(starting.take());
            };
            self.lease(&parts.instance).acquire(stands_by).await
        };
        let held = Box::pin(parts.stop.run_until_cancelled(leading)).await?;
        ready.show("lease", Vec::new());
        active.set(1);
        if let Some(pod) = pod {
            let stop = parts.stop.clone();
            tasks.spawn("active", async move {
                stop.run_until_cancelled(pod.mark(true)).await;
                stop.cancelled().await;
                Ok(())
            });
        }
        let (keeping, given) = keep(held, parts.stop.clone());
        tasks.spawn("lease", keeping);
        Some(given)
    }

    /// Answers the API server, whether this process is the one that works or not.
    fn admit(
        &self,
        tasks: &mut Tasks,
        parts: &Parts,
        (listener, certificates): (TcpListener, Certificates),
        metrics: &Metrics,
    ) {
        let admission = Admission {
            client: self.client.clone(),
            config: self.config.clone(),
            place: parts.place.clone(),
            federated: !parts.alone,
            apexes: parts.config.dns.apexes.clone(),
            kinds: parts.kinds.clone(),
            reader: parts.store.reader(),
            metrics: metrics.clone(),
        };
        admission.spawn(listener, &certificates, tasks, &parts.stop);
        certificates.spawn(tasks, &parts.stop);
    }

    /// The Lease for this process. A pod holds it by its name: when its process begins anew, nobody
    /// else has it.
    fn lease(&self, instance: &str) -> Lease {
        let (client, config) = (self.client.clone(), self.config.lease.clone());
        let namespace = self.config.system_namespace.clone();
        let pod = &self.config.pod_name;
        let identity = if pod.is_empty() { instance } else { pod };
        Lease::new(client, namespace, identity.into(), config, self.clock.clone())
    }

    fn own_pod(&self) -> Option<OwnPod> {
        let kubernetes::Config { pod_name, system_namespace, .. } = &self.config;
        let pod = || OwnPod::new(self.client.clone(), system_namespace, pod_name.clone());
        (!pod_name.is_empty()).then(pod)
    }

    /// Who knows the tokens of pods.
    pub(crate) fn reviewer(&self) -> Arc<dyn Review> {
        let audience = &self.config.injector.token_audience;
        Arc::new(OfCluster(Tokens::new(self.client.clone(), audience, self.clock.clone())))
    }

    /// Keeps the resources of what is in the cluster, and tells what is wrong there.
    pub(crate) fn work(
        &self,
        tasks: &mut Tasks,
        parts: &Parts,
        global: Option<Handle>,
        metrics: &Metrics,
    ) {
        let (client, stop) = (self.client.clone(), &parts.stop);
        let defaults = parts.mesh_defaults();
        let (events, writer) =
            Events::new(client, parts.instance.clone(), self.clock.clone(), metrics);
        if let Some(global) = global {
            let teller = Teller {
                place: parts.place.clone(),
                zone: parts.zone.clone(),
                kinds: parts.kinds.clone(),
                store: parts.store.clone(),
                system_namespace: self.config.system_namespace.clone(),
                events: events.clone(),
            };
            tasks.spawn("refused", teller.run(global.state(), stop.clone()));
        }
        let parts = controllers::Parts {
            client: self.client.clone(),
            store: parts.store.clone(),
            kinds: parts.kinds.clone(),
            settings: Settings::of(parts.zone.clone(), &self.config),
            events: events.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn("meshes.defaults", defaults);
        tasks.spawn("controllers", controllers::run(parts, stop.clone()));
        tasks.spawn("events", told(writer, stop.clone()));
        tasks.spawn("problems", tell(self.problems.clone(), events, stop.clone()));
    }
}

/// Watches over the Lease until the end, and hands it back then: it is given up last.
fn keep(
    mut held: Held,
    stop: CancellationToken,
) -> (impl Future<Output = Result<()>>, oneshot::Receiver<Held>) {
    let (back, given) = oneshot::channel();
    let keeping = async move {
        match stop.run_until_cancelled(held.lost()).await {
            Some(lost) => Err(lost.into()),
            None => {
                // Nobody waits for it if the process ends in another way.
                drop(back.send(held));
                Ok(())
            }
        }
    };
    (keeping, given)
}

/// Lets another process work at once, if this one did.
pub(crate) async fn give_up(leading: Option<oneshot::Receiver<Held>>) {
    if let Some(leading) = leading
        && let Ok(held) = leading.await
        && let Err(error) = held.release().await
    {
        tracing::warn!(%error, "the lease is not given up; it runs out");
    }
}

async fn told(writer: Writer, stop: CancellationToken) -> Result<()> {
    writer.run(stop).await;
    Ok(())
}

async fn tell(problems: Problems, events: Events, stop: CancellationToken) -> Result<()> {
    controllers::tell_problems(problems, events, stop).await;
    Ok(())
}

#[derive(Debug)]
struct OfCluster(Tokens);

impl Review for OfCluster {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Reviewed, NotReviewed>> {
        let reviewing = async {
            let account = self.0.account(token).await.map_err(|error| match error {
                TokenError::Refused(why) => NotReviewed::Refused(why),
                TokenError::Unavailable(why) => NotReviewed::Unavailable(why),
            })?;
            let unbound = || NotReviewed::Refused("it is bound to no pod".into());
            let pod = Pod {
                namespace: account.namespace.clone(),
                service_account: account.name.clone(),
                name: account.pod.as_ref().ok_or_else(unbound)?.name.clone(),
            };
            Ok(Reviewed { pod, expires: account.expires })
        };
        reviewing.boxed()
    }
}
