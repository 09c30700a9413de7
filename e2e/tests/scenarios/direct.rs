//! Applications that call the machines of a service at their own addresses, as clients of databases
//! and brokers do that learn these from whom they call first.

use super::{Scenario, permissions::allow, workloads::reached};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    lab::{Inbound, Lab, MachinePlan, PORT, Proxy},
    peer::Ask,
    process::Process,
    wait,
};
use serde_json::Value;

pub(crate) const ALL: &[Scenario] = &[(
    "machines_that_are_called_at_their_own_addresses_are_called_in_the_mesh",
    machines_that_are_called_at_their_own_addresses_are_called_in_the_mesh,
)];

const DATABASE: u16 = 5432;
const INBOUNDS: &[Inbound] =
    &[Inbound { protocol: "http", port: PORT }, Inbound { protocol: "tcp", port: DATABASE }];
const PAST: &str = "cluster.self_transparentproxy_passthrough_outbound_ipv4.upstream_cx_total";

/// A replica of the service.
struct Server {
    proxy: Proxy,
    name: String,
    _applications: [Process; 2],
}

impl Server {
    fn start(lab: &mut Lab, number: u8) -> Result<Self> {
        let proxy =
            lab.machine(&MachinePlan { number, ..MachinePlan::new("west", "cart", INBOUNDS) })?;
        let applications = [proxy.application("http", PORT)?, proxy.application("tcp", DATABASE)?];
        Ok(Self { proxy, name: format!("cart-{number}"), _applications: applications })
    }

    fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.proxy.host.address)
    }

    fn url(&self) -> String {
        format!("http://{}/", self.at(PORT))
    }
}

/// What an unmodified curl on the machine is answered: the status, 000 if there is no answer of HTTP.
fn status(machine: &Proxy, url: &str) -> Result<String> {
    let script = format!("curl -s -o /dev/null -m 5 -w '%{{http_code}}' {url} || true");
    machine.run(&["sh", "-c", &script])
}

/// What who is called says first.
fn greeting(machine: &Proxy, to: &str) -> Result<String> {
    let mut client = machine.caller()?;
    client.connect(to)?;
    let told = client.ask(&Ask::Read)?;
    if told.error.is_empty() { Ok(told.body) } else { bail!("{}", told.error) }
}

/// Whether a machine has listeners for the server's ports.
fn knows(machine: &Proxy, server: &Server) -> Result<bool> {
    let listeners = machine.admin("/listeners")?;
    let known = |port: &u16| listeners.contains(&format!("direct_access_{}::", server.at(*port)));
    let known = [PORT, DATABASE].iter().filter(|port| known(port)).count();
    match known {
        0 => Ok(false),
        2 => Ok(true),
        _ => bail!("one of two ports: {listeners}"),
    }
}

/// The server is the one that was chosen, it is told who calls, and permissions say who may.
fn called(server: &Server, web: &Proxy, stranger: &Proxy) -> Result<()> {
    let (name, url) = (&*server.name, server.url());
    // What is opened before goes past the mesh.
    for machine in [web, stranger] {
        wait::until(&format!("{name} is known"), PATIENCE, || match knows(machine, server)? {
            true => Ok(()),
            false => bail!("it is not"),
        })?;
    }
    let body = reached(web, &url, name)?;
    let seen = body.pointer("/headers/x-forwarded-client-cert").and_then(Value::as_str);
    if !seen.is_some_and(|it| it.contains("URI=spiffe://default.west.mesh.local/workload/web")) {
        bail!("the application was not told who calls: {body}");
    }
    let database = server.at(DATABASE);
    wait::until(&format!("{name} greets"), PATIENCE, || {
        let told = greeting(web, &database)?;
        if told == format!("hello from {name}\n") { Ok(()) } else { bail!("{told}") }
    })?;
    wait::until(&format!("{name} refuses a stranger"), PATIENCE, || {
        match &*status(stranger, &url)? {
            "403" => Ok(()),
            other => bail!("{other}"),
        }
    })?;
    match greeting(stranger, &database) {
        Err(_) => Ok(()),
        Ok(told) => bail!("a stranger was told {told:?}"),
    }
}

/// HTTP and bytes; to replicas that were there first, come later and go. Who does not say that it
/// calls them so does it in clear, past its sidecar's mesh, and is refused by theirs.
fn machines_that_are_called_at_their_own_addresses_are_called_in_the_mesh() -> Result<()> {
    let mut lab = Lab::start(&["west"])?;
    let workload = |name: &str| format!("spiffe://default.west.mesh.local/workload/{name}");
    allow(&lab, "cart", &[&workload("web"), &workload("plain")])?;
    let first = Server::start(&mut lab, 1)?;
    let directly = |name| MachinePlan { direct: &["cart"], ..MachinePlan::new("west", name, &[]) };
    let web = lab.machine(&directly("web"))?;
    let stranger = lab.machine(&directly("stranger"))?;
    let plain = lab.machine(&MachinePlan::new("west", "plain", &[]))?;
    called(&first, &web, &stranger)?;
    let mut second = Server::start(&mut lab, 2)?;
    called(&second, &web, &stranger)?;
    called(&first, &web, &stranger)?;
    for machine in [&web, &stranger] {
        if machine.stat(PAST)? != 0 {
            bail!("{} was called in clear", first.name);
        }
    }

    // It may call the service by its name, and both its replicas.
    let by_name = format!("http://cart.svc.west.mesh.local:{PORT}/");
    wait::until("it may call", PATIENCE, || match &*status(&plain, &by_name)? {
        "200" => Ok(()),
        other => bail!("{other}"),
    })?;
    for server in [&first, &second] {
        let before = plain.stat(PAST)?;
        match &*status(&plain, &server.url())? {
            "000" => {}
            other => bail!("{} answered a call in clear: {other}", server.name),
        }
        if greeting(&plain, &server.at(DATABASE)).is_ok() {
            bail!("{} greeted who called in clear", server.name);
        }
        if plain.stat(PAST)? < before + 2 {
            bail!("it did not go past the mesh");
        }
    }

    second.proxy.stop().context("stop")?;
    wait::until("the listeners of who left are gone", PATIENCE, || match knows(&web, &second)? {
        true => bail!("still there"),
        false => Ok(()),
    })?;
    called(&first, &web, &stranger)
}
