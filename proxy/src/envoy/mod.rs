//! Keeps one Envoy running.

mod admin;
mod process;
mod supervisor;

pub use self::{
    admin::{Admin, AdminError, Socket, What},
    process::{Launch, Process, Runner, Signal, System},
};

pub(crate) use self::process::send;

use self::supervisor::{Action, Event, Supervisor};
use crate::workdir::{Workdir, WorkdirError};
use prometheus_client::metrics::counter::Counter;
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// An Envoy to run.
#[derive(Debug)]
pub(crate) struct Envoy<R, A> {
    pub(crate) runner: R,
    pub(crate) admin: A,
    /// How it is started once it is configured.
    pub(crate) launch: Launch,
    pub(crate) workdir: Workdir,
    /// What it has to lose its connections.
    pub(crate) drain: Duration,
    /// Counts its starts.
    pub(crate) starts: Counter,
}

impl<R: Runner, A: Admin> Envoy<R, A> {
    /// Starts Envoy when `configured` turns true, and again whenever it ends, and shows in `ready`
    /// whether it serves. Once `stop` is cancelled it is drained and ended.
    pub(crate) async fn run(
        self,
        mut configured: watch::Receiver<bool>,
        ready: watch::Sender<bool>,
        stop: CancellationToken,
    ) -> Result<(), WorkdirError> {
        let mut supervisor = Supervisor::new(self.drain);
        let mut process: Option<R::Process> = None;
        let (mut stopping, mut waiting) = (false, true);
        while !supervisor.is_stopped() {
            let deadline = supervisor.deadline();
            let event = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    Event::Stop
                }
                status = exited(&mut process) => {
                    process = None;
                    self.say_exited(&status, stopping);
                    Event::Exited
                }
                changed = configured.wait_for(|configured| *configured), if waiting => {
                    waiting = false;
                    // Nobody is left who could configure it.
                    if changed.is_err() { continue }
                    Event::Configured
                }
                () = until(deadline) => Event::Due,
            };
            let mut next = Some(event);
            while let Some(event) = next.take() {
                let action = supervisor.step(&event, Instant::now(), fastrand::f64());
                show(&ready, supervisor.is_ready());
                if let Some(action) = action {
                    next = self.perform(action, &mut process).await?;
                }
            }
        }
        self.workdir.forget_process()
    }

    async fn perform(
        &self,
        action: Action,
        process: &mut Option<R::Process>,
    ) -> Result<Option<Event>, WorkdirError> {
        Ok(match action {
            Action::Start => match self.runner.start(&self.launch) {
                Ok(started) => {
                    info!(pid = started.id(), "envoy started");
                    self.starts.inc();
                    self.workdir.remember_process(started.id())?;
                    *process = Some(started);
                    None
                }
                Err(error) => {
                    warn!(program = %self.launch.program, %error, "envoy cannot be started");
                    Some(Event::Exited)
                }
            },
            Action::Poll => Some(Event::Polled { ready: self.admin.is_ready().await }),
            Action::Drain => {
                info!("draining envoy");
                if let Err(error) = self.admin.drain().await {
                    warn!(error = format!("{error:#}"), "envoy does not drain");
                }
                None
            }
            Action::Count => Some(Event::Counted(self.admin.connections().await.ok())),
            Action::Terminate => signal(process, Signal::Terminate),
            Action::Kill => signal(process, Signal::Kill),
        })
    }

    fn say_exited(&self, status: &str, stopping: bool) {
        if stopping {
            info!(status, "envoy ended");
        } else {
            warn!(status, log = ?self.launch.log, "envoy ended by itself");
        }
    }
}

/// A process that is not there does not end.
async fn exited<P: Process>(process: &mut Option<P>) -> String {
    match process {
        Some(process) => process.exited().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A process that is not there has ended.
fn signal<P: Process>(process: &mut Option<P>, signal: Signal) -> Option<Event> {
    match process {
        Some(process) => {
            process.signal(signal);
            None
        }
        None => Some(Event::Exited),
    }
}

fn show(ready: &watch::Sender<bool>, now: bool) {
    let changed = ready.send_if_modified(|shown| std::mem::replace(shown, now) != now);
    if changed && now {
        info!("envoy is ready");
    }
}

#[cfg(test)]
mod tests;
