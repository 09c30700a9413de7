//! What the Envoy of a dataplane says.

use crate::{client::Client, output::Output};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::Value;

/// What to look into.
#[derive(Debug, Subcommand)]
pub(crate) enum Inspect {
    /// Ask the Envoy of a dataplane, in whichever zone it is.
    #[command(after_help = "Example: atoll inspect dataplane web-1 --zone west --type config-dump")]
    Dataplane(Dataplane),
}

/// Ask the Envoy of a dataplane, in whichever zone it is.
#[derive(Debug, Args)]
pub(crate) struct Dataplane {
    /// Its name, as `atoll dataplanes` shows it.
    name: String,
    /// Its mesh.
    #[arg(long, short, default_value = "default")]
    mesh: String,
    /// Its zone, if others have one of the same name.
    #[arg(long)]
    zone: Option<String>,
    /// What to ask.
    #[arg(long = "type", value_enum, default_value_t)]
    what: What,
    /// Show endpoints in the configuration too.
    #[arg(long)]
    include_eds: bool,
    /// Show all statistics, also those that were never used.
    #[arg(long)]
    all: bool,
    /// Show statistics and clusters as JSON.
    #[arg(long)]
    json: bool,
}

/// What to ask an Envoy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Its whole configuration.
    #[default]
    ConfigDump,
    /// Its statistics.
    Stats,
    /// Its clusters and their endpoints.
    Clusters,
}

impl Inspect {
    /// Runs the command.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<()> {
        let Self::Dataplane(dataplane) = self;
        let path = format!("{}/{}", dataplane.path(client).await?, dataplane.query());
        let (_, answer) = client.request(Method::GET, &path, None).await?;
        out.text(&answer)?;
        if answer.ends_with('\n') { Ok(()) } else { out.text("\n") }
    }
}

impl Dataplane {
    fn query(&self) -> String {
        let (what, mut set) = match self.what {
            What::ConfigDump => ("xds", vec![("include_eds=true", self.include_eds)]),
            What::Stats => ("stats", vec![("usedonly=false", self.all)]),
            What::Clusters => ("clusters", Vec::new()),
        };
        set.push(("format=json", self.json && self.what != What::ConfigDump));
        let set: Vec<&str> = set.iter().filter(|(_, on)| *on).map(|(query, _)| *query).collect();
        if set.is_empty() { what.to_owned() } else { format!("{what}?{}", set.join("&")) }
    }

    async fn path(&self, client: &Client) -> Result<String> {
        path(client, &self.mesh, &self.name, self.zone.as_deref()).await
    }
}

