//! What became of a resource in zones and proxies, and waiting for it.

use crate::{
    client::Client,
    kind,
    output::{Format, Output},
};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use std::{collections::BTreeMap, process::ExitCode, time::Duration};
use tokio::time::{Instant, sleep_until};

/// Show what became of a resource in every zone.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    which: Which,
    /// The form of the answer.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Wait until a resource is applied, or gone.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    which: Which,
    /// How long.
    #[arg(long, default_value = "30s", value_parser = daemon::duration::parse)]
    timeout: Duration,
}

#[derive(Debug, Args)]
struct Which {
    /// Its kind and name, such as `meshtimeout/slow`.
    #[arg(value_name = "KIND/NAME", value_parser = Named::parse)]
    resource: Named,
    /// Its mesh.
    #[arg(long, short, default_value = "default")]
    mesh: String,
    /// Only in these zones, separated by commas; or `all`.
    #[arg(long, default_value = "all")]
    zones: String,
    /// And in the proxies of these zones.
    #[arg(long)]
    proxies: bool,
    /// Which of them have it still, after it was deleted.
    #[arg(long, conflicts_with = "proxies")]
    deleted: bool,
}

/// A resource as people call it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    kind: String,
    name: String,
}

impl Named {
    fn parse(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty());
        let (kind, name) = parts.ok_or("must be KIND/NAME, such as meshtimeout/slow")?;
        Ok(Self { kind: kind.into(), name: name.into() })
    }
}

/// What a program that waits is told: something was refused.
const REFUSED: u8 = 1;
/// What a program that waits is told: it took too long. Not 2, which means that a command line
/// makes no sense.
const TIMED_OUT: u8 = 3;
/// What a program that waits for proxies is told: a zone cannot say what they took.
const UNKNOWN: u8 = 4;
/// How long one request waits: not as long as anything between may cut it off.
const REQUEST: Duration = Duration::from_secs(25);

/// How long to wait before asking again after so many answers that came early. Who does not wait as
/// it is asked to is shutting down, and would answer at once again.
const fn pause(hasty: u32) -> Duration {
    if hasty > 1 { Duration::from_secs(1) } else { Duration::ZERO }
}

impl Which {
    fn path(&self) -> Result<String> {
        let kind = kind::find(&self.resource.kind)?;
        let path = kind::path(&kind, Some(&self.mesh), &self.resource.name);
        let proxies = if self.proxies { "&proxies=true" } else { "" };
        let deleted = if self.deleted { "&deleted=true" } else { "" };
        Ok(format!("{path}/_propagation?zones={}{proxies}{deleted}", self.zones))
    }

    /// Asks once. Who does not know what is asked for would answer something else.
    async fn ask(&self, client: &Client, path: &str) -> Result<Value> {
        let answer = client.get(path).await?;
        let knows = !self.deleted || answer.get("deleted").is_some();
        ensure!(knows, "this control plane cannot say who has what was deleted");
        Ok(answer)
    }

    /// How many zones have it and cannot say what their proxies took, if that is asked.
    fn untold(&self, zones: &[Value]) -> usize {
        let untold = |zone: &&Value| {
            text(zone, "/state") == "Applied"
                && ["", "Unknown"].contains(&&*text(zone, "/proxies/state"))
        };
        if self.proxies { zones.iter().filter(untold).count() } else { 0 }
    }
}

impl Status {
    /// Shows a table, a line for each zone, and below it what is wrong.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<()> {
        let answer = self.which.ask(client, &self.which.path()?).await?;
        if self.output != Format::Table {
            return out.document(self.output, &answer);
        }
        let zones = list(&answer, "/zones");
        let gone = |zone: &Value| self.which.deleted && text(zone, "/state") == "Applied";
        let is = |zone: &Value| if gone(zone) { "gone".into() } else { state(zone) };
        let row = |zone: &Value| [text(zone, "/zone"), is(zone), since(zone), proxies(zone)];
        out.table(["ZONE", "STATE", "SINCE", "PROXIES"], zones.iter().map(row).collect())?;
        zones.iter().flat_map(problems).try_for_each(|line| out.line(line))?;
        let mut notes = BTreeMap::<String, usize>::new();
        for note in zones.iter().map(|zone| text(zone, "/proxies/note")) {
            *notes.entry(note).or_default() += 1;
        }
        notes.remove("");
        notes.iter().try_for_each(|(note, zones)| out.line(format_args!("{zones} zones: {note}")))
    }
}

