//! Showing resources, zones and dataplanes.

use crate::{
    client::Client,
    kind,
    output::{Format, Output},
};
use anyhow::Result;
use clap::Args;
use jiff::{SpanRound, Timestamp, Unit};
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
    // One that is older than this command does not know it.
    let fresh = client.get("/_freshness").await.unwrap_or_default();
    let fresh = list(&fresh, &["items"]);
    let fresh_of = |item: &Value| {
        let name = text(item, &["name"]);
        fresh.iter().find(|zone| text(zone, &["zone"]) == name).cloned().unwrap_or_default()
    };
    let row = |item: &Value| {
        let last =
            list(item, &["zoneInsight", "subscriptions"]).last().cloned().unwrap_or_default();
        let count = |field: &str| {
            let sent = text(&last, &["status", "total", field]);
            if sent.is_empty() { "0".to_owned() } else { sent }
        };
        [
            text(item, &["name"]),
            state(item),
            age(&text(item, &["status", "since"]), now),
            freshness(&fresh_of(item)),
            text(&last, &["version", "kumaCp", "version"]),
            count("responsesSent"),
            count("responsesAcknowledged"),
            count("responsesRejected"),
        ]
    };
    let header = ["NAME", "STATUS", "SINCE", "FRESH", "VERSION", "SENT", "TAKEN", "REFUSED"];
    out.table(header, items.iter().map(row).collect())?;
    explain(&items, out)?;
    for late in fresh.iter().filter(|zone| !text(zone, &["late"]).is_empty()) {
        let (name, reason) = (text(late, &["zone"]), text(late, &["reason"]));
        out.line(format_args!("{name}: late: {reason}"))?;
    }
    Ok(())
}

/// How old what a zone has may be, and whether that is too much.
fn freshness(zone: &Value) -> String {
    let Some(seconds) = at(zone, &["ageSeconds"]).and_then(Value::as_f64) else {
        return String::new();
    };
    let late = if text(zone, &["late"]).is_empty() { "" } else { ", late" };
    format!("{seconds:.0}s{late}")
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
    explain(&items, out)
}

/// Says under a table why something in it is not better.
fn explain(items: &[Value], out: &mut Output<'_>) -> Result<()> {
    for item in items {
        let (name, mesh) = (text(item, &["name"]), text(item, &["mesh"]));
        let whose = if mesh.is_empty() { name } else { format!("{mesh}/{name}") };
        for reason in list(item, &["status", "reasons"]).iter().filter_map(Value::as_str) {
            out.line(format_args!("{whose}: {reason}"))?;
        }
    }
    Ok(())
}

/// How a proxy does, and whether anything is wrong although it does well.
fn status(item: &Value) -> String {
    let state = state(item);
    let well = state != "online" || list(item, &["status", "reasons"]).is_empty();
    if well { state } else { format!("{state}, problems") }
}

/// The state of an overview as a person writes it: `PartiallyDegraded` is `partially degraded`.
fn state(item: &Value) -> String {
    let mut words = String::new();
    for c in text(item, &["status", "state"]).chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
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
pub(crate) fn span(from: Timestamp, to: Timestamp) -> String {
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
    fn a_zone_that_is_late_says_so_and_one_that_is_unknown_nothing() {
        let shown = |zone: Value| freshness(&zone);
        assert_eq!(shown(serde_json::json!({ "ageSeconds": 3.4 })), "3s");
        assert_eq!(shown(serde_json::json!({ "ageSeconds": 41.0, "late": "Proxy" })), "41s, late");
        assert_eq!(shown(serde_json::json!({ "state": "Unknown" })), "");
    }

    #[test]
    fn times_are_short() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| span(start, start + jiff::Span::new().seconds(seconds));
        assert_eq!([after(5), after(65), after(3_700)], ["5s", "1m 5s", "1h 2m"]);
        assert_eq!(age("not a time", start), "");
    }

    #[test]
    fn a_state_and_its_reasons_are_for_people() {
        let reasons = ["inbound http is not ready", "Envoy refuses Listener x"];
        let item = serde_json::json!({
            "mesh": "shop", "name": "web-1", "status": { "state": "NotReady", "reasons": reasons },
        });
        assert_eq!(status(&item), "not ready");
        let mut online = item.clone();
        online["status"]["state"] = "Online".into();
        assert_eq!((state(&online), status(&online)), ("online".into(), "online, problems".into()));
        let unknown = serde_json::json!({ "name": "east" });
        assert_eq!(state(&unknown), "");
        let mut printed = Vec::new();
        explain(&[item, unknown], &mut Output::new(&mut printed)).unwrap();
        let expected =
            "shop/web-1: inbound http is not ready\nshop/web-1: Envoy refuses Listener x\n";
        assert_eq!(String::from_utf8(printed).unwrap(), expected);
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
