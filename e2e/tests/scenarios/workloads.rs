//! Applications that know of no mesh, each on a machine of its own that hands every connection to a
//! sidecar.

use super::{Scenario, names::open};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    lab::{INGRESS, Inbound, Lab, MachinePlan, PORT, Proxy, SIDECAR},
    peer::{Ask, Client},
    process::{Process, programs, run},
    wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{fs, net::Ipv6Addr, path::PathBuf, time::Duration};

pub(crate) const ALL: &[Scenario] = &[
    (
        "an_application_calls_another_zone_by_name_whatever_it_speaks",
        an_application_calls_another_zone_by_name_whatever_it_speaks,
    ),
    (
        "a_gigabyte_crosses_zones_and_envoys_keep_little_of_it",
        a_gigabyte_crosses_zones_and_envoys_keep_little_of_it,
    ),
    (
        "names_of_all_sorts_are_answered_beside_an_application_that_asks_anybody",
        names_of_all_sorts_are_answered_beside_an_application_that_asks_anybody,
    ),
];

/// What needs PostgreSQL too.
pub(crate) const POSTGRESQL: &[Scenario] = &[(
    "a_session_of_postgresql_and_halves_of_connections_cross_zones",
    a_session_of_postgresql_and_halves_of_connections_cross_zones,
)];

const GIGABYTE: u64 = 1 << 30;

/// How much an Envoy may grow by what passes through it, in KiB.
const KEPT: u64 = 64 * 1024;

/// A caller in west, a server in east, and everybody may call everybody.
struct Scene {
    lab: Lab,
    ingress: Proxy,
    server: Proxy,
    caller: Proxy,
}

impl Scene {
    fn start(inbounds: &'static [Inbound]) -> Result<Self> {
        let mut lab = Lab::start(&["west", "east"])?;
        open(&lab, "default")?;
        let ingress = lab.ingress("east", "ingress-1")?;
        let server = lab.machine(&MachinePlan::new("east", "cart", inbounds))?;
        let caller = lab.machine(&MachinePlan::new("west", "web", &[]))?;
        Ok(Self { lab, ingress, server, caller })
    }

    /// Waits until a call by name is answered by the server.
    fn reached(&self, url: &str) -> Result<Value> {
        reached(&self.caller, url, "cart-1")
    }

    /// Opens a connection by name as soon as the server greets or takes it.
    fn connected(&self, to: &str) -> Result<Client> {
        let mut client = self.caller.caller()?;
        wait::until(&format!("{to} is there"), PATIENCE, || client.connect(to))?;
        Ok(client)
    }
}

/// Waits until who answers at `url`, as an unmodified curl on the machine asks for it, is `name`.
pub(crate) fn reached(machine: &Proxy, url: &str, name: &str) -> Result<Value> {
    wait::until(&format!("{name} answers at {url}"), PATIENCE, || answer(machine, url, name))
}

/// The same at once.
fn answer(machine: &Proxy, url: &str, name: &str) -> Result<Value> {
    let text = machine.run(&["curl", "-sS", "--fail-with-body", "--max-time", "5", url])?;
    let body: Value = serde_json::from_str(&text).context(text)?;
    if body.get("name") == Some(&name.into()) { Ok(body) } else { bail!("{url}: {body}") }
}

/// HTTP at the port of a service that was written by hand, old HTTP, WebSockets and gRPC.
fn an_application_calls_another_zone_by_name_whatever_it_speaks() -> Result<()> {
    const INBOUNDS: &[Inbound] =
        &[Inbound { protocol: "http", port: PORT }, Inbound { protocol: "grpc", port: 9090 }];
    let mut scene = Scene::start(INBOUNDS)?;
    let _web = scene.server.application("http", PORT)?;
    let _grpc = scene.server.application("grpc", 9090)?;
    let service = json!({
        "type": "MeshService", "mesh": "default", "name": "cart",
        "spec": {
            "selector": { "dataplaneLabels": { "matchLabels": { "kuma.io/workload": "cart" } } },
            "ports": [
                { "name": "http", "port": 80, "targetPort": "http-8080", "appProtocol": "http" },
                { "name": "grpc", "port": 9090, "targetPort": "grpc-9090", "appProtocol": "grpc" },
            ],
        },
    });
    scene.lab.zone("east")?.put("/meshes/default/meshservices/cart", &service)?;

    let body = scene.reached("http://cart.svc.east.mesh.local/")?;
    let seen = body.pointer("/headers/x-forwarded-client-cert").and_then(Value::as_str);
    if !seen.is_some_and(|it| it.contains("URI=spiffe://default.west.mesh.local/workload/web")) {
        bail!("the application was not told who calls: {body}");
    }
    old_http(&scene.caller).context("HTTP/1.0")?;

    let words = || ["one".to_owned(), "two".to_owned()].to_vec();
    let mut client = scene.caller.caller()?;
    let to = "cart.svc.east.mesh.local:80".to_owned();
    let told = client.must(&Ask::Chat { to, words: words() }).context("WebSocket")?;
    if (told.status, &*told.body) != (Some(101), "cart-1: one\ncart-1: two\n") {
        bail!("WebSocket: {told:?}");
    }
    let to = "cart.svc.east.mesh.local:9090".to_owned();
    let words = [words(), vec!["enough".to_owned()]].concat();
    let told = client.must(&Ask::Talk { to, words }).context("gRPC")?;
    if told.body != "cart-1: one\ncart-1: two\nOutOfRange: enough\n" {
        bail!("gRPC: {told:?}");
    }
    apart(&mut scene)?;
    users(&scene.caller)
}

