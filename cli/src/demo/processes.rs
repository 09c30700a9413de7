//! The programs of the demo, as child processes.

use super::files::{Places, write};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long a process may take to end.
const STOP: Duration = Duration::from_secs(15);

/// Child processes, in the order in which they were started.
#[derive(Debug)]
pub(crate) struct Processes {
    programs: PathBuf,
    places: Places,
    running: Vec<(String, Child)>,
}

impl Processes {
    /// Nothing runs yet. The programs lie beside this one.
    pub(crate) fn new(places: &Places) -> Result<Self> {
        let this = std::env::current_exe()?;
        let programs = this.parent().context("a program lies in a folder")?.to_owned();
        for program in ["global-cp", "zone-cp", "sidecar", "zone-ingress"] {
            if !programs.join(program).exists() {
                bail!("{} is missing; `make demo` builds it", programs.join(program).display());
            }
        }
        fs::create_dir_all(places.logs())?;
        Ok(Self { programs, places: places.clone(), running: Vec::new() })
    }

    /// Starts `program` as `name` with `settings`.
    pub(crate) fn start(&mut self, program: &str, name: &str, settings: &Value) -> Result<()> {
        let file = self.places.file(&format!("{name}.yaml"));
        write(&file, settings)?;
        let log = self.places.logs().join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let child = Command::new(self.programs.join(program))
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us; we end the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| program.to_owned())?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    /// Fails if a process has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        let logs = self.places.logs();
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                let log = logs.join(format!("{name}.log"));
                let text = fs::read_to_string(&log).unwrap_or_default();
                let last = text.lines().last().unwrap_or_default().to_owned();
                bail!("{name} ended ({status}): {last}\nSee {}", log.display());
            }
        }
        Ok(())
    }

    /// Ends `name`.
    pub(crate) async fn stop(&mut self, name: &str) -> Result<()> {
        let at = self.running.iter().position(|(running, _)| running == name);
        let (_, child) = self.running.remove(at.context("it does not run")?);
        end(child).await;
        Ok(())
    }

    /// Ends everything, the last first.
    pub(crate) async fn stop_all(&mut self) {
        // Proxies first and together, as each drains for a while.
        let (control_planes, proxies): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|(name, _)| name == "global" || name.starts_with("zone-"));
        futures::future::join_all(proxies.into_iter().map(|(_, child)| end(child))).await;
        for (_, child) in control_planes.into_iter().rev() {
            end(child).await;
        }
    }
}

async fn end(mut child: Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended already.
        kill_process(pid, Signal::TERM).ok();
    }
    if timeout(STOP, child.wait()).await.is_err() {
        child.kill().await.ok();
    }
}