/// Where the dataplane `name` of a zone is. On global it has another name than in its zone.
pub(crate) async fn path(
    client: &Client,
    mesh: &str,
    name: &str,
    zone: Option<&str>,
) -> Result<String> {
    let all = format!("/meshes/{mesh}/dataplanes");
    let of_zone = zone.map(|zone| format!("&filter[labels.kuma.io/zone]={zone}"));
    let of_zone = of_zone.unwrap_or_default();
    let filter = format!("{all}?filter[labels.kuma.io/display-name]={name}{of_zone}");
    let found = client.list(&filter).await?;
    let text = |item: &Value, pointer: &str| {
        item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    match &found[..] {
        // It may be called by the name that it has here.
        [] => match zone {
            None => Ok(format!("{all}/{name}")),
            Some(zone) => bail!("no dataplane {name:?} in mesh {mesh:?} and zone {zone:?}"),
        },
        [one] => {
            let name = one.get("name").and_then(Value::as_str).context("a resource has no name")?;
            Ok(format!("{all}/{name}"))
        }
        several => {
            let zones: Vec<String> =
                several.iter().map(|one| text(one, "/labels/kuma.io~1zone")).collect();
            bail!("{name:?} is in zones {}: say which with `--zone`", zones.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{args::Args, args::Command, connection::Target};
    use axum::{Json, Router, extract::OriginalUri, routing};
    use clap::Parser;
    use serde_json::json;
    use tokio::{net::TcpListener, task::JoinSet};

    /// What a command prints or fails with where there are these dataplanes: name, zone, and name
    /// in the zone.
    async fn run(dataplanes: &[(&str, &str, &str)], arguments: &[&str]) -> String {
        let items: Vec<Value> = dataplanes
            .iter()
            .map(|(name, zone, display)| {
                let labels = json!({ "kuma.io/zone": zone, "kuma.io/display-name": display });
                json!({ "name": name, "labels": labels })
            })
            .collect();
        let list = move |OriginalUri(uri): OriginalUri| {
            let query = uri.query().unwrap_or_default().to_owned();
            let selected = items.iter().filter(|item| {
                ["kuma.io/zone", "kuma.io/display-name"].iter().all(|label| {
                    let filter = query
                        .split('&')
                        .find_map(|pair| pair.strip_prefix(&format!("filter[labels.{label}]=")));
                    filter.is_none_or(|wanted| item["labels"][*label] == wanted)
                })
            });
            let items: Vec<Value> = selected.cloned().collect();
            std::future::ready(Json(json!({ "items": items, "next": null })))
        };
        let echo = |OriginalUri(uri): OriginalUri| std::future::ready(uri.to_string());
        let router = Router::new()
            .route("/meshes/{mesh}/dataplanes", routing::get(list))
            .route("/meshes/{mesh}/dataplanes/{name}/{what}", routing::get(echo));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async { axum::serve(listener, router).await.unwrap() });
        let client = Client::of(Target { address, ca: None, tokens: Vec::new() }).unwrap();
        let arguments = ["atoll", "inspect", "dataplane"].iter().chain(arguments);
        let Command::Inspect { command } = Args::try_parse_from(arguments).unwrap().command else {
            panic!("another command")
        };
        let mut printed = Vec::new();
        match command.run(&client, &mut Output::new(&mut printed)).await {
            Ok(()) => String::from_utf8(printed).unwrap(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[tokio::test]
    async fn a_dataplane_is_found_by_the_name_that_it_has_in_its_zone() {
        let all = [
            ("web-1-x7", "west", "web-1"),
            ("web-1-z9", "east", "web-1"),
            ("db-1-q2", "east", "db-1"),
        ];
        assert_eq!(run(&all, &["db-1"]).await, "/meshes/default/dataplanes/db-1-q2/xds\n");
        let of_east = run(&all, &["web-1", "--zone", "east", "--mesh", "shop"]).await;
        assert_eq!(of_east, "/meshes/shop/dataplanes/web-1-z9/xds\n");
        let both = run(&all, &["web-1"]).await;
        assert_eq!(both, r#"error: "web-1" is in zones west, east: say which with `--zone`"#);
        assert_eq!(run(&all, &["web-1-x7"]).await, "/meshes/default/dataplanes/web-1-x7/xds\n");
        let none = run(&all, &["db-1", "--zone", "west"]).await;
        assert_eq!(none, r#"error: no dataplane "db-1" in mesh "default" and zone "west""#);
    }

    #[tokio::test]
    async fn what_is_asked_is_said_by_options() {
        for (options, asked) in [
            (&["--type", "config-dump", "--include-eds"][..], "xds?include_eds=true"),
            (&["--type", "config-dump", "--json", "--all"], "xds"),
            (&["--type", "stats"], "stats"),
            (&["--type", "stats", "--all", "--json"], "stats?usedonly=false&format=json"),
            (&["--type", "clusters", "--json"], "clusters?format=json"),
            (&["--type", "clusters"], "clusters"),
        ] {
            let arguments = [&["web"], options].concat();
            let printed = run(&[], &arguments).await;
            assert_eq!(printed, format!("/meshes/default/dataplanes/web/{asked}\n"));
        }
    }
}
