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
        // Global has the key that it is the public half of, or made another one.
        let is_half = stored.1.starts_with(global_secret::ZONE_PUBLIC_KEY);
        if kind.name == global_secret::KIND.name && is_half {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Target;
    use axum::{
        Json, Router,
        extract::{OriginalUri, State},
        http::{Method, StatusCode},
        response::IntoResponse,
        routing,
    };
    use parking_lot::Mutex;
    use serde_json::json;
    use std::sync::Arc;
    use tokio::{net::TcpListener, task::JoinSet};

    /// An API with these resources by path, and what is written to it.
    #[derive(Clone, Default)]
    struct Fake {
        resources: BTreeMap<String, Value>,
        others: BTreeMap<String, Value>,
        written: Arc<Mutex<Vec<(String, Value)>>>,
    }

    async fn answer(
        State(fake): State<Fake>,
        method: Method,
        OriginalUri(uri): OriginalUri,
        body: String,
    ) -> axum::response::Response {
        let path = uri.path().to_owned();
        if method != Method::GET {
            let body: Value = serde_json::from_str(&body).unwrap();
            fake.written.lock().push((path.clone(), body));
            let refuses = path.ends_with("/refused");
            return if refuses { StatusCode::CONFLICT } else { StatusCode::OK }.into_response();
        }
        if let Some(found) = fake.others.get(&path).or_else(|| fake.resources.get(&path)) {
            return Json(found.clone()).into_response();
        }
        // A list of all meshes.
        let of_kind = |(at, _): &(&String, &Value)| {
            at.rsplit_once('/').is_some_and(|(list, _)| list.ends_with(&path))
        };
        let items: Vec<Value> =
            fake.resources.iter().filter(of_kind).map(|(_, item)| item.clone()).collect();
        Json(json!({ "items": items, "next": null })).into_response()
    }

    async fn serve(tasks: &mut JoinSet<()>, fake: Fake) -> Client {
        let router = Router::new().fallback(routing::any(answer)).with_state(fake);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tasks.spawn(async { axum::serve(listener, router).await.unwrap() });
        Client::of(Target { address, ca: None, tokens: Vec::new() }).unwrap()
    }

    fn timeout(name: &str, display: &str, seconds: u32) -> (String, Value) {
        let document = json!({
            "type": "MeshTimeout", "mesh": "shop", "name": name, "kri": "kri_mt_shop___x_",
            "creationTime": "2026-11-24T12:00:00Z", "status": {},
            "labels": {
                "kuma.io/origin": "global", "kuma.io/display-name": display,
                "kuma.io/mesh": "shop", "team": "a",
            },
            "spec": { "seconds": seconds },
        });
        (format!("/meshes/shop/meshtimeouts/{name}"), document)
    }

    /// As it is written to global.
    fn written(name: &str, seconds: u32) -> (String, Value) {
        let document = json!({
            "type": "MeshTimeout", "mesh": "shop", "name": name, "labels": { "team": "a" },
            "spec": { "seconds": seconds },
        });
        (format!("/meshes/shop/meshtimeouts/{name}"), document)
    }

    /// What is said or fails, what is written to global, and to the zone. The zone has these, and
    /// would delete so many resources by adopting global.
    async fn restore(
        timeouts: &[(&str, &str, u32)],
        deletes: usize,
        yes: bool,
    ) -> (String, [Vec<(String, Value)>; 2]) {
        let mut tasks = JoinSet::new();
        let mut zone = Fake::default();
        zone.resources.extend(timeouts.iter().map(|(name, shown, s)| timeout(name, shown, *s)));
        let secret = json!({
            "type": "GlobalSecret", "name": "zone-token-signing-public-key-1", "data": "eA==",
            "labels": { "kuma.io/display-name": "zone-token-signing-key-1" },
        });
        zone.resources.insert("/globalsecrets/zone-token-signing-public-key-1".into(), secret);
        let held = json!({ "state": "Held", "held": { "reason": "another", "global": "c2" } });
        let gone = json!({ "type": "MeshTimeout", "mesh": "shop", "name": "gone" });
        let delete = json!({ "total": deletes, "items": vec![gone; deletes] });
        zone.others.insert(zone::STATE.into(), held);
        zone.others.insert(DIFFERENCE.into(), json!({ "global": "c2", "delete": delete }));
        let mut global = Fake::default();
        global.resources.extend([timeout("same", "same", 1), timeout("other", "other", 1)]);
        let noted = [global.written.clone(), zone.written.clone()];
        let zone = serve(&mut tasks, zone).await;
        let global = serve(&mut tasks, global).await;
        let (to, to_address, to_ca_file, to_token_file) = (Some("g".into()), None, None, None);
        let command = Restore { to, to_address, to_ca_file, to_token_file, yes, dry_run: false };
        let mut said = Vec::new();
        let ran = command.run(&zone, &global, &mut Output::new(&mut said)).await;
        let mut said = String::from_utf8(said).unwrap();
        if let Err(error) = ran {
            said += &format!("error: {error}\n");
        }
        (said, noted.map(|noted| noted.lock().clone()))
    }

    const KEPT: [(&str, &str, u32); 3] =
        [("lost-x7", "lost", 1), ("other-x8", "other", 2), ("same-x9", "same", 1)];
    const LOST: &str = "this zone has what global\n  lacks   MeshTimeout shop/lost\n  \
                        differs MeshTimeout shop/other\n";

    #[tokio::test]
    async fn what_global_lost_is_named_and_written_as_it_was_only_on_purpose() {
        let (said, writes) = restore(&KEPT, 0, false).await;
        let error = "error: `--yes` writes these 2 resources to global\n";
        assert_eq!((said, writes), (format!("{LOST}{error}"), [vec![], vec![]]));

        let (said, writes) = restore(&KEPT, 0, true).await;
        let done = "2 resources handed back\nthe zone follows global c2\n";
        let adopted = ("/_global/adopt".to_owned(), json!({ "global": "c2" }));
        let back = vec![written("lost", 1), written("other", 2)];
        assert_eq!((said, writes), (format!("{LOST}{done}"), [back, vec![adopted]]));
    }

    #[tokio::test]
    async fn a_zone_does_not_follow_a_global_by_which_it_would_lose_something() {
        let (said, [back, adopted]) = restore(&KEPT, 1, true).await;
        let rest = "2 resources handed back\n  it would delete MeshTimeout shop/gone\n\
                    `atoll zone adopt` takes everything from this global all the same\n";
        assert_eq!((said, back.len(), adopted), (format!("{LOST}{rest}"), 2, vec![]));

        let (said, [back, adopted]) = restore(&[("refused-x", "refused", 1)], 0, true).await;
        let end = "error: 1 of 1 resources were refused by global\n";
        assert!(said.ends_with(end), "{said}");
        assert_eq!((back.len(), adopted), (1, vec![]));
    }

    #[tokio::test]
    async fn a_global_that_lost_nothing_is_followed() {
        let (said, [back, adopted]) = restore(&KEPT[2..], 0, true).await;
        let done = "global has everything that this zone has of it\nthe zone follows global c2\n";
        assert_eq!((&*said, back, adopted.len()), (done, vec![], 1));
    }
}
