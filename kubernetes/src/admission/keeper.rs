//! Keeps the Secret of the certificates, together with the other processes of the control plane.

use super::certificates::Kept;
use anyhow::{Context as _, Result, anyhow};
use daemon::{Backoff, Clock};
use futures::StreamExt as _;
use identity::tls::ServerTls;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Error, ResourceExt as _,
    api::PostParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// How long the API server has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Another process may write at the same time as we do; so often we look at what it wrote.
const ATTEMPTS: usize = 5;

/// Which certificate is kept where.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) secret: String,
    /// Whom the certificate names.
    pub(super) names: Vec<String>,
}

/// Keeps one.
pub(super) struct Keeper {
    place: Place,
    secrets: Api<Secret>,
    clock: Clock,
    kept: Kept,
    /// Of the Secret, if it is there.
    version: Option<String>,
    /// Whether the Secret holds what is kept here.
    written: bool,
    tls: Arc<ServerTls>,
    /// What clients trust.
    trusted: watch::Sender<Arc<str>>,
}

impl Keeper {
    /// Reads the Secret, or makes it. Waits for an API server that is away.
    pub(super) async fn open(place: Place, clock: Clock) -> Result<Self> {
        let secrets = Api::namespaced(place.client.clone(), &place.namespace);
        // Of no use if there is one already.
        let kept = Kept::make(&place.names, clock.now())?;
        let setting = format!("Secret {}", place.secret);
        let tls = Arc::new(ServerTls::told(&setting, kept.pair().clone(), clock.clone())?);
        let trusted = watch::Sender::new(kept.pair().ca_pem.as_str().into());
        let (version, written) = (None, false);
        let mut keeper = Self { place, secrets, clock, kept, version, written, tls, trusted };
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut said = false;
        while let Err(error) = keeper.begin().await {
            if !std::mem::replace(&mut said, true) {
                let error = format!("{error:#}");
                tracing::warn!(error, "waiting for the certificates of the control plane");
            }
            sleep_until(Instant::now() + backoff.next(fastrand::f64())).await;
        }
        Ok(keeper)
    }

    /// What servers show, now and after each renewal.
    pub(super) const fn tls(&self) -> &Arc<ServerTls> {
        &self.tls
    }

    /// What clients trust, as PEM.
    pub(super) fn trusted(&self) -> watch::Receiver<Arc<str>> {
        self.trusted.subscribe()
    }

    /// Looks at what is there, and writes what is due.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.look().await?;
        self.ensure().await
    }

    /// Keeps it, for ever.
    pub(super) async fn run(mut self) {
        let only = format!("metadata.name={}", self.place.secret);
        let config = watcher::Config::default().fields(&only);
        let events = watcher::watcher(self.secrets.clone(), config).default_backoff();
        let mut events = Box::pin(events);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));
        let (mut listed, mut not_before) = (false, Timestamp::MIN);
        loop {
            let due = match self.written {
                true => self.kept.renew_at(&self.place.names),
                false => Timestamp::MIN,
            };
            tokio::select! {
                biased;
                Some(event) = events.next() => match event {
                    Ok(Event::Init) => listed = false,
                    Ok(Event::Apply(secret) | Event::InitApply(secret)) => {
                        listed = true;
                        self.heard(&secret);
                    }
                    Ok(Event::InitDone) if listed => {}
                    Ok(Event::InitDone | Event::Delete(_)) => self.is_gone(),
                    Err(error) => tracing::debug!(%error, "a watch begins anew"),
                },
                () = self.clock.sleep_until(due.max(not_before)) => {}
            }
            if self.clock.now() < not_before {
                continue;
            }
            match self.ensure().await {
                Ok(()) => backoff.made_progress(),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the certificates cannot be kept");
                    let wait = backoff.next(fastrand::f64());
                    not_before = self.clock.now().saturating_add(wait).unwrap_or(Timestamp::MAX);
                }
            }
        }
    }

    fn is_gone(&mut self) {
        (self.version, self.written) = (None, false);
    }

    async fn look(&mut self) -> Result<()> {
        let found = timeout(PATIENCE, self.secrets.get_opt(&self.place.secret)).await;
        match found.map_err(|_| anyhow!("the API server does not answer"))?? {
            Some(secret) => self.heard(&secret),
            None => self.is_gone(),
        }
        Ok(())
    }

    /// Takes what another process wrote, if it is good. What is not is replaced.
    fn heard(&mut self, secret: &Secret) {
        let version = secret.resource_version();
        if self.version == version {
            return;
        }
        self.version = version;
        let read = Kept::read(secret.data.as_ref().unwrap_or(&BTreeMap::new()));
        let taken = read.map_err(anyhow::Error::new).and_then(|kept| self.take(kept));
        self.written = taken.is_ok();
        if let Err(error) = taken {
            let (secret, error) = (&self.place.secret, format!("{error:#}"));
            tracing::error!(secret, error, "the Secret was damaged, so it is made anew");
        }
    }

    fn take(&mut self, kept: Kept) -> Result<()> {
        self.tls.tell(kept.pair().clone())?;
        self.trusted.send_if_modified(|trusted| {
            let differs = **trusted != *kept.pair().ca_pem;
            *trusted = kept.pair().ca_pem.as_str().into();
            differs
        });
        self.kept = kept;
        Ok(())
    }

    /// Writes what is due.
    async fn ensure(&mut self) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let renewed = self.kept.renewed(&self.place.names, self.clock.now())?;
            if renewed.is_none() && self.written {
                return Ok(());
            }
            let data = renewed.as_ref().unwrap_or(&self.kept).write();
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(self.place.secret.clone()),
                    namespace: Some(self.place.namespace.clone()),
                    resource_version: self.version.clone(),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                type_: Some("Opaque".into()),
                ..Secret::default()
            };
            match self.write(&secret).await? {
                Some(secret) => {
                    tracing::info!(secret = self.place.secret, "certificates renewed");
                    self.heard(&secret);
                }
                // Somebody else wrote: it may be what is due.
                None => self.look().await?,
            }
        }
        Err(anyhow!("others write the Secret {} all the time", self.place.secret))
    }

    /// The Secret as it was written; `None` if it is another one than we know.
    async fn write(&self, secret: &Secret) -> Result<Option<Secret>> {
        let (params, name) = (PostParams::default(), &self.place.secret);
        let written = async {
            match self.version {
                Some(_) => self.secrets.replace(name, &params, secret).await,
                None => self.secrets.create(&params, secret).await,
            }
        };
        match timeout(PATIENCE, written).await.context("the API server does not answer")? {
            Ok(secret) => Ok(Some(secret)),
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
