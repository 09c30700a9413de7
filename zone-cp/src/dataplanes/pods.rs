//! Proxies in pods of a Kubernetes cluster: who they are is what the cluster says of their token.

use futures::future::BoxFuture;
use jiff::Timestamp;
use resource::{Labels, label};
use std::fmt;

/// Whom a token of the cluster is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub name: String,
}

/// A token that the cluster knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// Whom it is for.
    pub pod: Pod,
    /// It is none from then on.
    pub expires: Timestamp,
}

/// Why a token is not known to be good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReviewed {
    /// It is not, and will not be.
    #[error("the cluster does not accept the token: {0}")]
    Refused(String),
    /// Nobody could be asked.
    #[error("the token cannot be reviewed now: {0}")]
    Unavailable(String),
}

/// Asks a cluster about tokens.
pub trait Review: fmt::Debug + Send + Sync {
    /// Whom `token` is for.
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Reviewed, NotReviewed>>;
}

impl Pod {
    /// Whether a Dataplane with these labels is this pod's. Only the control plane writes them.
    pub(super) fn is(&self, labels: &Labels) -> bool {
        let wanted = [
            (label::NAMESPACE, &self.namespace),
            (label::SERVICE_ACCOUNT, &self.service_account),
            (label::DISPLAY_NAME, &self.name),
        ];
        wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, service_account, name } = self;
        write!(f, "pod {name} in namespace {namespace} with service account {service_account}")
    }
}