impl Wait {
    /// Waits until nothing is pending, or something is refused, or the time is over.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<ExitCode> {
        let (path, until) = (self.which.path()?, Instant::now() + self.timeout);
        let mut hasty = 0_u32;
        let answer = loop {
            let left = until.saturating_duration_since(Instant::now());
            // A part of a millisecond would be none at all.
            let wait = left.min(REQUEST).max(Duration::from_millis(1));
            let (text, asked) = (daemon::duration::print(wait), Instant::now());
            let answer = self.which.ask(client, &format!("{path}&wait={text}")).await?;
            let settled = answer.get("settled").and_then(Value::as_bool);
            if settled.context("the answer does not say whether it is settled")?
                || Instant::now() >= until
            {
                break answer;
            }
            hasty = if asked.elapsed() < wait / 2 { hasty + 1 } else { 0 };
            sleep_until(Instant::now() + pause(hasty).min(left)).await;
        };
        let count = |what: &str| {
            answer.pointer(&format!("/summary/{what}")).and_then(Value::as_u64).unwrap_or_default()
        };
        let (applied, pending, refused) = (count("applied"), count("pending"), count("refused"));
        let Named { kind, name } = &self.which.resource;
        let zones = list(&answer, "/zones");
        for line in zones.iter().flat_map(problems) {
            out.line(line)?;
        }
        if self.which.deleted {
            let (what, code) = match pending {
                0 => ("gone", ExitCode::SUCCESS),
                _ => ("not gone in time", ExitCode::from(TIMED_OUT)),
            };
            let counts = format_args!("{applied} zones dropped it, {pending} may have it still");
            out.line(format_args!("{kind}/{name} {what}: {counts}"))?;
            return Ok(code);
        }
        let untold = self.which.untold(&zones);
        let (what, code) = match (refused, pending, untold) {
            (0, 0, 0) => ("applied", ExitCode::SUCCESS),
            (0, 0, _) => ("applied, but not known of all proxies", ExitCode::from(UNKNOWN)),
            (0, ..) => ("not applied in time", ExitCode::from(TIMED_OUT)),
            _ => ("refused", ExitCode::from(REFUSED)),
        };
        let told = if untold > 0 { format!(", {untold} cannot say") } else { String::new() };
        out.line(format_args!(
            "{kind}/{name} {what}: {applied} zones have it, {pending} wait, {refused} refused it{told}"
        ))?;
        Ok(code)
    }
}

/// What is not applied, and why.
fn problems(zone: &Value) -> Vec<String> {
    let name = text(zone, "/zone");
    let mut lines = Vec::new();
    let (state, reason) = (state(zone), text(zone, "/reason"));
    if state != "applied" && !reason.is_empty() {
        let by = text(zone, "/by");
        let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
        lines.push(format!("{name}: {state}{by}: {reason}"));
    }
    for one in list(zone, "/proxies/refused") {
        let (proxy, what, reason) =
            (text(&one, "/proxy"), text(&one, "/what"), text(&one, "/reason"));
        lines.push(format!("{name}: refused by proxy {proxy}: {what}: {reason}"));
    }
    let waiting = list(zone, "/proxies/pending");
    let waiting: Vec<&str> = waiting.iter().filter_map(Value::as_str).collect();
    if !waiting.is_empty() {
        lines.push(format!("{name}: pending in proxies {}", waiting.join(", ")));
    }
    lines
}

fn proxies(zone: &Value) -> String {
    let count = |field: &str| zone.pointer(field).and_then(Value::as_u64);
    // Without a state nobody knows.
    let state = text(zone, "/proxies/state");
    match state.as_str() {
        "" => return String::new(),
        "Unknown" => return "unknown".into(),
        _ => {}
    }
    match (count("/proxies/applied"), count("/proxies/concerned")) {
        // It is not known how many.
        (Some(0), Some(0)) if !text(zone, "/proxies/note").is_empty() => state.to_lowercase(),
        (Some(applied), Some(concerned)) => format!("{applied} of {concerned}"),
        _ => String::new(),
    }
}

fn since(zone: &Value) -> String {
    let before = text(zone, "/before");
    if before.is_empty() { text(zone, "/since") } else { format!("before {before}") }
}

