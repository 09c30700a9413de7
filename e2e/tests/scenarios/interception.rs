//! The rules that hand connections to a sidecar, on the kernel of this machine.

use super::{Scenario, calls::still};
use anyhow::{Context as _, Result, bail};
use e2e::{
    PATIENCE,
    namespace::{Host, Network},
    peer::Client,
    process::{Process, programs, run},
    wait,
};
use serde_json::Value;
use std::path::Path;

pub(crate) const ALL: &[Scenario] = &[(
    "what_a_machine_opens_and_what_comes_to_it_is_handed_to_its_sidecar",
    what_a_machine_opens_and_what_comes_to_it_is_handed_to_its_sidecar,
)];

/// The users of the application, of the sidecar, and of a program that is left alone.
pub(crate) const APPLICATION: u32 = 61_001;
pub(crate) const PROXY: u32 = 61_002;
const LEFT_ALONE: u32 = 61_003;

/// A machine with a workload, and another one outside of the mesh.
struct Scene {
    _network: Network,
    machine: Host,
    outside: Host,
    v6: [String; 2],
    _peers: Vec<Process>,
}

/// Starts a program of `peer` on `host`.
fn peer(folder: &Path, host: &Host, words: &[&str]) -> Result<Process> {
    let peer = programs()?.join("peer").display().to_string();
    let command = [&[&*peer], words].concat();
    Process::start(
        &words.join("-").replace(['/', ':', '[', ']'], "_"),
        folder,
        Some(&host.namespace),
        &command,
    )
}

impl Scene {
    fn start(folder: &Path) -> Result<Self> {
        let network = Network::new()?;
        network.subnet(1)?;
        let (machine, outside) = (network.host(1, 10)?, network.host(1, 11)?);
        let v6 = ["fd00:a7::10", "fd00:a7::11"].map(str::to_owned);
        for (host, address) in [&machine, &outside].into_iter().zip(&v6) {
            let address = format!("{address}/64");
            let command = ["ip", "-n", &host.namespace, "-6", "address", "add", &address];
            run(&[&command[..], &["dev", "eth0", "nodad"]].concat())?;
            host.resolve_at(outside.address)?;
        }
        let answer = outside.address.to_string();
        let mut peers = Vec::new();
        for words in [
            ["http", "[::]:15001", "outbound"],
            ["http", "[::]:15006", "inbound"],
            ["http", "[::]:15053", "names"],
            ["names", "127.0.0.1:15053", &answer],
            ["http", "[::]:8080", "application"],
            ["http", "[::]:9000", "direct"],
        ] {
            peers.push(peer(folder, &machine, &words)?);
        }
        for words in [["http", "[::]:80", "outside"], ["http", "[::]:8443", "outside"]] {
            peers.push(peer(folder, &outside, &words)?);
        }
        let scene = Self { _network: network, machine, outside, v6, _peers: peers };
        for to in [scene.at("80"), scene.at("8443")] {
            scene.expect(APPLICATION, &to, "outside")?;
        }
        for (port, name) in [("8080", "application"), ("9000", "direct"), ("15006", "inbound")] {
            scene.expect_outside(&format!("{}:{port}", scene.machine.address), name)?;
        }
        Ok(scene)
    }

    /// A port of the machine outside.
    fn at(&self, port: &str) -> String {
        format!("{}:{port}", self.outside.address)
    }

    fn atoll(&self, words: &[&str]) -> Result<String> {
        let atoll = programs()?.join("atoll").display().to_string();
        let namespace = &*self.machine.namespace;
        run(&[&["ip", "netns", "exec", namespace, &atoll], words].concat())
    }

    fn rules(&self) -> Result<String> {
        run(&["ip", "netns", "exec", &self.machine.namespace, "nft", "list", "ruleset"])
    }

    /// Who answers a program of `user` that calls `to` from the machine is called `name`.
    fn expect(&self, user: u32, to: &str, name: &str) -> Result<()> {
        let client = Client::start_as(&self.machine.namespace, user)?;
        expect(client, to, name).with_context(|| format!("user {user}"))
    }

    /// The same for one that calls from outside.
    fn expect_outside(&self, to: &str, name: &str) -> Result<()> {
        expect(Client::start(Some(&self.outside.namespace))?, to, name).context("from outside")
    }
}

fn expect(mut client: Client, to: &str, name: &str) -> Result<()> {
    wait::until(&format!("{to} is answered by {name}"), PATIENCE, || {
        client.connect(to)?;
        let told = still(&mut client, 200)?;
        let body: Value = serde_json::from_str(&told.body)?;
        if body.get("name") == Some(&name.into()) { Ok(()) } else { bail!("{}", told.body) }
    })
}