/// Two requests on one connection, which the old protocol keeps only if it is asked to.
fn old_http(machine: &Proxy) -> Result<()> {
    const URL: &str = "http://cart.svc.east.mesh.local/";
    let ask = ["-o", "/dev/null", URL];
    let how = ["--http1.0", "-H", "Connection: keep-alive", "-sS", "--max-time", "5", "-w"];
    let what = "%{http_version} %{http_code} %{num_connects}\n";
    let told = machine.run(&[&["curl"], &how[..], &[what], &ask, &ask].concat())?;
    // So curl writes 1.0.
    if told == "1 200 1\n1 200 0\n" { Ok(()) } else { bail!("{told}") }
}

/// From the other zone nothing but the ingress is reached, and on the server's subnet nobody reaches
/// an application but through its sidecar, which wants to know who it is.
fn apart(scene: &mut Scene) -> Result<()> {
    let plane = scene.lab.zone("east")?.address;
    let (server, ingress) = (scene.server.host.address, scene.ingress.host.address);
    let mut foreign = Client::start(Some(&scene.lab.host("west")?.namespace))?;
    foreign.connect(&format!("{ingress}:{INGRESS}")).context("the ingress")?;
    for to in [
        format!("{server}:{PORT}"),
        format!("{server}:9902"),
        format!("{ingress}:9902"),
        format!("{plane}:5678"),
        format!("{}:5685", scene.lab.global.address),
    ] {
        if foreign.connect(&to).is_ok() {
            bail!("{to} is reached from the other zone");
        }
    }
    let mut stranger = Client::start(Some(&scene.lab.host("east")?.namespace))?;
    stranger.connect(&format!("{server}:{PORT}")).context("a neighbour")?;
    if let Ok(told) = stranger.get("/") {
        bail!("a stranger was answered: {told:?}");
    }
    Ok(())
}

/// Sidecar and Envoy are neither root nor the application, and a sidecar that would be root does not
/// start: nothing that it opened would get out.
fn users(machine: &Proxy) -> Result<()> {
    let sidecar = machine.process.as_ref().context("it runs")?.pid();
    for pid in [sidecar, machine.envoy()?] {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let mut users = users.context("its user")?.split_whitespace();
        if !users.all(|user| user == SIDECAR.to_string()) {
            bail!("{status}");
        }
    }
    let program = programs()?.join("sidecar").display().to_string();
    let settings = machine.folder().join("settings.json").display().to_string();
    match machine.host.run(&[&program, "--config", &settings]) {
        Err(error) if format!("{error:#}").contains("must run as a user of its own") => Ok(()),
        other => bail!("a sidecar as root: {other:?}"),
    }
}

