//! A zone's connection with its global.

use crate::{client::Client, connection::Connection, output::Output, restore::Restore};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

/// What to do, on the control plane of a zone.
#[derive(Debug, Subcommand)]
pub(crate) enum ZoneCommand {
    /// Show how the zone stands with its global, and why it follows it not, if so.
    #[command(after_help = "Example: atoll zone status")]
    Status,
    /// Confirm a global that was restored or replaced: the zone then takes everything from it, and
    /// gives up what that global does not have.
    #[command(after_help = "Example: atoll zone adopt --yes")]
    Adopt {
        /// Do it; without, it is only said what would be done.
        #[arg(long)]
        yes: bool,
        /// Only say what would be done.
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
    },
    /// Hand back to a global that lost its store, or was set back, what this zone still has of it;
    /// the zone then follows that global, if it loses nothing by that.
    #[command(after_help = "Example: atoll zone restore --to global --yes")]
    Restore(Restore),
}

pub(crate) const STATE: &str = "/_global";
pub(crate) const DIFFERENCE: &str = "/_global/difference";
/// So many resources are named of each sort.
const NAMED: usize = 20;

impl ZoneCommand {
    /// Runs the command.
    pub(crate) async fn run(&self, connection: &Connection, out: &mut Output<'_>) -> Result<()> {
        let zone = Client::new(connection)?;
        match self {
            Self::Restore(restore) => restore.run(&zone, &restore.global(connection)?, out).await,
            Self::Status => status(&zone.get(STATE).await?, out),
            Self::Adopt { yes, dry_run } => propose(&zone, (*yes, *dry_run), out).await,
        }
    }
}

/// Says what adopting would do, and does it if that is wanted.
async fn propose(zone: &Client, (yes, dry_run): (bool, bool), out: &mut Output<'_>) -> Result<()> {
    let state = zone.get(STATE).await?;
    let reason = text(&state, "/held/reason").context("nothing is held back")?;
    out.line(format!("nothing of global is applied: {reason}"))?;
    let global = text(&state, "/held/global")
        .context("this global does not say which one it is, so it cannot be adopted")?;
    match zone.get(DIFFERENCE).await {
        Ok(difference) => show(&difference, out)?,
        Err(error) => out.line(format!("what would change is not known: {error:#}"))?,
    }
    if dry_run {
        return Ok(());
    }
    if !yes {
        bail!("`--yes` makes this zone take everything from global {global}");
    }
    adopt(zone, global, out).await
}

/// Makes the zone follow `global`.
pub(crate) async fn adopt(zone: &Client, global: &str, out: &mut Output<'_>) -> Result<()> {
    let body = json!({ "global": global });
    zone.request(Method::POST, &format!("{STATE}/adopt"), Some(&body)).await?;
    out.line(format!("the zone follows global {global}"))
}

/// What would become of the zone.
pub(crate) fn show(difference: &Value, out: &mut Output<'_>) -> Result<()> {
    let mut nothing = true;
    for step in ["delete", "change", "create"] {
        let items = difference.pointer(&format!("/{step}/items")).and_then(Value::as_array);
        let total = difference.pointer(&format!("/{step}/total")).and_then(Value::as_u64);
        let total = usize::try_from(total.unwrap_or_default())?;
        nothing &= total == 0;
        for item in items.into_iter().flatten().take(NAMED) {
            let field = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
            let mesh = if field("mesh").is_empty() { "" } else { "/" };
            let mesh = format!("{}{mesh}", field("mesh"));
            out.line(format!("  it would {step} {} {mesh}{}", field("type"), field("name")))?;
        }
        if total > NAMED {
            out.line(format!("  it would {step} {} more", total - NAMED))?;
        }
    }
    if nothing { out.line("  it would change nothing in this zone") } else { Ok(()) }
}

