//! A global, and how its API is used by many at once.

use anyhow::{Context, Result};
use e2e::control_plane::ControlPlane;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use load::{Target, usage};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};
use std::{fs, net::Ipv4Addr, time::Duration};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const AT_ONCE: usize = 32;

/// A global with the zones' runtime beside it.
pub(crate) struct World {
    pub(crate) global: ControlPlane,
    pub(crate) runtime: Runtime,
    pub(crate) api: Api,
    _folder: TempDir,
}

/// The API of global, for its administrator.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client,
    url: Url,
    token: String,
}

impl World {
    /// A new global that runs.
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut global = ControlPlane::global(folder.path(), Ipv4Addr::new(127, 79, 0, 1))?;
        global.start()?;
        // One thread: global has the other processor.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let api = Api {
            client: Client::builder().no_proxy().build()?,
            url: global.url("/").parse()?,
            token: global.token()?,
        };
        Ok(Self { global, runtime, api, _folder: folder })
    }

    pub(crate) fn target(&self) -> Result<Target> {
        let ca = fs::read_to_string(self.global.ca())?;
        Target::new(&self.global.address.to_string(), 5685, &ca)
    }

    pub(crate) fn pid(&mut self) -> Result<u32> {
        Ok(self.global.process()?.pid())
    }

    /// Memory of global in MiB, now and at most.
    pub(crate) fn memory(&mut self) -> Result<(u64, u64)> {
        usage::memory(self.pid()?)
    }

    /// Processor time of global so far.
    pub(crate) fn cpu(&mut self) -> Result<Duration> {
        usage::cpu(self.pid()?)
    }

    /// Writes so many policies.
    pub(crate) fn policies(&self, count: usize) -> Result<()> {
        self.runtime.block_on(
            stream::iter(0..count)
                .map(|n| async move { self.api.policy(n, 0).await })
                .buffer_unordered(AT_ONCE)
                .try_collect(),
        )
    }

    /// A token for each of these zones.
    pub(crate) fn tokens(&self, zones: Vec<String>) -> Result<Vec<(String, String)>> {
        let mint = |zone: String| async move {
            let body = json!({ "zone": zone, "scope": ["cp"], "validFor": "24h" });
            Ok((zone, self.api.ask(Method::POST, "/tokens/zone", Some(&body)).await?))
        };
        let tokens = stream::iter(zones).map(mint).buffered(AT_ONCE).try_collect();
        self.runtime.block_on(tokens)
    }
}

impl Api {
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<String> {
        let request = self.client.request(method, self.url.join(path)?).bearer_auth(&self.token);
        let request = if let Some(body) = body { request.json(body) } else { request };
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(text)
    }

    /// Puts policy `n` in its state `generation`.
    pub(crate) async fn policy(&self, n: usize, generation: usize) -> Result<()> {
        let policy = json!({
            "type": "MeshTimeout", "mesh": "default", "name": format!("policy-{n}"),
            "labels": { "team": format!("team-{}", n % 100), "generation": generation.to_string() },
            "spec": {
                "targetRef": { "kind": "Dataplane", "labels": { "app": format!("app-{n}") } },
                "to": [{
                    "targetRef": {
                        "kind": "MeshService",
                        "labels": { "kuma.io/display-name": format!("app-{}", n / 2) },
                    },
                    "default": {
                        "connectionTimeout": "3s",
                        "idleTimeout": "30m",
                        "http": { "requestTimeout": "12s", "streamIdleTimeout": "5m" },
                    },
                }],
            },
        });
        let path = format!("/meshes/default/meshtimeouts/policy-{n}");
        self.ask(Method::PUT, &path, Some(&policy)).await.map(drop).context("a policy")
    }
}
