//! Workloads to start.

use super::PORT;
use serde_json::{Value, json};

/// What its inbound speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// It answers with what it was sent.
    Http,
    /// It greets and echoes.
    Tcp,
}

/// A workload to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its zone.
    pub zone: &'static str,
    /// Its mesh.
    pub mesh: &'static str,
    /// Its service; the label `kuma.io/workload`.
    pub workload: &'static str,
    /// The name of its Dataplane.
    pub name: String,
    /// Its application.
    pub app: App,
    /// Where its inbound is; another one for each workload of a host.
    pub port: u16,
    /// Labels that it has besides.
    pub labels: &'static [(&'static str, &'static str)],
    /// What the program's settings have besides; see its configuration.
    pub settings: Value,
}

impl Plan {
    /// The replica `number` of `workload`, with an HTTP application.
    #[must_use]
    pub fn new(zone: &'static str, workload: &'static str, number: u8) -> Self {
        let name = format!("{workload}-{number}");
        let settings = json!({});
        let (mesh, app, port, labels) = ("default", App::Http, PORT, &[]);
        Self { zone, mesh, workload, name, app, port, labels, settings }
    }

    /// The same, with a TCP application.
    #[must_use]
    pub fn tcp(self) -> Self {
        Self { app: App::Tcp, ..self }
    }

    /// The same, at another port.
    #[must_use]
    pub fn at(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// The same, with labels.
    #[must_use]
    pub fn labelled(self, labels: &'static [(&'static str, &'static str)]) -> Self {
        Self { labels, ..self }
    }

    /// The same, in a mesh that must exist.
    #[must_use]
    pub fn of(self, mesh: &'static str) -> Self {
        Self { mesh, ..self }
    }

    /// What a token for it says.
    #[must_use]
    pub fn claims(&self) -> Value {
        json!({ "mesh": self.mesh, "workload": self.workload })
    }
}
