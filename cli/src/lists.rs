//! Showing resources, zones and dataplanes.

use crate::{
    client::Client,
    kind,
    output::{Format, Output},
};
use anyhow::Result;
use clap::Args;
use jiff::{SpanRound, Timestamp, Unit};
use kinds::{
    dataplane::{self, Dataplane, Presence},
    dataplane_insight::{self, DataplaneInsight},
};
use resource::{Kind, Spec};
use serde_json::Value;

/// Show resources.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Their kind, such as `meshtimeouts` or `mt`.
    kind: String,
    /// Only the one of this name.
    name: Option<String>,
    /// The form of the answer.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Only those of this mesh. A resource by name is looked for in `default` unless said.
    #[arg(long, short)]
    mesh: Option<String>,
}

impl Get {
    /// Shows one resource, or all of a kind.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<()> {
        let kind = kind::find(&self.kind)?;
        if let Some(name) = &self.name {
            let path = kind::path(&kind, self.mesh.as_deref(), name);
            let resource = client.get(&path).await?;
            return match self.output {
                Format::Table => table(&[resource], out),
                Format::Yaml | Format::Json => out.document(self.output, &resource),
            };
        }
        let items = client.list(&kind::list_path(&kind, self.mesh.as_deref())).await?;
        match self.output {
            Format::Table => table(&items, out),
            Format::Json => out.document(Format::Json, &Value::Array(items)),
            Format::Yaml => {
                for item in &items {
                    out.line("---")?;
                    out.document(Format::Yaml, item)?;
                }
                Ok(())
            }
        }
    }
}

fn table(items: &[Value], out: &mut Output<'_>) -> Result<()> {
    let now = Timestamp::now();
    let row = |item: &Value| {
        let label = |key: &str| text(item, &["labels", key]);
        [
            text(item, &["mesh"]),
            text(item, &["name"]),
            label("kuma.io/origin"),
            label("kuma.io/zone"),
            age(&text(item, &["creationTime"]), now),
        ]
    };
    out.table(["MESH", "NAME", "ORIGIN", "ZONE", "AGE"], items.iter().map(row).collect())
}

/// Lists the zones.
pub(crate) async fn zones(client: &Client, out: &mut Output<'_>) -> Result<()> {
    let now = Timestamp::now();
    let items = client.list("/zones/_overview").await?;
    let row = |item: &Value| {
        let last =
            list(item, &["zoneInsight", "subscriptions"]).last().cloned().unwrap_or_default();
        let count = |field: &str| {
            let sent = text(&last, &["status", "total", field]);
            if sent.is_empty() { "0".to_owned() } else { sent }
        };
        let (connected, ended) = (text(&last, &["connectTime"]), text(&last, &["disconnectTime"]));
        let (status, since) = match (connected.is_empty(), ended.is_empty()) {
            (true, _) => ("never seen", String::new()),
            (false, true) => ("online", age(&connected, now)),
            (false, false) => ("offline", age(&ended, now)),
        };
        let enabled = item.pointer("/zone/enabled").and_then(Value::as_bool).unwrap_or(true);
        [
            text(item, &["name"]),
            if enabled { status.to_owned() } else { format!("{status}, disabled") },
            since,
            text(&last, &["version", "kumaCp", "version"]),
            count("responsesSent"),
            count("responsesAcknowledged"),
            count("responsesRejected"),
        ]
    };
    let header = ["NAME", "STATUS", "SINCE", "VERSION", "SENT", "TAKEN", "REFUSED"];
    out.table(header, items.iter().map(row).collect())
}

/// Lists dataplanes.
pub(crate) async fn dataplanes(
    client: &Client,
    mesh: Option<&str>,
    out: &mut Output<'_>,
) -> Result<()> {
    let path = match mesh {
        Some(mesh) => format!("/meshes/{mesh}/dataplanes/_overview"),
        None => "/dataplanes/_overview".to_owned(),
    };
    let now = Timestamp::now();
    let items = client.list(&path).await?;
    let row = |item: &Value| {
        let label = |key: &str| text(item, &["labels", key]);
        let display = label("kuma.io/display-name");
        let expiry = text(item, &["dataplaneInsight", "mTLS", "certificateExpirationTime"]);
        [
            text(item, &["mesh"]),
            if display.is_empty() { text(item, &["name"]) } else { display },
            label("kuma.io/zone"),
            label("kuma.io/workload"),
            status(item),
            text(item, &["dataplane", "networking", "address"]),
            ports(item),
            expiry.parse().map_or_else(|_| String::new(), |at: Timestamp| span(now, at)),
        ]
    };
    let header = ["MESH", "NAME", "ZONE", "WORKLOAD", "STATUS", "ADDRESS", "PORTS", "CERTIFICATE"];
    out.table(header, items.iter().map(row).collect())?;
    for item in &items {
        let (name, mesh) = (text(item, &["name"]), text(item, &["mesh"]));
        for problem in problems(item) {
            out.line(format_args!("{mesh}/{name}: {problem}"))?;
        }
    }
    Ok(())
}

