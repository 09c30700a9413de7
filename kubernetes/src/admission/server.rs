//! Answers the API server.

use super::{
    known::Known,
    review::{Operation, Refused, Request, Review, Verdict},
    rules::Rules,
};
use crate::injection::{self, Decision, INJECTION, ZONE_PROXY};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    routing::post,
};
use http::StatusCode;
use kinds::container_patch::ContainerPatch;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use resource::{MeshName, ResourceKey, label};
use serde_json::Value;
use std::sync::Arc;
use store::view::{KindId, Reader};
use tokio::sync::watch;

/// The API server takes objects of 3 MiB, and shows up to two of them.
const LARGEST: usize = 8 << 20;

/// What was asked, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    webhook: &'static str,
    outcome: &'static str,
}

/// Counts what is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers(Family<Asked, Counter>);

impl Numbers {
    pub(super) fn new(metrics: &daemon::Metrics) -> Self {
        let help = "Questions of the API server";
        Self(metrics.register("admission_reviews", help, Family::default()))
    }

    fn count(&self, webhook: &'static str, verdict: &Verdict) {
        let outcome = match verdict {
            Verdict { refusal: Some(_), .. } => "refused",
            Verdict { patch: Some(patch), .. } if !patch.is_empty() => "changed",
            Verdict { .. } => "allowed",
        };
        self.0.get_or_create(&Asked { webhook, outcome }).inc();
    }
}

/// Everything that answers depend on.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    pub(super) rules: Rules,
    pub(super) known: Known,
    pub(super) injector: injection::Config,
    pub(super) apexes: Vec<String>,
    pub(super) reader: Reader,
    pub(super) patches: Option<KindId>,
    /// What sidecars trust the control plane by.
    pub(super) trusted: watch::Receiver<Arc<str>>,
    pub(super) numbers: Numbers,
}

/// The three webhooks.
pub(super) fn router(judge: Judge) -> Router {
    Router::new()
        .route("/inject-sidecar", post(inject))
        .route("/default", post(default))
        .route("/validate", post(validate))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(Arc::new(judge))
}

type Answer = Result<Json<Value>, (StatusCode, String)>;
type Shared = State<Arc<Judge>>;

fn read(body: &Bytes) -> Result<Request, (StatusCode, String)> {
    Review::read(body).map_err(|reason| {
        tracing::warn!(reason, "a question of admission that is none");
        (StatusCode::BAD_REQUEST, reason)
    })
}

async fn default(State(judge): Shared, body: Bytes) -> Answer {
    let request = read(&body)?;
    let verdict = judge.rules.default(&request);
    Ok(judge.answer("default", &request, &verdict))
}

async fn validate(State(judge): Shared, body: Bytes) -> Answer {
    let request = read(&body)?;
    let verdict = judge.rules.check(&request);
    Ok(judge.answer("validate", &request, &verdict))
}

async fn inject(State(judge): Shared, body: Bytes) -> Answer {
    let request = read(&body)?;
    let verdict = judge.inject(&request).await;
    Ok(judge.answer("inject", &request, &verdict))
}

impl Judge {
    fn answer(&self, webhook: &'static str, request: &Request, verdict: &Verdict) -> Json<Value> {
        self.numbers.count(webhook, verdict);
        if let Some(refused) = &verdict.refusal {
            let Request { namespace, name, kind, user_info, .. } = request;
            let (reason, user) = (refused.message(), &user_info.username);
            tracing::info!(webhook, namespace, name, kind = kind.kind, user, reason, "refused");
        }
        Json(verdict.answer(&request.uid))
    }

    async fn inject(&self, request: &Request) -> Verdict {
        let pod = request.kind.group.is_empty() && request.kind.kind == "Pod";
        if !pod || request.operation != Operation::Create {
            return Verdict::default();
        }
        let labels = request.object.pointer("/metadata/labels");
        let says = |key: &str| labels.and_then(|labels| labels.get(key)).is_some();
        let itself = says(INJECTION) || says(ZONE_PROXY);
        let wanted = |namespace: &injection::Namespace| {
            let said = namespace.labels.get(INJECTION).map(String::as_str);
            itself || matches!(said, Some(label::ENABLED | "true"))
        };
        let name = &request.namespace;
        let Some(namespace) = self.known.namespace(name, wanted).await else {
            let message = format!("the namespace {name} is not known here yet: try again");
            return Refused::later(message).into();
        };
        let trusted = self.trusted.borrow().clone();
        let context = injection::Context {
            settings: &self.injector,
            system_namespace: &self.rules.system_namespace,
            ca: &trusted,
            apexes: &self.apexes,
            patch: &|mesh, name| self.patch(mesh, name),
            config_map: &|name| self.known.config_map(name),
            has_mesh: &|mesh| self.rules.has_mesh(mesh),
        };
        match injection::inject(&request.object, &namespace, &context) {
            Ok(Decision::Inject { patch, warnings }) => {
                Verdict { patch: Some(patch), warnings, ..Verdict::default() }
            }
            Ok(Decision::Leave(reason)) => {
                let (namespace, pod) = (name, &request.name);
                if reason.surprises() {
                    tracing::info!(namespace, pod, %reason, "a pod gets no sidecar");
                    let warnings = vec![format!("the pod gets no sidecar: {reason}")];
                    return Verdict { warnings, ..Verdict::default() };
                }
                tracing::debug!(namespace, pod, %reason, "a pod gets no sidecar");
                Verdict::default()
            }
            Err(refusal) => Refused::from(refusal).into(),
        }
    }

    /// A ContainerPatch of the system namespace; that of the pod's mesh before those of others.
    pub(super) fn patch(&self, mesh: &MeshName, name: &str) -> Option<Arc<ContainerPatch>> {
        let kind = self.patches?;
        let own = self.reader.get(kind, &ResourceKey::in_mesh(mesh, name));
        let found = own.or_else(|| {
            let (_, rows) = self.reader.rows(kind);
            rows.iter().find(|row| &*row.head.key.name == name).cloned()
        });
        kinds::read::<ContainerPatch>(&*found?).ok()
    }
}