/// Both address families, names over UDP and TCP, all that is excluded, and nothing of it any more
/// when it is taken away. What was open stays open.
fn what_a_machine_opens_and_what_comes_to_it_is_handed_to_its_sidecar() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scene = Scene::start(folder.path())?;
    let host = &*scene.machine.namespace;
    let mut open = Client::start_as(host, APPLICATION)?;
    open.connect(&scene.at("80"))?;
    still(&mut open, 200)?;

    let (proxy, left_alone) = (PROXY.to_string(), LEFT_ALONE.to_string());
    let install = [
        &["install", "transparent-proxy", "--proxy-user", &proxy][..],
        &["--exclude-outbound-ports", "8443", "--exclude-inbound-ports", "22,8999-9001"],
        &["--exclude-outbound-uids", &left_alone],
    ]
    .concat();
    let printed = scene.atoll(&[&install[..], &["--dry-run"]].concat())?;
    if !scene.rules()?.is_empty() || !printed.contains("chain leaving") {
        bail!("a dry run made rules, or printed none: {printed}");
    }
    scene.atoll(&install)?;
    let rules = scene.rules()?;
    scene.atoll(&install)?;
    if scene.rules()? != rules {
        bail!("to install twice changed the rules: {rules} became {}", scene.rules()?);
    }

    let [own, other] = &scene.v6;
    // What leaves.
    scene.expect(APPLICATION, &scene.at("80"), "outbound")?;
    scene.expect(APPLICATION, "241.0.0.9:80", "outbound")?;
    scene.expect(APPLICATION, &format!("[{other}]:80"), "outbound")?;
    scene.expect(APPLICATION, &scene.at("8443"), "outside")?;
    scene.expect(LEFT_ALONE, &scene.at("80"), "outside")?;
    scene.expect(PROXY, &scene.at("80"), "outside")?;
    scene.expect(PROXY, &format!("[{other}]:80"), "outside")?;
    scene.expect(APPLICATION, "127.0.0.1:8080", "application")?;
    // Questions for names: the machine outside, which is asked, answers none.
    scene.expect(APPLICATION, "cart.svc.east.mesh.local:80", "outbound")?;
    scene.expect(APPLICATION, &scene.at("53"), "names")?;
    // What arrives.
    let own_v4 = scene.machine.address;
    scene.expect_outside(&format!("{own_v4}:8080"), "inbound")?;
    scene.expect_outside(&format!("[{own}]:8080"), "inbound")?;
    scene.expect_outside(&format!("{own_v4}:9000"), "direct")?;
    // A service of the mesh on this machine, called through the sidecar; and the last step to the
    // application, which Envoy takes from an address of its own.
    scene.expect(PROXY, &format!("{own_v4}:8080"), "inbound")?;
    scene.expect(PROXY, &format!("[{own}]:8080"), "inbound")?;
    let to = format!("http://{own_v4}:8080/");
    let told = run(&["ip", "netns", "exec", host, "curl", "-s", "--interface", "127.0.0.6", &to])?;
    if !told.contains("application") {
        bail!("the last step to the application: {told}");
    }
    // Nobody calls Envoy's own ports.
    let mut stranger = Client::start(Some(&scene.outside.namespace))?;
    if stranger.connect(&format!("{own_v4}:15006")).is_ok() {
        bail!("the port for what was redirected can be called");
    }
    still(&mut open, 200).context("a connection of before")?;

    scene.atoll(&["uninstall", "transparent-proxy"])?;
    if !scene.rules()?.is_empty() {
        bail!("rules are left: {}", scene.rules()?);
    }
    scene.atoll(&["uninstall", "transparent-proxy"]).context("nothing is there")?;
    scene.expect(APPLICATION, &scene.at("80"), "outside")?;
    scene.expect_outside(&format!("{own_v4}:8080"), "application")?;
    refused(&scene)
}

/// Mistakes change nothing and say what is wrong.
fn refused(scene: &Scene) -> Result<()> {
    for (words, why) in [
        (&["--proxy-user", "nobody-of-this-name"][..], "--proxy-user: there is no user"),
        (&["--proxy-user", "root"], "--proxy-user: must not be root"),
        (&["--exclude-outbound-ips", "cart"], "\"cart\" is no address"),
        (&["--exclude-inbound-ports", "90-80"], "\"90-80\" ends before it begins"),
    ] {
        let command = [&["install", "transparent-proxy"][..], words].concat();
        match scene.atoll(&command) {
            Err(error) if format!("{error:#}").contains(why) => {}
            other => bail!("{words:?}: {other:?}, must say {why:?}"),
        }
    }
    if scene.rules()?.is_empty() { Ok(()) } else { bail!("a refused command made rules") }
}
