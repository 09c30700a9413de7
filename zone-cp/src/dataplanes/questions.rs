//! Questions about the Envoys of the zone, passed on to their sessions.

use super::{limits, proxy::Question, registry::Registry};
use bytes::Bytes;
use delta::Name;
use futures::future::BoxFuture;
use kds::admin::{Answerer, Question as Asked};
use kinds::dataplane;
use proto::atoll::proxy::v1::admin_request;
use resource::{
    MeshName, ResourceKey,
    inspect::{Format, What},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    time::timeout,
};
use xds::Type;

/// Answers what global, or the API, asks about proxies.
#[derive(Clone, Debug)]
pub struct Questions(pub(super) Arc<Registry>);

impl Questions {
    /// What the Envoy of a Dataplane refused and has not taken since, and what it said.
    #[must_use]
    pub fn refused(&self, dataplane: &ResourceKey) -> BTreeMap<(Type, Name), String> {
        self.0.refused(dataplane)
    }

    /// Whether any proxy of a mesh refused something and has not taken it since.
    #[must_use]
    pub fn refuses(&self, mesh: &MeshName) -> bool {
        self.0.refuses(mesh)
    }

    /// How many proxies have refused resources of each type and not taken them since.
    #[must_use]
    pub fn refusing(&self) -> BTreeMap<Type, usize> {
        self.0.refusing()
    }
}

impl Answerer for Questions {
    fn answer(&self, question: Asked) -> BoxFuture<'static, Result<Bytes, String>> {
        let registry = self.0.clone();
        Box::pin(async move { ask(&registry, &question).await })
    }
}

async fn ask(registry: &Registry, asked: &Asked) -> Result<Bytes, String> {
    let away = || format!("{} {:?} is not connected", asked.kind, asked.name);
    if asked.kind != dataplane::KIND.name {
        return Err(away());
    }
    let mesh = MeshName::new(&asked.mesh).map_err(|_| away())?;
    let key = ResourceKey::in_mesh(&mesh, &asked.name);
    let questions = registry.questions(&key).ok_or_else(away)?;
    let (what, query) = query(asked.what);
    if query.len() > limits::QUERY {
        return Err("the query is too long".into());
    }
    let (answer, answered) = oneshot::channel();
    questions.try_send(Question { what, query: query.into(), answer }).map_err(
        |error| match error {
            TrySendError::Full(_) => "too many questions at once".to_owned(),
            TrySendError::Closed(_) => away(),
        },
    )?;
    match timeout(limits::ANSWER, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(away()),
        Err(_) => Err(format!("{:?} did not answer in time", asked.name)),
    }
}

/// As Envoy's admin interface is asked.
const fn query(what: What) -> (admin_request::What, &'static str) {
    use admin_request::What::{Clusters, ConfigDump, Stats};
    match what {
        What::Config { endpoints: true } => (ConfigDump, "include_eds"),
        What::Config { endpoints: false } => (ConfigDump, ""),
        What::Stats { format: Format::Text, used_only: false } => (Stats, ""),
        What::Stats { format: Format::Text, used_only: true } => (Stats, "usedonly"),
        What::Stats { format: Format::Json, used_only: false } => (Stats, "format=json"),
        What::Stats { format: Format::Json, used_only: true } => (Stats, "format=json&usedonly"),
        What::Clusters { format: Format::Text } => (Clusters, ""),
        What::Clusters { format: Format::Json } => (Clusters, "format=json"),
    }
}