fn status(state: &Value, out: &mut Output<'_>) -> Result<()> {
    let complete = state.get("complete").and_then(Value::as_bool).unwrap_or_default();
    let lines = [
        ("state", text(state, "/state").map(str::to_lowercase)),
        ("knows everything", Some(if complete { "yes" } else { "not yet" }.to_owned())),
        ("connected since", text(state, "/connectedSince").map(str::to_owned)),
        ("last heard", text(state, "/lastHeard").map(str::to_owned)),
        ("last failure", text(state, "/lastFailure").map(str::to_owned)),
        ("applies nothing", text(state, "/held/reason").map(str::to_owned)),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            out.line(format!("{name:17} {value}"))?;
        }
    }
    if state.pointer("/held/global").is_some() {
        out.line("`atoll zone adopt` confirms this global")?;
    }
    Ok(())
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Target;
    use axum::{Json, Router, routing};
    use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

    /// What a command prints or fails with at a zone that says `state`, and what it posts.
    async fn run(state: Value, command: ZoneCommand) -> (String, Vec<Value>) {
        let (noted, mut noting) = mpsc::channel(1);
        let adopt = move |Json(body): Json<Value>| {
            noted.try_send(body).unwrap();
            std::future::ready(Json(json!({})))
        };
        let difference = json!({
            "global": "\"c2\", store 2",
            "create": { "total": 1, "items": [{ "type": "Mesh", "name": "new" }] },
            "change": { "total": 0, "items": [] },
            "delete": {
                "total": 22,
                "items": (0..22)
                    .map(|i| json!({ "type": "MeshTimeout", "mesh": "shop", "name": i.to_string() }))
                    .collect::<Vec<_>>(),
            },
        });
        let router = Router::new()
            .route(DIFFERENCE, routing::get(move || std::future::ready(Json(difference))))
            .route(STATE, routing::get(move || std::future::ready(Json(state))))
            .route("/_global/adopt", routing::post(adopt));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async { axum::serve(listener, router).await.unwrap() });
        let client = Client::of(Target { address, ca: None, tokens: Vec::new() }).unwrap();
        let mut printed = Vec::new();
        let mut out = Output::new(&mut printed);
        let ran = match command {
            ZoneCommand::Status => status(&client.get(STATE).await.unwrap(), &mut out),
            ZoneCommand::Adopt { yes, dry_run } => propose(&client, (yes, dry_run), &mut out).await,
            ZoneCommand::Restore(_) => panic!("has tests of its own"),
        };
        let mut printed = String::from_utf8(printed).unwrap();
        if let Err(error) = ran {
            printed += &format!("error: {error}\n");
        }
        let posted = std::iter::from_fn(|| noting.try_recv().ok()).collect();
        (printed, posted)
    }

    fn held() -> Value {
        let held = json!({ "reason": "another global", "global": "\"c2\", store 2" });
        json!({ "state": "Held", "complete": true, "held": held })
    }

    #[tokio::test]
    async fn a_status_says_why_nothing_is_applied() {
        let (printed, _) = run(held(), ZoneCommand::Status).await;
        let expected = "state             held\n\
                        knows everything  yes\n\
                        applies nothing   another global\n\
                        `atoll zone adopt` confirms this global\n";
        assert_eq!(printed, expected);
    }

    #[tokio::test]
    async fn only_the_global_that_was_seen_is_adopted_and_only_on_purpose() {
        let mut why = "nothing of global is applied: another global\n".to_owned();
        for i in 0..20 {
            why += &format!("  it would delete MeshTimeout shop/{i}\n");
        }
        why += "  it would delete 2 more\n  it would create Mesh new\n";
        let dry = ZoneCommand::Adopt { yes: false, dry_run: true };
        assert_eq!(run(held(), dry).await, (why.clone(), vec![]));
        let (printed, posted) =
            run(held(), ZoneCommand::Adopt { yes: false, dry_run: false }).await;
        let error = "error: `--yes` makes this zone take everything from global \"c2\", store 2\n";
        assert_eq!((printed, posted), (format!("{why}{error}"), vec![]));
        let (printed, posted) = run(held(), ZoneCommand::Adopt { yes: true, dry_run: false }).await;
        let done = "the zone follows global \"c2\", store 2\n";
        let body = json!({ "global": "\"c2\", store 2" });
        assert_eq!((printed, posted), (format!("{why}{done}"), vec![body]));
        let following = json!({ "state": "Following", "complete": true });
        let (printed, posted) =
            run(following, ZoneCommand::Adopt { yes: true, dry_run: false }).await;
        assert_eq!((printed.as_str(), posted), ("error: nothing is held back\n", vec![]));
    }
}
