//! A zone's connection with its global.

use crate::{client::Client, output::Output};
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
    },
}

const STATE: &str = "/_global";

impl ZoneCommand {
    /// Runs the command.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<()> {
        let state = client.get(STATE).await?;
        match self {
            Self::Status => status(&state, out),
            Self::Adopt { yes } => {
                let reason = text(&state, "/held/reason").context("nothing is held back")?;
                out.line(format!("nothing of global is applied: {reason}"))?;
                let global = text(&state, "/held/global")
                    .context("this global does not say which one it is, so it cannot be adopted")?;
                if !yes {
                    bail!("`--yes` makes this zone take everything from global {global}");
                }
                let body = json!({ "global": global });
                client.request(Method::POST, &format!("{STATE}/adopt"), Some(&body)).await?;
                out.line(format!("the zone follows global {global}"))
            }
        }
    }
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

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
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
        let router = Router::new()
            .route(STATE, routing::get(move || std::future::ready(Json(state))))
            .route("/_global/adopt", routing::post(adopt));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async { axum::serve(listener, router).await.unwrap() });
        let client = Client::of(Target { address, ca: None, tokens: Vec::new() }).unwrap();
        let mut printed = Vec::new();
        let ran = command.run(&client, &mut Output::new(&mut printed)).await;
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
        let why = "nothing of global is applied: another global\n";
        let (printed, posted) = run(held(), ZoneCommand::Adopt { yes: false }).await;
        let error = "error: `--yes` makes this zone take everything from global \"c2\", store 2\n";
        assert_eq!((printed, posted), (format!("{why}{error}"), vec![]));
        let (printed, posted) = run(held(), ZoneCommand::Adopt { yes: true }).await;
        let done = "the zone follows global \"c2\", store 2\n";
        let body = json!({ "global": "\"c2\", store 2" });
        assert_eq!((printed, posted), (format!("{why}{done}"), vec![body]));
        let following = json!({ "state": "Following", "complete": true });
        let (printed, posted) = run(following, ZoneCommand::Adopt { yes: true }).await;
        assert_eq!((printed.as_str(), posted), ("error: nothing is held back\n", vec![]));
    }
}