/// A service that was made of its workload has the port of the inbound.
fn a_session_of_postgresql_and_halves_of_connections_cross_zones() -> Result<()> {
    const INBOUNDS: &[Inbound] = &[
        Inbound { protocol: "tcp", port: 5432 },
        Inbound { protocol: "tcp", port: 7001 },
        Inbound { protocol: "tcp", port: 7002 },
    ];
    let scene = Scene::start(INBOUNDS)?;
    let _counter = scene.server.application("count", 7001)?;
    let speaker = scene.server.application("last", 7002)?;
    let _database = database(&scene)?;

    let name = "cart.svc.east.mesh.local";
    let session = [
        "create table t as select i, md5(i::text) m from generate_series(1, 20000) i",
        "begin",
        "delete from t",
        "rollback",
        "select count(*), bool_and(m = md5(i::text)), inet_client_addr() from t",
    ];
    let psql =
        ["psql", "-h", name, "-U", "app", "-d", "postgres", "-XqAt", "-v", "ON_ERROR_STOP=1"];
    wait::until("the database answers", PATIENCE, || {
        scene.caller.run(&[&psql[..], &["-c", "select 1"]].concat())
    })?;
    let session: Vec<&str> = session.iter().flat_map(|query| ["-c", query]).collect();
    let told = scene.caller.run(&[&psql[..], &session].concat())?;
    if told != "20000|t|127.0.0.6\n" {
        bail!("{told}");
    }

    // The server has the last word, after the client's half has ended; and the other way round.
    let told = scene.connected(&format!("{name}:7001"))?.must(&Ask::Pour { bytes: 70_000 })?;
    if told.body != "cart-1 got 70000\n" {
        bail!("{told:?}");
    }
    let told = scene.connected(&format!("{name}:7002"))?.must(&Ask::Pour { bytes: 70_000 })?;
    if told.body != "the last word of cart-1\n" {
        bail!("{told:?}");
    }
    wait::until("the server got the other half", PATIENCE, || {
        if speaker.said("got 70000") { Ok(()) } else { bail!("{}", speaker.tail()) }
    })
}

/// Where Debian has the programs of the server.
fn postgresql() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    folders.filter(|folder| folder.join("initdb").is_file()).max()
}

/// Why there can be no PostgreSQL here; `None` if it can.
pub(crate) fn missing() -> Option<String> {
    let client = run(&["psql", "--version"]).is_ok();
    let server = postgresql().is_some() && run(&["id", "-u", "postgres"]).is_ok();
    (!client || !server).then(|| "PostgreSQL is not installed".to_owned())
}

/// Starts a database of the server's machine as its own user, who lets in only what comes through the
/// sidecar.
fn database(scene: &Scene) -> Result<Process> {
    let bin = postgresql().context("PostgreSQL")?;
    let program = |name: &str| bin.join(name).display().to_string();
    let user = run(&["id", "-u", "postgres"])?.trim().parse()?;
    let folder = scene.server.folder().join("database");
    fs::create_dir_all(&folder)?;
    scene.lab.own(&folder, user)?;
    let data = folder.display().to_string();
    let how = ["--username=app", "--no-sync", "--locale=C", "--auth=reject"];
    scene.server.run_as(user, &[&[&*program("initdb"), "-D", &data], &how[..]].concat())?;
    fs::write(folder.join("pg_hba.conf"), "host all app 127.0.0.6/32 trust\n")?;
    let server = program("postgres");
    let command =
        [&*server, "-D", &data, "-c", "listen_addresses=*", "-c", "unix_socket_directories="];
    scene.server.start_as(user, "database", &command)
}

/// To a server that does not read, and from one that sends as fast as it can.
fn a_gigabyte_crosses_zones_and_envoys_keep_little_of_it() -> Result<()> {
    const INBOUNDS: &[Inbound] =
        &[Inbound { protocol: "http", port: PORT }, Inbound { protocol: "tcp", port: 7001 }];
    let scene = Scene::start(INBOUNDS)?;
    let _web = scene.server.application("http", PORT)?;
    let counter = scene.server.application("count", 7001)?;
    // Else a request may take 15 s, and a busy machine takes longer.
    let timeout = json!({
        "type": "MeshTimeout", "mesh": "default", "name": "patient",
        "spec": {
            "targetRef": { "kind": "Mesh" },
            "to": [{
                "targetRef": { "kind": "Mesh" },
                "default": { "http": { "requestTimeout": "0s" } },
            }],
        },
    });
    scene.lab.global.put("/meshes/default/meshtimeouts/patient", &timeout)?;
    let url = format!("http://cart.svc.east.mesh.local:{PORT}/");
    scene.reached(&url)?;
    let memory = Memory::of(&[&scene.caller, &scene.ingress, &scene.server])?;

    let mut client = scene.connected("cart.svc.east.mesh.local:7001")?;
    counter.signal(Signal::STOP);
    let poured = std::thread::spawn(move || client.must(&Ask::Pour { bytes: GIGABYTE }));
    let kept = wait::throughout("Envoys keep little", Duration::from_secs(1), || memory.check());
    counter.signal(Signal::CONT);
    let Ok(told) = poured.join() else { bail!("the client panicked") };
    kept?;
    let told = told?;
    if told.body != format!("cart-1 got {GIGABYTE}\n") {
        bail!("{told:?}");
    }
    let url = format!("{url}zeros/{GIGABYTE}");
    let what = "%{http_code} %{size_download}";
    let told = scene.caller.run(&["curl", "-sS", "-o", "/dev/null", "-w", what, &url])?;
    if told != format!("200 {GIGABYTE}") {
        bail!("{told}");
    }
    memory.check()
}

