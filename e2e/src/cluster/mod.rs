//! Kubernetes clusters of one node: real ones, each in namespaces of its own, beside the machines of
//! a [`Network`].
//!
//! A cluster is a host of a zone. Its pods reach what the host reaches, with the host's address; from
//! outside only ports of the host are reached.

mod cgroups;
mod images;
mod kubectl;
mod settings;
mod tree;

pub(crate) use self::cgroups::remove as remove_cgroup;
use self::tree::Tree;
pub use self::{
    images::{Images, REGISTRY, TAG},
    kubectl::Kubectl,
};
use crate::{
    namespace::{Host, Network},
    peer::Client,
    process::{Process, run},
    wait,
};
use anyhow::{Context, Result, bail};
use apiserver::{Setup, User};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// The address of the host of a cluster within its zone's subnet ends with this.
pub(crate) const HOST: u8 = 10;

/// How long each step of a start may take on a machine that has other things to do.
const START: Duration = Duration::from_secs(180);

/// The range of the addresses of pods. It is the same in all clusters: they mean nothing elsewhere.
const PODS: &str = "10.244.0.0/24";

/// The address of the cluster's DNS.
const DNS: &str = "10.96.0.10";

const NODE: &str = "node";

/// Whom the programs of the node are for the API server.
const USERS: [User; 2] =
    [("node", "system:node:node", "system:nodes"), ("proxy", "system:kube-proxy", "")];

/// A running cluster, which ends with this value.
#[derive(Debug)]
pub struct Cluster {
    /// Its host.
    pub host: Host,
    /// Who asks its API server, as the administrator.
    pub kubectl: Kubectl,
    server: Option<Process>,
    processes: Vec<Process>,
    tree: Tree,
    setup: Setup,
}

/// Starts clusters as hosts of zones whose subnets are there: the number of each zone, and a folder
/// for its files. They start side by side, since each waits for something most of the time.
pub fn start_all(
    network: &Network,
    zones: &[(u8, PathBuf)],
    images: &Images,
) -> Result<Vec<Cluster>> {
    thread::scope(|scope| {
        let start = |(zone, folder): &(u8, PathBuf)| Cluster::start(network, *zone, images, folder);
        let starts = zones.iter().map(|zone| scope.spawn(move || start(zone)));
        let starts: Vec<_> = starts.collect();
        let ended = starts.into_iter().map(|start| match start.join() {
            Ok(cluster) => cluster,
            Err(_) => bail!("the start of a cluster panicked"),
        });
        ended.collect()
    })
}

impl Cluster {
    /// Starts a cluster as a host of `zone`, whose subnet is there; waits until pods can run.
    /// Its files are in `folder`.
    pub fn start(network: &Network, zone: u8, images: &Images, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let host = network.host(zone, HOST)?;
        let setup = Setup::new(folder.to_owned(), host.address, &USERS)?;
        settings::write(&setup, &host.namespace)?;
        images.copy(&folder.join("lib/containerd"))?;
        route(&host)?;
        let tree = Tree::start(&setup.programs, &host.namespace, folder)?;
        let kubectl = Kubectl::new(&setup)?;
        let processes = Vec::new();
        let mut this = Self { host, kubectl, server: None, processes, tree, setup };
        this.run()?;
        Ok(this)
    }

    fn run(&mut self) -> Result<()> {
        let setup = self.setup.clone();
        let file = |name: &str| setup.file(name).display().to_string();
        self.begin("containerd", &["--config".into(), file("containerd.toml")])?;
        self.begin("etcd", &setup.etcd())?;
        self.start_server()?;
        let controllers = [
            "--allocate-node-cidrs=true".into(),
            format!("--cluster-cidr={PODS}"),
            "--node-cidr-mask-size=24".into(),
            // Whose API server is away for a minute says nothing, and would be taken for lost then.
            "--node-monitor-grace-period=5m".into(),
        ];
        self.begin("kube-controller-manager", &[&setup.controllers()[..], &controllers].concat())?;
        let admin = format!("--kubeconfig={}", file("admin"));
        let scheduler = [admin, "--leader-elect=false".into(), "--secure-port=0".into()];
        self.begin("kube-scheduler", &scheduler)?;
        let kubelet = [
            format!("--config={}", file("kubelet.json")),
            format!("--kubeconfig={}", file("system:node:node")),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={}", self.host.address),
        ];
        self.begin("kubelet", &kubelet)?;
        self.begin("kube-proxy", &[format!("--config={}", file("kube-proxy.json"))])?;
        self.becomes_ready()
    }

