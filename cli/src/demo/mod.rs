//! Two zones on this machine, and what they do for each other, step by step.

mod apps;
mod files;
mod names;
mod processes;
mod steps;

use self::{
    files::{Places, Zone},
    processes::Processes,
    steps::Steps,
};
use crate::output::Output;
use anyhow::{Context, Result};
use clap::Args;
use std::{fs, path::PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End after the last step; fail if one did not do what it shows.
    #[arg(long)]
    check: bool,
    /// The Envoy to run, looked up on PATH if it has no slash.
    #[arg(long, default_value = "envoy")]
    envoy_path: String,
    /// Keep everything in this folder, which must be new or empty, instead of a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Runs the demo.
pub(crate) async fn run(demo: &Demo, out: &mut Output<'_>) -> Result<()> {
    let folder = demo
        .dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("atoll-demo-{}", std::process::id())));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    if fs::read_dir(&folder)?.next().is_some() {
        anyhow::bail!("{} is not empty", folder.display());
    }
    let places = Places::new(folder.canonicalize()?, demo.envoy_path.clone());
    let mut processes = Processes::new(&places)?;
    out.line(format!("Logs of every process: {}\n", places.logs().display()))?;
    let outcome = tokio::select! {
        biased;
        asked = asked_to_end() => asked,
        shown = show(demo, &places, &mut processes, out) => shown,
    };
    out.line("\nEnding everything that was started.")?;
    processes.stop_all().await;
    outcome
}

/// Ctrl-C, a terminal that is closed, or whoever runs this as a service.
async fn asked_to_end() -> Result<()> {
    let [mut interrupt, mut terminate, mut hangup] =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(interrupt), Ok(terminate), Ok(hangup)] = [&mut interrupt, &mut terminate, &mut hangup]
    else {
        anyhow::bail!("signals cannot be watched");
    };
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

async fn show(
    demo: &Demo,
    places: &Places,
    processes: &mut Processes,
    out: &mut Output<'_>,
) -> Result<()> {
    let mut steps = Steps::new(places, processes, out);
    steps.start_control_planes().await?;
    steps.start_proxies().await?;
    let mut call = steps.call_across().await?;
    steps.refuse_and_allow(&mut call).await?;
    steps.lose_global(&mut call).await?;
    if demo.check {
        return steps.done();
    }
    steps.what_next()?;
    steps.stay_up().await
}

/// The zones of the demo.
pub(crate) const ZONES: [Zone; 2] = [Zone::WEST, Zone::EAST];
