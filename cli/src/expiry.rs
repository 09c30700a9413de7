//! What expires.

use crate::{
    client::Client,
    lists::span,
    output::{Format, Output},
};
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use std::{process::ExitCode, time::Duration};

/// List what expires, the first before.
#[derive(Debug, Args)]
pub(crate) struct Expiry {
    /// What ends within this time ends soon.
    #[arg(long, default_value = "30d", value_parser = daemon::duration::parse)]
    within: Duration,
    /// The form of the answer.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Expiry {
    /// Shows all of it. Fails if something ended, or ends soon and nobody renews it by itself.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<ExitCode> {
        let within = daemon::duration::print(self.within);
        let items = client.list(&format!("/_expiry?within={within}")).await?;
        if self.output == Format::Table {
            let now = Timestamp::now();
            let rows = items.iter().map(|item| row(item, now)).collect();
            out.table(["ENDS", "IN", "WHAT", "NAME", "MESH", "ZONE", "RENEWED BY"], rows)?;
        } else {
            out.document(self.output, &Value::Array(items.clone()))?;
        }
        Ok(if items.iter().any(needs_somebody) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn needs_somebody(item: &Value) -> bool {
    text(item, "/state") != "Valid"
}

fn row(item: &Value, now: Timestamp) -> [String; 7] {
    let ends = text(item, "/notAfter");
    let left = match ends.parse::<Timestamp>() {
        Ok(ends) if ends <= now => "ended".into(),
        Ok(ends) => days(now, ends),
        Err(_) => String::new(),
    };
    let [name, what, mesh, zone] =
        ["/name", "/sort", "/mesh", "/zone"].map(|path| text(item, path));
    let number = |path| item.pointer(path).and_then(Value::as_u64);
    let name = match (number("/count"), number("/soon")) {
        (Some(count), Some(soon)) => format!("{name} ({count}, {soon} soon)"),
        _ => name,
    };
    let mark = if needs_somebody(item) { "! " } else { "" };
    [ends, format!("{mark}{left}"), words(&what), name, mesh, zone, text(item, "/renewal/by")]
}

/// Days, where there are many: hours are of no interest then.
fn days(from: Timestamp, to: Timestamp) -> String {
    match to.duration_since(from).as_hours() / 24 {
        days @ 2.. => format!("{days}d"),
        _ => span(from, to),
    }
}

/// As a person writes it: `ServerCertificate` is `server certificate`.
fn words(sort: &str) -> String {
    let mut words = String::new();
    for c in sort.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

fn text(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_needs_somebody_is_marked_and_several_are_counted() {
        let now = "2026-11-24T12:00:00Z".parse().unwrap();
        let item = |state: &str, ends: &str| {
            json!({"sort": "ProxyTokens", "name": "web", "mesh": "shop", "notAfter": ends,
                "renewal": {"automatic": false, "by": "ann"}, "count": 12, "soon": 3,
                "state": state})
        };
        let ends = "2026-11-30T12:00:00Z";
        let name = "web (12, 3 soon)";
        let shown = |left: &str, ends: &str| {
            [ends, left, "proxy tokens", name, "shop", "", "ann"].map(ToOwned::to_owned)
        };
        assert_eq!(row(&item("Soon", ends), now), shown("! 6d", ends));
        assert_eq!(row(&item("Valid", ends), now), shown("6d", ends));
        let past = "2026-11-20T12:00:00Z";
        assert_eq!(row(&item("Ended", past), now), shown("! ended", past));
        let near = "2026-11-24T13:30:00Z";
        assert_eq!(row(&item("Valid", near), now), shown("1h 30m", near));
    }
}
