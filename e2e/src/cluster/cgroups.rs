//! A cgroup for all pods of a node, in every hierarchy that the machine has.

use crate::wait;
use anyhow::{Context, Result};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

const ROOT: &str = "/sys/fs/cgroup";

/// How long the kernel may need to see that the last process is gone.
const GONE: Duration = Duration::from_secs(10);

/// Makes it.
pub(super) fn make(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        // In an old hierarchy a new group may use no processor and no memory at all.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(hierarchy.join(file)) {
                fs::write(folder.join(file), all)?;
            }
        }
    }
    Ok(())
}

/// Removes it with all that is in it.
pub(crate) fn remove(name: &str) -> Result<()> {
    wait::until(&format!("cgroup {name} is removed"), GONE, || {
        for hierarchy in hierarchies()? {
            remove_tree(&hierarchy.join(name))?;
        }
        Ok(())
    })
}

/// The one of a new machine, or those of an old one.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    folders(root)
}

fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_tree(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for child in folders(folder)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}
