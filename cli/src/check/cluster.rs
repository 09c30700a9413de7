//! Reads what a cluster has.

use http::{Request, header::DATE};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use kube::client::Body;
use serde_json::Value;
use std::{fmt, future::Future};
use tokio::time::{Instant, timeout_at};

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not there.
    Absent,
    /// We may not, says the API server.
    Forbidden(String),
    /// No answer, or one that is none.
    Failed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not there"),
            Self::Forbidden(reason) | Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// The cluster that is looked at.
pub(super) struct Cluster {
    client: kube::Client,
    /// That of the control plane.
    pub(super) namespace: String,
    deadline: Instant,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    pub(super) fn new(client: kube::Client, namespace: &str, deadline: Instant) -> Self {
        Self { client, namespace: namespace.to_owned(), deadline }
    }

    /// An object, by its path.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.send(self.client.request(request("GET", path, Vec::new())?)).await
    }

    /// An object of the namespace of the control plane, such as `apps/v1`, `deployments`, `web`.
    pub(super) async fn own(&self, api: &str, plural: &str, name: &str) -> Result<Value, Refusal> {
        self.get(&format!("{api}/namespaces/{}/{plural}/{name}", self.namespace)).await
    }

    /// Every item of a list, page by page.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, Refusal> {
        let (mut items, mut more) = (Vec::new(), String::new());
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{mark}limit=500{more}")).await?;
            if let Some(Value::Array(part)) = page.get_mut("items").map(Value::take) {
                items.extend(part);
            }
            match text(&page, "/metadata/continue") {
                "" => return Ok(items),
                token => more = format!("&continue={token}"),
            }
        }
    }

    /// What is answered to an object that is posted.
    pub(super) async fn post(&self, path: &str, object: &Value) -> Result<Value, Refusal> {
        let body = object.to_string().into_bytes();
        self.send(self.client.request(request("POST", path, body)?)).await
    }

    /// What a pod of the control plane answers at its port of probes.
    pub(super) async fn asked(&self, pod: &str, path: &str) -> Result<String, Refusal> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:5680/proxy{path}", self.namespace);
        // What is not ready says why in an answer that is an error to others.
        let request = request("GET", &path, Vec::new())?.map(Body::from);
        self.send(async {
            let answer = self.client.send(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect_bytes().await?;
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok((status, body))
        })
        .await
        .and_then(|(status, body)| match status.as_u16() {
            200 => Ok(body),
            503 if body.starts_with("not ready") => Ok(body),
            403 => Err(Refusal::Forbidden(format!("it may not be asked: {}", one_line(&body)))),
            _ => Err(Refusal::Failed(format!("{status}: {}", one_line(&body)))),
        })
    }

    /// The version of the API server, and what time it is there.
    pub(super) async fn version(&self) -> Result<(Value, Option<Timestamp>), Refusal> {
        let request = request("GET", "/version", Vec::new())?.map(Body::from);
        let (date, body) = self
            .send(async {
                let answer = self.client.send(request).await?;
                let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
                let date = date.map(ToOwned::to_owned);
                Ok((date, answer.into_body().collect_bytes().await?))
            })
            .await?;
        let version: Value = serde_json::from_slice(&body).unwrap_or_default();
        if text(&version, "/gitVersion").is_empty() {
            let body = one_line(&String::from_utf8_lossy(&body));
            return Err(Refusal::Failed(format!("what answers is no API server: {body}")));
        }
        let date = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
        Ok((version, date))
    }

    async fn send<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Refusal> {
        match timeout_at(self.deadline, request).await {
            Err(_) => Err(Refusal::Failed("no answer in the time of --timeout".into())),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(match status.code {
                404 => Refusal::Absent,
                403 => Refusal::Forbidden(status.message.clone()),
                _ => Refusal::Failed(format!("{}: {}", status.code, status.message)),
            }),
            Ok(Err(error)) => Err(Refusal::Failed(joined(error).to_string())),
        }
    }
}

/// An error with its causes, each said once: those of `kube` repeat their own.
pub(super) fn joined(error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    anyhow::Error::msg(text)
}

fn request(method: &str, path: &str, body: Vec<u8>) -> Result<Request<Vec<u8>>, Refusal> {
    let request =
        Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.body(body).map_err(|error| Refusal::Failed(error.to_string()))
}

/// The text at `path`; empty if there is none.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the list at `path`.
pub(super) fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The label `key` of an object.
pub(super) fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    let labels = object.pointer("/metadata/labels");
    labels.and_then(|labels| labels.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// Whether the condition `kind` of an object holds.
pub(super) fn holds(object: &Value, kind: &str) -> bool {
    let conditions = items(object, "/status/conditions").iter();
    conditions.filter(|it| text(it, "/type") == kind).any(|it| text(it, "/status") == "True")
}

/// The first names of many.
pub(super) fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.get(..SHOWN) {
        Some(first) if names.len() > SHOWN => {
            format!("{} and {} more", first.join(", "), names.len() - SHOWN)
        }
        _ => names.join(", "),
    }
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}
