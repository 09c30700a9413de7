//! A zone hands back what a global lost.
//!
//! A zone may not write what is global's, so it is not the zone that does it but who is an
//! administrator of both: what the zone has of global is read from the one API and written to the
//! other, where it is checked like every write.

use crate::{
    client::Client,
    connection::Connection,
    kind,
    output::Output,
    zone::{self, DIFFERENCE},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use kinds::global_secret;
use reqwest::Method;
use resource::{Access, Flow, Kind, label};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::PathBuf};

/// Hand the resources that this zone has of its global back to a global that lost them.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The context of that global.
    #[arg(long, value_name = "CONTEXT")]
    to: Option<String>,
    /// The address of its API.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "to")]
    to_address: Option<String>,
    /// The certificate authority that its certificate must be of (PEM).
    #[arg(long, value_name = "FILE")]
    to_ca_file: Option<PathBuf>,
    /// A file with the token of an administrator of it.
    #[arg(long, value_name = "FILE")]
    to_token_file: Option<PathBuf>,
    /// Do it; without, it is only said what would be done.
    #[arg(long)]
    yes: bool,
    /// Only say what would be done.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

/// A resource that global lacks, or has otherwise.
#[derive(Debug)]
struct Lost {
    kind: Kind,
    mesh: Option<String>,
    name: String,
    content: Value,
    /// Whether global has nothing of that name.
    is_new: bool,
}

impl Restore {
    /// The global, reached as the options say.
    pub(crate) fn global(&self, zone: &Connection) -> Result<Client> {
        Client::new(&Connection {
            address: self.to_address.clone(),
            ca_file: self.to_ca_file.clone(),
            token_file: self.to_token_file.clone(),
            context: self.to.clone(),
            config: zone.config.clone(),
        })
        .context("the global to restore to")
    }

    /// Runs the command.
    pub(crate) async fn run(
        &self,
        zone: &Client,
        global: &Client,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let mut lost = Vec::new();
        for kind in kinds::all().filter(is_of_global) {
            lost.extend(missing(kind, zone, global).await?);
        }
        if lost.is_empty() {
            out.line("global has everything that this zone has of it")?;
            return if self.yes { follow(zone, out).await } else { Ok(()) };
        }
        // Others live in them.
        lost.sort_by_key(|one| one.kind.name != kinds::mesh::KIND.name);
        out.line("this zone has what global")?;
        for one in &lost {
            let what = if one.is_new { "lacks  " } else { "differs" };
            out.line(format!("  {what} {}", one.shown()))?;
        }
        if self.dry_run {
            return Ok(());
        }
        if !self.yes {
            bail!("`--yes` writes these {} resources to global", lost.len());
        }
        let mut refused = 0;
        for one in &lost {
            let path = kind::path(&one.kind, one.mesh.as_deref(), &one.name);
            if let Err(error) = global.request(Method::PUT, &path, Some(&one.content)).await {
                refused += 1;
                out.line(format!("{} refused: {error:#}", one.shown()))?;
            }
        }
        out.line(format!("{} resources handed back", lost.len() - refused))?;
        if refused > 0 {
            bail!("{refused} of {} resources were refused by global", lost.len());
        }
        follow(zone, out).await
    }
}

impl Lost {
    fn shown(&self) -> String {
        let mesh = self.mesh.as_ref().map(|mesh| format!("{mesh}/")).unwrap_or_default();
        format!("{} {mesh}{}", self.kind.name, self.name)
    }
}

/// What global writes, by its API, and zones get.
fn is_of_global(kind: &Kind) -> bool {
    let written = !kind.path.is_empty() && kind.access != Access::ReadOnly;
    written && kind.flow.requested_by_zones() && kind.flow != Flow::ZoneToZones
}

/// What global lacks of a kind, or has otherwise.
async fn missing(kind: Kind, zone: &Client, global: &Client) -> Result<Vec<Lost>> {
    let path = kind::list_path(&kind, None);
    let origin = format!("{path}?filter[labels.{}]={}", label::ORIGIN, label::ORIGIN_GLOBAL);
    let kept = zone.list(&origin).await.with_context(|| format!("{} of the zone", kind.plural))?;
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let there = global.list(&path).await.with_context(|| format!("{} of global", kind.plural))?;
    let mut there: BTreeMap<_, _> = there.into_iter().map(|it| (place(&it), it)).collect();
    let mut lost = Vec::new();
    for kept in kept {
        let stored = place(&kept);
        let name = kept
            .pointer("/labels/kuma.io~1display-name")
            .and_then(Value::as_str)
            .map_or_else(|| stored.1.clone(), str::to_owned);
        // Global has the other half, or made another key.
        if kind.name == global_secret::KIND.name && name.starts_with(global_secret::ZONE_PUBLIC_KEY)
        {
            continue;
        }
        let found = there.remove(&(stored.0.clone(), name.clone()));
        // A list does not have to show what is secret.
        let [kept, found] = if kind.access == Access::Admins {
            let one = |name: &str| kind::path(&kind, stored.0.as_deref(), name);
            let kept = zone.get(&one(&stored.1)).await?;
            let found = match &found {
                Some(_) => Some(global.get(&one(&name)).await?),
                None => None,
            };
            [Some(kept), found]
        } else {
            [Some(kept), found]
        };
        let (is_new, kept) = (found.is_none(), kept.map(|kept| document(kept, &name)));
        if let Some(content) = kept
            && found.map(|found| document(found, &name)).as_ref() != Some(&content)
        {
            lost.push(Lost { kind, mesh: stored.0, name, content, is_new });
        }
    }
    Ok(lost)
}

/// Mesh and name of a resource.
fn place(resource: &Value) -> (Option<String>, String) {
    let field = |field: &str| resource.get(field).and_then(Value::as_str).map(str::to_owned);
    (field("mesh"), field("name").unwrap_or_default())
}

/// A resource as a user would have written it.
fn document(mut resource: Value, name: &str) -> Value {
    let own = [label::ORIGIN, label::DISPLAY_NAME, label::MESH];
    if let Value::Object(fields) = &mut resource {
        for computed in ["creationTime", "modificationTime", "kri", "status", "snis"] {
            fields.remove(computed);
        }
        fields.insert("name".into(), name.into());
        let labels = fields.remove("labels");
        let labels: Map<String, Value> = match labels {
            Some(Value::Object(labels)) => {
                labels.into_iter().filter(|(key, _)| !own.contains(&&**key)).collect()
            }
            Some(_) | None => Map::new(),
        };
        if !labels.is_empty() {
            fields.insert("labels".into(), labels.into());
        }
    }
    resource
}

/// The zone follows that global if it loses nothing by that.
async fn follow(zone: &Client, out: &mut Output<'_>) -> Result<()> {
    let state = zone.get(zone::STATE).await?;
    let Some(held) = zone::text(&state, "/held/global") else {
        return out.line(match zone::text(&state, "/state") {
            Some("Following") => "the zone follows its global",
            _ => "the zone is not connected with global: `atoll zone status` says why",
        });
    };
    let difference = zone.get(DIFFERENCE).await?;
    if difference.get("global").and_then(Value::as_str) != Some(held) {
        bail!("the zone is held back from another global: {held}");
    }
    if difference.pointer("/delete/total").and_then(Value::as_u64) != Some(0) {
        zone::show(&difference, out)?;
        return out.line("`atoll zone adopt` takes everything from this global all the same");
    }
    zone::adopt(zone, held, out).await
}
