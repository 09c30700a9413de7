//! The namespaces of a node: whatever is started there ends with their first process, and that ends
//! with the test.

use super::cgroups;
use anyhow::{Context, Result, bail};
use apiserver::Programs;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

/// What the first process does before it only holds the namespaces. The defaults of kubelet,
/// containerd and CNI are in folders of the machine, which must not see them; and kubelet sets what
/// counts for the whole machine, so it sets copies.
const FIRST: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir /run/netns /run/lock /run/sys
mount --make-rshared /
mount --bind "$1/lib" /var/lib
mount --bind "$1/log" /var/log
for each in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    copy=/run/sys/${each##*/}
    cat "/proc/sys/$each" >"$copy"
    mount --bind "$copy" "/proc/sys/$each"
done
echo ready
exec "$2" input
"#;

/// Namespaces of mounts and processes, in a network namespace.
#[derive(Debug)]
pub(super) struct Tree {
    holder: Child,
    /// Its end is that of the first process.
    input: Option<ChildStdin>,
    /// The first process, as it is seen here.
    first: String,
    cgroup: String,
    /// The unpacked Debian packages, whose programs run here.
    debian: String,
}

impl Tree {
    /// Makes the namespaces; `folder` gets what would be in `/var`.
    pub(super) fn start(programs: &Programs, namespace: &str, folder: &Path) -> Result<Self> {
        for each in ["lib", "log"] {
            fs::create_dir_all(folder.join(each))?;
        }
        cgroups::make(namespace)?;
        let mut holder = Command::new("nsenter");
        holder.arg(format!("--net=/run/netns/{namespace}"));
        holder.args(["unshare", "--mount", "--propagation=private", "--pid", "--fork"]);
        holder.args(["--mount-proc", "--kill-child", "sh", "-c", FIRST, "sh"]);
        holder.arg(folder).arg(programs.of("pause")?);
        holder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut holder = holder.spawn().context("nsenter")?;
        let (input, output) = (holder.stdin.take(), holder.stdout.take());
        let cgroup = namespace.to_owned();
        let debian = programs.debian().display().to_string();
        let mut this = Self { holder, input, first: String::new(), cgroup, debian };
        let mut said = String::new();
        BufReader::new(output.context("its output")?).read_line(&mut said)?;
        if said != "ready\n" {
            bail!("the namespaces of a node: {:?}", this.holder.wait()?);
        }
        let id = this.holder.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        this.first = children.trim().to_owned();
        Ok(this)
    }

    /// What stands before a command that runs here.
    pub(super) fn inside(&self) -> Vec<String> {
        let debian = &self.debian;
        let path = format!("PATH={debian}/usr/bin:{debian}/usr/sbin:/usr/bin:/usr/sbin:/bin:/sbin");
        let libraries = "x86_64-linux-gnu";
        let libraries =
            format!("LD_LIBRARY_PATH={debian}/usr/lib/{libraries}:{debian}/lib/{libraries}");
        let enter = ["nsenter", "-t", &self.first, "--net", "--mount", "--pid", "--"];
        enter.iter().chain(&["env", &path, &libraries]).map(|&it| it.to_owned()).collect()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(self.input.take());
        // Ends after everything in the namespaces.
        self.holder.wait().ok();
        cgroups::remove(&self.cgroup).ok();
    }
}
