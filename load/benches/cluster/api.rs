//! What others do at an API server.

use anyhow::{Context, Result, bail, ensure};
use apiserver::Kubeconfig;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Certificate, Client, Method, Response};
use serde_json::{Value, json};
use std::collections::HashSet;

/// How many objects are made at once.
const AT_ONCE: usize = 32;

/// The API server, asked by its administrator.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client,
    config: Kubeconfig,
}

impl Api {
    pub(crate) fn new(config: &Kubeconfig) -> Result<Self> {
        let authority = Certificate::from_pem(config.authority.as_bytes())?;
        let client = Client::builder().no_proxy().tls_certs_only([authority]).build()?;
        Ok(Self { client, config: config.clone() })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Value)>,
    ) -> Result<Response> {
        let url = format!("{}{path}", self.config.server);
        let mut request = self.client.request(method, url).bearer_auth(&self.config.token);
        if let Some((kind, body)) = body {
            request = request.header("content-type", kind).body(body.to_string());
        }
        let answer = request.send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{path}: {status}: {}", answer.text().await?);
        }
        Ok(answer)
    }

    /// Asks, and reads the answer to its end: many that are dropped end the connection.
    async fn tell(&self, method: Method, path: &str, body: (&str, Value)) -> Result<()> {
        self.ask(method, path, Some(body)).await?.bytes().await?;
        Ok(())
    }

    async fn create(&self, plural: &str, object: Value) -> Result<()> {
        let path = format!("/api/v1/namespaces/shop/{plural}");
        self.tell(Method::POST, &path, ("application/json", object)).await
    }

    /// Makes so many Services, and pods behind them that run.
    pub(crate) async fn fill(&self, services: usize, pods: usize) -> Result<()> {
        let app = |i: usize| format!("app-{}", i % services);
        let made = stream::iter(0..services).map(|i| {
            let port =
                json!({ "name": "web", "port": 80, "targetPort": "http", "appProtocol": "http" });
            let spec = json!({ "selector": { "app": app(i) }, "ports": [port] });
            self.create("services", json!({ "metadata": { "name": app(i) }, "spec": spec }))
        });
        made.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let made = stream::iter(0..pods).map(|i| self.pod(i, app(i)));
        made.buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn pod(&self, i: usize, app: String) -> Result<()> {
        let name = format!("pod-{i}");
        let container = json!({
            "name": "app", "image": "app",
            "ports": [{ "name": "http", "containerPort": 8080 }],
            "readinessProbe": { "httpGet": { "port": "http", "path": "/ready" } },
        });
        let pod = json!({
            "metadata": { "name": name, "labels": { "app": app } },
            "spec": { "serviceAccountName": "default", "containers": [container] },
        });
        self.create("pods", pod).await?;
        let ip = format!("10.1.{}.{}", i / 250, i % 250 + 1);
        let status = json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        } });
        let path = format!("/api/v1/namespaces/shop/pods/{name}/status");
        self.tell(Method::PATCH, &path, ("application/merge-patch+json", status)).await
    }

    /// Waits until there are so many objects of a kind of ours.
    pub(crate) async fn until(&self, plural: &str, count: usize) -> Result<()> {
        // From what the server has at hand: it may not know yet how new that is.
        let path =
            format!("/apis/kuma.io/v1alpha1/namespaces/shop/{plural}?watch=true&resourceVersion=0");
        let mut watch = self.ask(Method::GET, &path, None).await?;
        let (mut names, mut line) = (HashSet::new(), Vec::new());
        while let Some(chunk) = watch.chunk().await? {
            for byte in chunk {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let event: Value = serde_json::from_slice(&line)?;
                line.clear();
                ensure!(event.get("type").is_some_and(|it| it != "ERROR"), "{event}");
                let name = event.pointer("/object/metadata/name").and_then(Value::as_str);
                names.insert(name.context("a name")?.to_owned());
                if names.len() >= count {
                    return Ok(());
                }
            }
        }
        bail!("{} {plural}, and then the watch ended", names.len())
    }
}
