//! `atoll check`: what is wrong with a Kubernetes cluster that is a zone, or shall be one, and what to do about it.
//!
//! It only reads, but for reviews of rights and one dry run.

mod api_server;
mod cluster;
mod control_plane;
mod definitions;
mod global;
mod ingresses;
mod report;
mod rights;
#[cfg(test)]
mod tests;
mod webhooks;
mod workloads;

use self::{cluster::Cluster, report::Report};
use crate::output::{Format, Output};
use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tokio::time::Instant;

/// Which cluster is looked at, and for what.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Look whether the cluster can become a zone, before anything is installed.
    #[arg(long)]
    pre: bool,
    /// The namespace of the control plane.
    #[arg(long, short, default_value = "kuma-system")]
    namespace: String,
    /// The file that says where the cluster is [default: that of kubectl, or in a pod its own cluster].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of that file [default: its current one].
    #[arg(long, value_name = "NAME")]
    kube_context: Option<String>,
    /// How long all of it may take.
    #[arg(long, default_value = "30s", value_parser = daemon::duration::parse)]
    timeout: Duration,
    /// The form of the answer.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Check {
    /// Looks at everything and says what is wrong. Fails if something is.
    pub(crate) async fn run(&self, out: &mut Output<'_>) -> Result<ExitCode> {
        resource::NameRule::Label.check(&self.namespace).context("--namespace")?;
        // Set already when another client was made.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let client = Client::try_from(self.config().await?).context("the kubeconfig")?;
        let cluster = Cluster::new(client, &self.namespace, Instant::now() + self.timeout);
        self.report(&cluster, Timestamp::now(), out).await
    }

    async fn config(&self) -> Result<Config> {
        let options = KubeConfigOptions {
            context: self.kube_context.clone(),
            ..KubeConfigOptions::default()
        };
        if let Some(file) = &self.kubeconfig {
            let named = || file.display().to_string();
            let file = Kubeconfig::read_from(file).map_err(cluster::joined).with_context(named)?;
            let config = Config::from_custom_kubeconfig(file, &options).await;
            return config.map_err(cluster::joined).with_context(named);
        }
        if self.kube_context.is_some() {
            let config = Config::from_kubeconfig(&options).await;
            return config.map_err(cluster::joined).context("--kube-context");
        }
        let config = Config::infer().await.map_err(cluster::joined);
        config.context("no cluster is known; say which by --kubeconfig")
    }

    async fn report(
        &self,
        cluster: &Cluster,
        now: Timestamp,
        out: &mut Output<'_>,
    ) -> Result<ExitCode> {
        let mut report = Report::new(self.output, out);
        let reached = api_server::look(cluster, now).await;
        let (answers, mut installed) = (reached.begins_well(), false);
        report.add(reached)?;
        // Without the first thing of a group the others would say the same once more.
        if answers && self.pre {
            report.add(rights::look(cluster).await)?;
            report.add(definitions::before(cluster).await)?;
        } else if answers {
            report.add(definitions::look(cluster).await)?;
            let control_plane = control_plane::look(cluster, now).await;
            installed = control_plane.begins_well();
            report.add(control_plane)?;
        }
        if installed {
            report.add(webhooks::look(cluster, now).await)?;
            report.add(global::look(cluster).await)?;
            report.add(workloads::look(cluster).await)?;
            report.add(ingresses::look(cluster).await)?;
        }
        Ok(if report.end()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
