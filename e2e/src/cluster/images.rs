//! Images of this build's programs, as the nodes have them.

use crate::{
    PATIENCE,
    lab::envoy,
    leftovers::{self, Claim},
    process::{Process, programs, run},
    wait,
};
use anyhow::{Context, Result};
use apiserver::Programs;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// What stands before the names of all images.
pub const REGISTRY: &str = "registry.test/atoll";

/// The tag of all images.
pub const TAG: &str = "test";

/// What stands before the process id of their owner in the name of the claim on them.
const CLAIM: &str = "images-";

/// The data of a containerd that has all images unpacked.
///
/// Images are unpacked once, and each node gets the same files: nothing changes them.
#[derive(Debug)]
pub struct Images {
    folder: PathBuf,
    /// What this process removes; nothing, if they are those of another one.
    _own: Option<(TempDir, Claim)>,
}

impl Images {
    /// Builds and unpacks the images of all our programs, of the applications of tests, and of what
    /// a cluster needs itself.
    pub fn build() -> Result<Self> {
        let kubernetes = Programs::find()?;
        for (process, _claim) in Claim::abandoned(CLAIM) {
            leftovers::remove_folders(&format!("atoll-{CLAIM}{process}-"));
        }
        let name = format!("{CLAIM}{}", std::process::id());
        let claim = Claim::take(&name)?;
        let folder = tempfile::Builder::new().prefix(&format!("atoll-{name}-")).tempdir()?;
        let this = Self { folder: folder.path().to_owned(), _own: Some((folder, claim)) };
        let archive = this.folder.join("images.tar");
        archive_of_all(&kubernetes, &archive)?;
        this.unpack(&kubernetes, &archive)?;
        fs::remove_file(archive)?;
        Ok(this)
    }

    /// Those of a process that goes on for as long as they are used here.
    #[must_use]
    pub fn of_another(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), _own: None }
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn unpack(&self, kubernetes: &Programs, archive: &Path) -> Result<()> {
        let folder = &self.folder;
        let at = |name: &str| folder.join(name).display().to_string();
        let settings = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        fs::write(at("containerd.toml"), settings)?;
        let containerd = kubernetes.of("containerd")?.display().to_string();
        let words = [
            // What it mounts to unpack is not to be seen outside.
            &["unshare", "--mount", "--propagation=private"][..],
            &[&containerd, "--log-level=warn", "--config", &at("containerd.toml")],
            &["--root", &at("data"), "--state", &at("state"), "--address", &at("socket")],
        ];
        let mut process = Process::start("containerd", folder, None, &words.concat())?;
        let ctr = kubernetes.of("ctr")?.display().to_string();
        let socket = at("socket");
        let ctr = [&*ctr, "--address", &socket, "--namespace", "k8s.io"];
        wait::until("containerd answers", PATIENCE, || {
            process.check()?;
            run(&[&ctr[..], &["version"]].concat())
        })?;
        let archive = archive.display().to_string();
        run(&[&ctr[..], &["images", "import", &archive]].concat())?;
        process.stop(PATIENCE).map(drop)
    }

    /// Gives a node the images, in a folder that is not there yet.
    pub(super) fn copy(&self, to: &Path) -> Result<()> {
        let from = self.folder.join("data").display().to_string();
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        let to = to.display().to_string();
        run(&["cp", "--archive", "--link", &from, &to])?;
        // Only the databases are written to.
        let databases = run(&["find", &from, "-name", "*.db", "-printf", "%P\n"])?;
        for each in databases.lines() {
            let (from, to) = (format!("{from}/{each}"), format!("{to}/{each}"));
            run(&["cp", "--archive", "--remove-destination", &from, &to])?;
        }
        Ok(())
    }
}

fn archive_of_all(kubernetes: &Programs, archive: &Path) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/images/build.py");
    let ours = programs()?;
    let text = |path: &Path| path.display().to_string();
    let of = |name: &str| kubernetes.of(name).map(|file| format!("{name}={}", text(&file)));
    let (pause, coredns) = (of("pause")?, of("coredns")?);
    let peer = format!("peer={},/usr/bin/curl", text(&ours.join("peer")));
    let (envoy, nft) = (text(&envoy()?), text(&kubernetes.of("nft")?));
    let (ours, debian, archive) = (text(&ours), text(&kubernetes.debian()), text(archive));
    let words = [
        &[script, "--programs", &ours, "--envoy", &envoy, "--nft", &nft, "--root", &debian][..],
        &["--registry", REGISTRY, "--tag", TAG, &archive],
        &["global-cp", "zone-cp", "sidecar", "zone-ingress", "atoll", &peer, &pause, &coredns],
    ];
    run(&words.concat()).context("images").map(drop)
}