/// What some Envoys had.
struct Memory(Vec<(u32, u64)>);

impl Memory {
    fn of(proxies: &[&Proxy]) -> Result<Self> {
        let of = |proxy: &&Proxy| {
            let pid = proxy.envoy()?;
            Ok((pid, memory(pid, "VmRSS:")?))
        };
        proxies.iter().map(of).collect::<Result<_>>().map(Self)
    }

    /// Fails if one of them ever had much more.
    fn check(&self) -> Result<()> {
        for &(pid, before) in &self.0 {
            let most = memory(pid, "VmHWM:")?;
            if most > before + KEPT {
                bail!("the Envoy {pid} had {before} KiB and grew to {most}");
            }
        }
        Ok(())
    }
}

/// A line of what the kernel says of a process's memory, in KiB.
fn memory(pid: u32, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|it| it.strip_prefix(line)).context(line.to_owned())?;
    Ok(found.trim().trim_end_matches(" kB").parse()?)
}

/// By UDP and TCP, IPv4 and IPv6: those of the mesh, also while its control plane is away, and others
/// from the only server of two that is there. What was answered once is answered without it.
fn names_of_all_sorts_are_answered_beside_an_application_that_asks_anybody() -> Result<()> {
    const INBOUNDS: &[Inbound] = &[Inbound { protocol: "http", port: PORT }];
    let mut lab = Lab::start(&["west"])?;
    open(&lab, "default")?;
    let outside = lab.host("west")?;
    let folder = tempfile::tempdir()?;
    let (mut nameserver, _server) = outside.serve_outside(folder.path())?;
    let [a, b, c, _] = outside.address.octets();
    let dead = format!("{a}.{b}.{c}.250");
    let plan = MachinePlan { ipv6: false, ..MachinePlan::new("west", "cart", INBOUNDS) };
    let cart = lab.machine(&plan)?;
    if !cart.process.as_ref().is_some_and(|it| it.said("this machine has no IPv6")) {
        bail!("a machine without IPv6: {}", cart.log());
    }
    let _application = cart.application("http", PORT)?;
    let upstreams = vec![dead, outside.address.to_string()];
    let web = lab.machine(&MachinePlan { upstreams, ..MachinePlan::new("west", "web", &[]) })?;

    let mesh = format!("http://cart.svc.west.mesh.local:{PORT}/");
    let other = |name: &str| format!("http://{name}.example:{PORT}/");
    reached(&web, &mesh, "cart-1")?;
    reached(&cart, &mesh, "cart-1")?;
    answer(&web, &other("one"), "outside")?;
    web.host.resolve_by_tcp(outside.address)?;
    answer(&web, &mesh, "cart-1").context("by TCP")?;
    answer(&web, &other("two"), "outside").context("by TCP")?;
    web.host.resolve_at(Ipv6Addr::LOCALHOST)?;
    answer(&web, &mesh, "cart-1").context("by IPv6")?;

    lab.zone("west")?.stop()?;
    answer(&web, &mesh, "cart-1").context("its control plane is away")?;
    answer(&web, &other("three"), "outside").context("its control plane is away")?;
    web.host.resolve_by_tcp(Ipv6Addr::LOCALHOST)?;
    answer(&web, &mesh, "cart-1").context("by TCP and IPv6")?;
    let absent = format!("http://nobody.svc.west.mesh.local:{PORT}/");
    unresolved(&web, &absent)?;
    nameserver.signal(Signal::KILL);
    nameserver.ended(PATIENCE)?;
    answer(&web, &other("three"), "outside").context("its nameservers are away")?;
    unresolved(&web, &other("four"))
}

/// Fails unless curl has no address to call.
fn unresolved(machine: &Proxy, url: &str) -> Result<()> {
    match machine.run(&["curl", "-sS", "--max-time", "10", url]) {
        Err(error) if format!("{error:#}").contains("Could not resolve host") => Ok(()),
        other => bail!("{url}: {other:?}"),
    }
}
