//! The section `kubernetes.admission` of a zone's configuration.

use daemon::config::Problems;
use serde::{Deserialize, Serialize};
use std::net::{Ipv6Addr, SocketAddr};

/// How admission is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Where the API server asks, by TLS.
    pub listen: SocketAddr,
    /// The service, in the system namespace, by which it does.
    pub service: String,
    /// The Secret, in the system namespace, of the certificates that the control plane makes.
    pub secret: String,
    /// The names of the webhook configurations whose CA bundle is kept right.
    pub webhooks: Vec<String>,
    /// The ServiceAccounts that may write whatever they like, beside the control plane's own: as
    /// `<namespace>:<name>`.
    pub trusted: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5443)),
            service: "atoll-admission".into(),
            secret: "atoll-zone-cp-tls".into(),
            webhooks: vec!["atoll".into()],
            trusted: Vec::new(),
        }
    }
}

impl Config {
    /// Reports every mistake, with its path below `kubernetes.admission`.
    pub fn check(&self, problems: &mut Problems) {
        for (field, name) in [("service", &self.service), ("secret", &self.secret)] {
            if let Err(error) = resource::NameRule::Subdomain.check(name) {
                problems.add(field, error);
            }
        }
        for (i, account) in self.trusted.iter().enumerate() {
            if account.split(':').filter(|part| !part.is_empty()).count() != 2 {
                problems.add(format_args!("trusted[{i}]"), "must be of the form namespace:name");
            }
        }
    }
}