    fn launch(&self, program: &str, flags: &[String]) -> Result<Process> {
        let file = self.setup.programs.of(program)?.display().to_string();
        let inside = self.tree.inside();
        let words = inside.iter().chain([&file]).chain(flags).map(String::as_str);
        let words: Vec<&str> = words.collect();
        Process::start(program, &self.setup.folder, None, &words)
    }

    fn begin(&mut self, program: &str, flags: &[String]) -> Result<()> {
        let process = self.launch(program, flags)?;
        self.processes.push(process);
        Ok(())
    }

    /// Starts the API server after it was stopped, and waits until it is ready.
    pub fn start_server(&mut self) -> Result<()> {
        let flags = [&self.setup.server()[..], &settings::server()].concat();
        let mut server = self.launch("kube-apiserver", &flags)?;
        wait::until("the API server is ready", START, || {
            server.check()?;
            self.setup.ready().with_context(|| server.tail())
        })?;
        self.server = Some(server);
        Ok(())
    }

    /// Ends the API server; what runs on the node goes on.
    pub fn stop_server(&mut self) -> Result<()> {
        self.server.take().context("it does not run")?.kill()
    }

    fn becomes_ready(&mut self) -> Result<()> {
        // Until then nothing is scheduled, or has an account.
        for (what, path) in [
            ("node/node", "{.status.conditions[?(@.type=='Ready')].status}"),
            ("serviceaccount/default", "{.metadata.uid}"),
        ] {
            wait::until(&format!("{what} is there"), START, || {
                self.check()?;
                match &*self.kubectl.run(&["get", what, "-o", &format!("jsonpath={path}")])? {
                    "" | "False" | "Unknown" => bail!("not yet\n{}", self.tails()),
                    _ => Ok(()),
                }
            })?;
        }
        self.kubectl.apply(&include_str!("dns.yaml").replace("ADDRESS", DNS))?;
        self.kubectl.rolled_out("kube-system", "deployment/coredns")
    }

    /// The administrator's kubectl, run on the node: it reaches the API server whatever is between
    /// that and the test.
    #[must_use]
    pub fn kubectl_on_node(&self) -> Kubectl {
        self.kubectl.after(&self.tree.inside())
    }

    /// What stands before a command that runs on the node.
    #[must_use]
    pub fn inside(&self) -> Vec<String> {
        self.tree.inside()
    }

    /// Ends all processes of a program at once, in pods too.
    pub fn kill(&self, program: &str) -> Result<()> {
        let kill = ["pkill", "-KILL", "--exact", program];
        let inside = self.tree.inside();
        run(&inside.iter().map(String::as_str).chain(kill).collect::<Vec<_>>()).map(drop)
    }

    /// Ends the processes of a program in one pod at once.
    pub fn kill_in(&self, program: &str, pod: &str) -> Result<()> {
        // Each container is told the name of its pod.
        let kill = format!(
            "for process in $(pgrep --exact {program}); do \
               if tr '\\0' '\\n' </proc/$process/environ | grep --quiet --line-regexp HOSTNAME={pod}; \
               then kill -KILL $process && found=1; fi; \
             done; test $found"
        );
        let inside = self.tree.inside();
        let words = inside.iter().map(String::as_str).chain(["sh", "-c", &kill]);
        run(&words.collect::<Vec<_>>()).map(drop)
    }

    /// A client in the container whose process was started with `words`; it needs no API server.
    pub fn client_beside(&self, words: &str) -> Result<Client> {
        let inside = self.tree.inside();
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        let found = run(&[&inside[..], &["pgrep", "--full", "--", words]].concat())?;
        let mut lines = found.lines();
        let (Some(pid), None) = (lines.next(), lines.next()) else {
            bail!("not one process of {words}: {found}")
        };
        let enter = ["nsenter", "-t", pid, "--net", "--mount", "--", "/usr/bin/peer"];
        Client::of(&[&inside[..], &enter].concat())
    }

    fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// The ends of all logs.
    #[must_use]
    pub fn tails(&self) -> String {
        let all = self.processes.iter().chain(&self.server);
        all.map(|it| format!("== {}\n{}\n", it.name, it.tail())).collect()
    }
}

/// Pods have addresses that nobody else knows: what they send to others has that of the host.
fn route(host: &Host) -> Result<()> {
    let rules = format!(
        "table ip pods {{
           chain out {{
             type nat hook postrouting priority srcnat
             ip saddr {PODS} oifname eth0 masquerade
           }}
         }}"
    );
    host.run(&["nft", &rules])?;
    host.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]).map(drop)
}
