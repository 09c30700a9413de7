//! Writing and deleting resources.

use crate::{
    client::Client,
    documents::{self, Document},
    kind,
    output::Output,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::{Method, StatusCode};
use std::path::PathBuf;

/// Create or change resources.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// A file, a folder, or `-` for standard input; may be repeated.
    #[arg(long, short, required = true)]
    file: Vec<PathBuf>,
    /// Only check; change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Delete a resource.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Its kind, such as `meshtimeout` or `mt`.
    kind: String,
    /// Its name.
    name: String,
    /// Its mesh.
    #[arg(long, short, default_value = "default")]
    mesh: String,
}

impl Apply {
    /// Writes every resource, whatever becomes of the others; meshes first, as others live in them.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<()> {
        let mut all = Vec::new();
        for file in &self.file {
            all.extend(documents::read(file)?);
        }
        all.sort_by_key(|document| document.kind != "Mesh");
        let mut refused = 0;
        for document in &all {
            match self.put(client, document).await {
                Ok(what) => out.line(format!("{}/{} {what}", document.kind, document.name))?,
                Err(error) => {
                    refused += 1;
                    out.line(format!("{}/{} refused: {error:#}", document.kind, document.name))?;
                }
            }
        }
        if refused > 0 {
            bail!("{refused} of {} resources were refused", all.len());
        }
        Ok(())
    }

    async fn put(&self, client: &Client, document: &Document) -> Result<&'static str> {
        let kind = kind::find(&document.kind).with_context(|| document.place.clone())?;
        let mut path = kind::path(&kind, document.mesh.as_deref(), &document.name);
        if self.dry_run {
            path += "?dryRun=true";
        }
        let (status, _) = client.request(Method::PUT, &path, Some(&document.content)).await?;
        Ok(match (self.dry_run, status) {
            (true, _) => "is valid",
            (false, StatusCode::CREATED) => "created",
            (false, _) => "applied",
        })
    }
}

impl Delete {
    /// Deletes the resource.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<()> {
        let kind = kind::find(&self.kind)?;
        let path = kind::path(&kind, Some(&self.mesh), &self.name);
        client.request(Method::DELETE, &path, None).await?;
        out.line(format!("{}/{} deleted", kind.name, self.name))
    }
}