/// How a proxy does, and whether anything is wrong with it.
fn status(item: &Value) -> String {
    let insight: Option<DataplaneInsight> = spec(item, "dataplaneInsight", dataplane_insight::KIND);
    let connected = insight.is_some_and(|insight| insight.is_online());
    let dataplane: Option<Dataplane> = spec(item, "dataplane", dataplane::KIND);
    let status = match dataplane.map(|dataplane| dataplane.presence(connected)) {
        Some(Presence::Online) => "online",
        Some(Presence::PartiallyDegraded) => "partly",
        Some(Presence::Offline) if connected => "not ready",
        Some(Presence::Offline) => "offline",
        // A newer control plane may have what is not known here.
        None => "unknown",
    };
    if problems(item).is_empty() { status.to_owned() } else { format!("{status}, problems") }
}

fn spec<S: Spec + Clone>(item: &Value, field: &str, kind: Kind) -> Option<S> {
    let spec = kind.from_json(item.get(field)?.clone()).ok()?;
    spec.downcast_ref::<S>().cloned()
}

/// What is wrong with a proxy, as its zone says.
fn problems(item: &Value) -> Vec<String> {
    let problems = list(item, &["dataplaneInsight", "metadata", "problems"]);
    problems.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The ports of inbounds and listeners that are ready, and in brackets those that are not.
fn ports(item: &Value) -> String {
    let networking = ["dataplane", "networking"];
    let inbounds = list(item, &[&networking[..], &["inbound"]].concat());
    let listeners = list(item, &[&networking[..], &["listeners"]].concat());
    let port = |entry: &Value| {
        let (port, state) = (text(entry, &["port"]), text(entry, &["state"]));
        if state.is_empty() || state == "Ready" { port } else { format!("({port})") }
    };
    inbounds.iter().chain(&listeners).map(port).collect::<Vec<_>>().join(" ")
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, field| value.get(field))
}

fn text(value: &Value, path: &[&str]) -> String {
    match at(value, path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn list(value: &Value, path: &[&str]) -> Vec<Value> {
    at(value, path).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn age(time: &str, now: Timestamp) -> String {
    time.parse().map_or_else(|_| String::new(), |then: Timestamp| span(then, now))
}

/// The time between two moments in its two largest units.
fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs();
    let (unit, least) = match seconds.abs() {
        0..3600 => (Unit::Minute, Unit::Second),
        3600..86_400 => (Unit::Hour, Unit::Minute),
        _ => (Unit::Hour, Unit::Hour),
    };
    let round = SpanRound::new().largest(unit).smallest(least);
    let rounded = jiff::Span::new().seconds(seconds).round(round);
    rounded.map_or_else(|_| format!("{seconds}s"), |span| format!("{span:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| span(start, start + jiff::Span::new().seconds(seconds));
        assert_eq!([after(5), after(65), after(3_700)], ["5s", "1m 5s", "1h 2m"]);
        assert_eq!(age("not a time", start), "");
    }

    #[test]
    fn a_proxy_does_as_its_session_and_its_ports_do() {
        let status = |state: &str, stay: Value| {
            status(&serde_json::json!({
                "dataplane": { "networking": {
                    "address": "10.0.0.1", "inbound": [{ "port": 80, "state": state }],
                } },
                "dataplaneInsight": stay,
            }))
        };
        let (since, until) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        let here = serde_json::json!({ "id": "1", "connectTime": since });
        let gone = serde_json::json!({ "id": "1", "connectTime": since, "disconnectTime": until });
        let insight = |stay: &Value| serde_json::json!({ "subscriptions": [stay] });
        assert_eq!(status("Ready", insight(&here)), "online");
        assert_eq!(status("NotReady", insight(&here)), "not ready");
        assert_eq!(status("Ready", insight(&gone)), "offline");
        let wrong = serde_json::json!({
            "subscriptions": [here], "metadata": { "problems": ["Envoy refuses"] },
        });
        assert_eq!(status("Ready", wrong), "online, problems");
        assert_eq!(super::status(&serde_json::json!({ "dataplane": 1 })), "unknown");
    }

    #[test]
    fn ports_that_are_not_ready_stand_in_brackets() {
        let item = serde_json::json!({ "dataplane": { "networking": {
            "inbound": [{ "port": 80 }, { "port": 81, "state": "NotReady" }],
            "listeners": [{ "port": 10001, "state": "Ready" }],
        } } });
        assert_eq!(ports(&item), "80 (81) 10001");
    }
}