/// As a person writes it: `NotForThisZone` is `not for this zone`.
fn state(zone: &Value) -> String {
    let mut words = String::new();
    for c in text(zone, "/state").chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list(value: &Value, pointer: &str) -> Vec<Value> {
    value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        args::{Args, Command},
        connection::Target,
    };
    use axum::{Json, Router, extract::RawQuery, routing};
    use clap::Parser as _;
    use parking_lot::Mutex;
    use serde_json::json;
    use std::{collections::VecDeque, sync::Arc};
    use tokio::{net::TcpListener, task::JoinSet};

    fn answer(settled: bool, counts: [u64; 3], zones: &[Value]) -> Value {
        let [applied, pending, refused] = counts;
        let summary = json!({"applied": applied, "pending": pending, "refused": refused});
        json!({"settled": settled, "summary": summary, "zones": zones})
    }

    /// What a command prints, how it ends and what it asked, at a server that answers so in turn.
    async fn run(arguments: &[&str], answers: Vec<Value>) -> (String, ExitCode, Vec<String>) {
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let tell = move |RawQuery(query): RawQuery| {
            noted.lock().push(query.unwrap_or_default());
            std::future::ready(Json(answers.lock().pop_front().unwrap()))
        };
        let path = "/meshes/shop/meshtimeouts/slow/_propagation";
        let router = Router::new().route(path, routing::get(tell));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async { axum::serve(listener, router).await.unwrap() });
        let client = Client::of(Target { address, ca: None, tokens: Vec::new() }).unwrap();
        let line = [&["atoll"], arguments, &["mt/slow", "--mesh", "shop"]].concat();
        let mut printed = Vec::new();
        let out = &mut Output::new(&mut printed);
        let command = Args::try_parse_from(line).unwrap().command;
        let code = if let Command::Wait(wait) = command {
            wait.run(&client, out).await.unwrap()
        } else if let Command::Status(status) = command {
            status.run(&client, out).await.unwrap();
            ExitCode::SUCCESS
        } else {
            panic!("{command:?}");
        };
        let asked = asked.lock().clone();
        (String::from_utf8(printed).unwrap(), code, asked)
    }

    fn east() -> Value {
        let proxies = json!({"state": "Applied", "concerned": 2, "applied": 2});
        json!({"zone": "east", "state": "Applied", "since": "2026-11-24T12:00:00Z", "proxies": proxies})
    }

    fn west() -> Value {
        let proxies = json!({"concerned": 0, "applied": 0, "note": "nobody says"});
        json!({"proxies": proxies, "zone": "west", "state": "Pending", "reason": "the zone is not connected"})
    }

    fn north() -> Value {
        let refused = json!([{"proxy": "shop/web", "what": "Listener a", "reason": "no"}]);
        let proxies = json!({
            "state": "Refused", "concerned": 3, "applied": 1, "pending": ["shop/b"],
            "refused": refused,
        });
        json!({"zone": "north", "state": "Applied", "before": "2026-11-24T12:00:00Z", "proxies": proxies})
    }

    #[tokio::test]
    async fn a_status_has_a_line_for_each_zone_and_says_what_is_wrong() {
        let zones = [east(), west(), north(), json!({"zone": "x", "state": "NotForThisZone"})];
        let (printed, _, asked) = run(&["status"], vec![answer(true, [1, 1, 1], &zones)]).await;
        let expected = " ZONE   STATE              SINCE                        PROXIES
 east   applied            2026-11-24T12:00:00Z         2 of 2
 west   pending
 north  applied            before 2026-11-24T12:00:00Z  1 of 3
 x      not for this zone
west: pending: the zone is not connected
north: refused by proxy shop/web: Listener a: no
north: pending in proxies shop/b
1 zones: nobody says
";
        assert_eq!((printed.as_str(), asked), (expected, vec!["zones=all".to_owned()]));
    }

    #[tokio::test]
    async fn waiting_ends_well_only_if_all_have_it() {
        let answers =
            vec![answer(false, [1, 1, 0], &[east(), west()]), answer(true, [2, 0, 0], &[east()])];
        let (printed, code, asked) = run(&["wait", "--zones", "east,west"], answers).await;
        assert_eq!(printed, "mt/slow applied: 2 zones have it, 0 wait, 0 refused it\n");
        assert_eq!(code, ExitCode::SUCCESS);
        let once = "zones=east,west&wait=25s";
        assert_eq!(asked, [once, once], "it asks again, and does not poll");
    }

    #[tokio::test]
    async fn waiting_for_proxies_ends_well_only_if_all_zones_say_that_they_took_it() {
        let old = json!({"zone": "old", "state": "Applied",
            "proxies": {"state": "Unknown", "note": "it does not say"}});
        let older = json!({"zone": "older", "state": "Applied"});
        for (zones, told, code) in [
            (vec![east()], "applied: 2 zones have it, 0 wait, 0 refused it", 0),
            (
                vec![east(), old, older],
                "applied, but not known of all proxies: 2 zones have it, 0 wait, 0 refused it, \
                 2 cannot say",
                4,
            ),
        ] {
            let answers = vec![answer(true, [2, 0, 0], &zones)];
            let (printed, ended, asked) = run(&["wait", "--proxies"], answers).await;
            assert_eq!((printed, ended), (format!("mt/slow {told}\n"), ExitCode::from(code)));
            assert_eq!(asked, ["zones=all&proxies=true&wait=25s"]);
        }
        let east = || vec![answer(true, [1, 0, 0], &[json!({"zone": "x", "state": "Applied"})])];
        let (_, ended, _) = run(&["wait"], east()).await;
        assert_eq!(ended, ExitCode::SUCCESS, "nobody asked for proxies");
    }

    #[tokio::test]
    async fn waiting_for_an_end_ends_well_when_nobody_has_it() {
        let east = || json!({"zone": "east", "state": "Applied"});
        let gone = |settled, pending| {
            let mut answer = answer(settled, [1, pending, 0], &[east(), west()]);
            answer["deleted"] = json!(true);
            answer
        };
        let wait = ["wait", "--deleted", "--timeout", "0s"];
        let (printed, code, asked) = run(&wait, vec![gone(false, 1)]).await;
        let expected = "west: pending: the zone is not connected
mt/slow not gone in time: 1 zones dropped it, 1 may have it still
";
        assert_eq!((printed.as_str(), code), (expected, ExitCode::from(3)));
        assert_eq!(asked, ["zones=all&deleted=true&wait=1ms"]);
        let mut all = gone(true, 0);
        all["zones"] = json!([east()]);
        let (printed, code, _) = run(&wait, vec![all]).await;
        let expected = "mt/slow gone: 1 zones dropped it, 0 may have it still\n";
        assert_eq!((printed.as_str(), code), (expected, ExitCode::SUCCESS));
        let mut all = gone(true, 0);
        all["zones"] = json!([east()]);
        let (printed, ..) = run(&["status", "--deleted"], vec![all]).await;
        assert_eq!(printed, " ZONE  STATE  SINCE  PROXIES\n east  gone\n");
        let line = ["atoll", "wait", "mt/slow", "--deleted", "--proxies"];
        assert!(Args::try_parse_from(line).is_err());
    }

    #[tokio::test]
    async fn waiting_fails_at_once_where_something_is_refused_and_says_by_whom() {
        let south = json!({
            "zone": "south", "state": "Refused", "by": "zone south", "reason": "spec.to: no",
        });
        let zones = [east(), west(), north(), south];
        let (printed, code, _) = run(&["wait"], vec![answer(true, [1, 1, 2], &zones)]).await;
        let expected = "west: pending: the zone is not connected
north: refused by proxy shop/web: Listener a: no
north: pending in proxies shop/b
south: refused by zone south: spec.to: no
mt/slow refused: 1 zones have it, 1 wait, 2 refused it
";
        assert_eq!((printed.as_str(), code), (expected, ExitCode::from(1)));
    }

    #[tokio::test]
    async fn waiting_ends_in_time_and_says_for_whom_it_waited() {
        let answers = vec![answer(false, [1, 1, 0], &[east(), west()])];
        let (printed, code, asked) = run(&["wait", "--timeout", "0s"], answers).await;
        let expected = "west: pending: the zone is not connected
mt/slow not applied in time: 1 zones have it, 1 wait, 0 refused it
";
        assert_eq!((printed.as_str(), code), (expected, ExitCode::from(3)));
        assert_eq!(asked, ["zones=all&wait=1ms"]);
    }

    #[test]
    fn who_answers_early_again_and_again_is_not_asked_at_once() {
        assert_eq!([0, 1, 2, 9].map(|hasty| pause(hasty).as_secs()), [0, 0, 1, 1]);
    }

    #[test]
    fn a_resource_is_called_by_kind_and_name() {
        for bad in ["mt", "/a", "mt/", ""] {
            assert!(Named::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Named::parse("mt/a"), Ok(Named { kind: "mt".into(), name: "a".into() }));
    }
}
