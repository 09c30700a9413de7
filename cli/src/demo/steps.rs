//! The steps, in plain language.

use super::{
    ZONES,
    apps::{self, Answer, Call},
    files::{GLOBAL, Places, Workload, Zone, ingress_readiness, permission},
    names,
    processes::Processes,
};
use crate::{client::Client, connection::Target, inspect, output::Output};
use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{fs, net::SocketAddr, time::Duration};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What west calls.
const CART: &str = "cart.svc.east.mesh.local";
const PORT: u16 = 8080;
/// Its cluster in the Envoy of who calls it.
const CLUSTER: &str = "kri_msvc_default_east__cart_http";
const WEB: &str = "spiffe://default.west.mesh.local/workload/web";

/// Shows one step after the other.
pub(crate) struct Steps<'a, 'o> {
    places: &'a Places,
    processes: &'a mut Processes,
    out: &'a mut Output<'o>,
    number: usize,
    apps: JoinSet<Result<()>>,
}

impl<'a, 'o> Steps<'a, 'o> {
    pub(crate) fn new(
        places: &'a Places,
        processes: &'a mut Processes,
        out: &'a mut Output<'o>,
    ) -> Self {
        Self { places, processes, out, number: 0, apps: JoinSet::new() }
    }

    fn step(&mut self, title: &str) -> Result<()> {
        self.number += 1;
        self.out.line(format!("{}. {title}", self.number))
    }

    fn say(&mut self, text: impl std::fmt::Display) -> Result<()> {
        self.out.line(format!("   {text}"))
    }

    fn client(&self) -> Result<Client> {
        let file = self.places.data("global").join("admin-token");
        let token = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Client::of(Target { address: GLOBAL.into(), ca: None, tokens: vec![token.trim().into()] })
    }

    /// Looks until `look` finds what it looks for, as long as every process runs. Returns how long
    /// that took.
    async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<T>,
    ) -> Result<(T, Duration)> {
        let start = Instant::now();
        let mut ticks = interval(Duration::from_millis(5));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match look().await {
                Ok(found) => return Ok((found, start.elapsed())),
                Err(error) if start.elapsed() > PATIENCE => {
                    return Err(error).with_context(|| format!("{what} within {PATIENCE:?}"));
                }
                Err(_) => self.processes.check()?,
            }
        }
    }

    async fn ready(&mut self, name: &str, address: &str) -> Result<Duration> {
        let target = Target { address: format!("http://{address}"), ca: None, tokens: vec![] };
        let client = Client::of(target)?;
        let look = async || client.request(Method::GET, "/ready", None).await.map(drop);
        Ok(self.until(name, look).await?.1)
    }

    /// Waits until global shows both zones online.
    async fn zones_online(&mut self) -> Result<Duration> {
        let client = self.client()?;
        let look = async || {
            let overviews = client.list("/zones/_overview").await?;
            let online = overviews.iter().filter(|it| is_online(it)).count();
            if online == ZONES.len() { Ok(()) } else { bail!("{online} of {} online", ZONES.len()) }
        };
        Ok(self.until("zones online", look).await?.1)
    }

    /// Global and two zones.
    pub(crate) async fn start_control_planes(&mut self) -> Result<()> {
        self.step("Global and two zones, west and east, each a process of its own")?;
        // Another one would answer in place of ours.
        let free = TcpListener::bind("127.0.0.1:5680").await;
        drop(free.context("127.0.0.1:5680 is taken; does another control plane run?")?);
        self.processes.start("global-cp", "global", &self.places.global())?;
        let took = self.ready("global", "127.0.0.1:5680").await?;
        self.say(format!("global is ready after {took:.0?}; its API is {GLOBAL}"))?;
        let client = self.client()?;
        for zone in ZONES {
            let body = json!({ "zone": zone.name, "scope": ["cp"], "validFor": "24h" });
            let (_, token) = client.request(Method::POST, "/tokens/zone", Some(&body)).await?;
            fs::write(self.places.file(&format!("{}.token", zone.name)), token)?;
            let name = format!("zone-{}", zone.name);
            self.processes.start("zone-cp", &name, &self.places.zone(zone))?;
        }
        let took = self.zones_online().await?;
        self.say(format!("both zones showed their tokens and are online after {took:.0?}"))?;
        for zone in ZONES {
            self.ready(zone.name, &format!("{}:5680", zone.control_plane())).await?;
        }
        Ok(())
    }

    /// Two applications with sidecars, and an ingress in each zone.
    pub(crate) async fn start_proxies(&mut self) -> Result<()> {
        self.step("An application with its sidecar in each zone, and an ingress in each zone")?;
        let client = self.client()?;
        let workloads = [Workload::WEB, Workload::CART];
        for workload in workloads {
            let listener = TcpListener::bind(workload.application()).await;
            let listener = listener.with_context(|| workload.application())?;
            self.apps.spawn(apps::serve(workload.name, listener));
            self.token(&client, workload.name, workload.name, "").await?;
            self.processes.start("sidecar", workload.name, &self.places.sidecar(workload))?;
        }
        for zone in ZONES {
            let name = format!("ingress-{}", zone.name);
            self.token(&client, &name, "ingress", "ingress").await?;
            self.processes.start("zone-ingress", &name, &self.places.ingress(zone))?;
        }
        let start = Instant::now();
        for workload in workloads {
            self.ready(workload.name, &workload.readiness()).await?;
        }
        for zone in ZONES {
            self.ready("ingress", &ingress_readiness(zone)).await?;
        }
        self.say(format!("four Envoys have their configuration after {:.1?}", start.elapsed()))
    }

    async fn token(&self, client: &Client, file: &str, workload: &str, kind: &str) -> Result<()> {
        let body = json!({
            "mesh": "default", "name": "", "tags": {}, "type": kind, "workload": workload,
            "validFor": "24h",
        });
        let (_, token) = client.request(Method::POST, "/tokens/dataplane", Some(&body)).await?;
        Ok(fs::write(self.places.file(&format!("{file}.token")), token)?)
    }

    async fn rule(&self, client: &Client, verdict: &str) -> Result<()> {
        let path = "/meshes/default/meshtrafficpermissions/cart-callers";
        client.request(Method::PUT, path, Some(&permission(WEB, verdict))).await?;
        Ok(())
    }

    /// West calls a service of east by its name.
    pub(crate) async fn call_across(&mut self) -> Result<Call> {
        self.step("A call from west to east, by name")?;
        let server: SocketAddr = format!("{}:5653", Zone::WEST.control_plane()).parse()?;
        let look = async || names::resolve(server, CART).await;
        let (address, _) = self.until("the name of cart", look).await?;
        self.say(format!("{CART} is {address}, says west's DNS server ({server})"))?;
        let at = SocketAddr::from((address, PORT));
        let look = async || {
            let mut call = Call::open(CART, at).await?;
            let answer = call.get().await?;
            // Nobody may call yet, and the server says so.
            if answer.status == StatusCode::FORBIDDEN { Ok(call) } else { refusal(&answer) }
        };
        let (mut call, _) = self.until("an answer of cart", look).await?;
        self.say("nobody was allowed to call cart yet, so the answer is 403")?;
        let client = self.client()?;
        let (answer, took) = self.after_rule(&client, "allow", &mut call, StatusCode::OK).await?;
        self.say(format!("a MeshTrafficPermission on global allows web: 200 after {took:.1?}"))?;
        let [server, caller] = identities(&answer.body)?;
        self.say(format!("cart's end: it is {server}, and who calls is {caller}"))?;
        let look = async || callee(&client).await;
        let (callee, _) = self.until("whom the Envoy of web takes for cart", look).await?;
        self.say(format!("web's end: its Envoy takes only {callee} for cart"))?;
        if (&*caller, &server) != (WEB, &callee) {
            bail!("the caller is {WEB}: the two ends saw different identities");
        }
        Ok(call)
    }

    /// Puts the rule and calls until the answer is `status`. Returns the answer, and how long it took
    /// from the beginning of the PUT.
    async fn after_rule(
        &mut self,
        client: &Client,
        verdict: &str,
        call: &mut Call,
        status: StatusCode,
    ) -> Result<(Answer, Duration)> {
        let start = Instant::now();
        self.rule(client, verdict).await?;
        loop {
            let answer = call.get().await?;
            if answer.status == status {
                return Ok((answer, start.elapsed()));
            }
            if start.elapsed() > PATIENCE {
                bail!("still {} after {PATIENCE:?}", answer.status);
            }
            // Not as fast as the machine can.
            tokio::task::yield_now().await;
        }
    }

    /// A change on global reaches the connection that is open.
    pub(crate) async fn refuse_and_allow(&mut self, call: &mut Call) -> Result<()> {
        self.step("A change of a policy on global, while the connection stays open")?;
        let client = self.client()?;
        let (_, took) = self.after_rule(&client, "deny", call, StatusCode::FORBIDDEN).await?;
        self.say(format!(
            "permission withdrawn: 403 on the same connection {took:.1?} after the PUT"
        ))?;
        let (_, took) = self.after_rule(&client, "allow", call, StatusCode::OK).await?;
        self.say(format!("permission given again: 200 on the same connection after {took:.1?}"))
    }

    /// Global goes away and comes back.
    pub(crate) async fn lose_global(&mut self, call: &mut Call) -> Result<()> {
        self.step("Global stops, and comes back")?;
        self.processes.stop("global").await?;
        let answer = call.get().await?;
        if answer.status != StatusCode::OK {
            return refusal(&answer);
        }
        self.say(format!("global is stopped; the call is answered after {:.1?}", answer.took))?;
        self.processes.start("global-cp", "global", &self.places.global())?;
        let start = Instant::now();
        self.ready("global", "127.0.0.1:5680").await?;
        self.zones_online().await?;
        self.say(format!(
            "global is back, both zones online {:.1?} after its start",
            start.elapsed()
        ))
    }

    /// Every step did what it shows.
    pub(crate) fn done(&mut self) -> Result<()> {
        self.out.line("\nEvery step did what it shows.")
    }

    /// Stays up until a process ends by itself.
    pub(crate) async fn stay_up(&mut self) -> Result<()> {
        let mut ticks = interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            self.processes.check()?;
        }
    }

    /// What a person can do now.
    pub(crate) fn what_next(&mut self) -> Result<()> {
        let token = self.places.data("global").join("admin-token");
        // It need not be on PATH.
        let program = std::env::current_exe().context("the path of this program")?;
        let atoll =
            format!("{} --address {GLOBAL} --token-file {}", program.display(), token.display());
        self.out.line("\nIt all stays up until you press Ctrl-C. Try:")?;
        self.say(format!("{atoll} zones"))?;
        self.say(format!("{atoll} dataplanes"))?;
        self.say(format!("{atoll} get meshservices -o yaml"))?;
        self.say(format!("{atoll} delete meshtrafficpermission cart-callers"))?;
        let server = Zone::WEST.control_plane();
        self.say(format!("dig @{server} -p 5653 {CART} +short    # if dig is installed"))?;
        self.say(format!("curl -H \"Authorization: Bearer $(cat {})\" {GLOBAL}/", token.display()))
    }
}

/// The SPIFFE ID that the Envoy of `web` demands of whom it calls as `cart`, as global learns from it.
async fn callee(client: &Client) -> Result<String> {
    let web = inspect::path(client, "default", "web-1", Some("west")).await?;
    let (_, dump) = client.request(Method::GET, &format!("{web}/xds"), None).await?;
    demanded(&serde_json::from_str(&dump)?)
}

/// The one SPIFFE ID that a configuration demands of `cart`.
fn demanded(dump: &Value) -> Result<String> {
    let is_cart = |it: &Value| it.get("name").is_some_and(|name| name == CLUSTER);
    let cluster = find(dump, &is_cart).context("cart has no cluster")?;
    let names = "match_typed_subject_alt_names";
    let ids = find(cluster, &|it| it.get(names).is_some()).and_then(|it| it.get(names));
    let ids: Vec<&Value> = ids.and_then(Value::as_array).into_iter().flatten().collect();
    let [id] = ids[..] else { bail!("not one identity: {ids:?}") };
    let id = id.pointer("/matcher/exact").and_then(Value::as_str).context("not an exact one")?;
    Ok(id.to_owned())
}

/// The first value within `value` that is what one looks for.
fn find<'a>(value: &'a Value, is_it: &dyn Fn(&Value) -> bool) -> Option<&'a Value> {
    if is_it(value) {
        return Some(value);
    }
    match value {
        Value::Array(all) => all.iter().find_map(|it| find(it, is_it)),
        Value::Object(all) => all.values().find_map(|it| find(it, is_it)),
        _ => None,
    }
}

fn refusal<T>(answer: &Answer) -> Result<T> {
    bail!("{}: {}", answer.status, answer.body)
}

fn is_online(overview: &Value) -> bool {
    let subscriptions = overview.pointer("/zoneInsight/subscriptions").and_then(Value::as_array);
    subscriptions.into_iter().flatten().any(|it| {
        it.get("connectTime").is_some_and(Value::is_string)
            && it.get("disconnectTime").is_none_or(Value::is_null)
    })
}

/// Who the server's sidecar says it is, and who it says calls.
fn identities(body: &str) -> Result<[String; 2]> {
    let forwarded = body.lines().nth(1).context("the answer names no caller")?;
    let part = |name: &str| {
        let found = forwarded.split(';').find_map(|part| part.strip_prefix(name));
        found.map(str::to_owned).with_context(|| format!("{name} is missing in {forwarded:?}"))
    };
    Ok([part("By=")?, part("URI=")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_read_from_the_forwarded_certificate() {
        let body = "hello from cart\nBy=spiffe://a/b;Hash=x;URI=spiffe://c/d";
        let [server, caller] = identities(body).unwrap();
        assert_eq!((&*server, &*caller), ("spiffe://a/b", "spiffe://c/d"));
        assert!(identities("hello\nnobody").is_err());
    }

    #[test]
    fn who_is_called_is_read_from_the_configuration_of_the_caller() {
        let cluster = |name: &str, ids: &[&str]| {
            let matchers: Vec<Value> =
                ids.iter().map(|id| json!({ "matcher": { "exact": id } })).collect();
            json!({ "name": name, "tls": { "match_typed_subject_alt_names": matchers } })
        };
        let dump = |ids| json!({ "configs": [cluster("other", &["x"]), cluster(CLUSTER, ids)] });
        assert_eq!(demanded(&dump(&["spiffe://a/b"])).unwrap(), "spiffe://a/b");
        for none in [&[][..], &["spiffe://a/b", "spiffe://a/c"]] {
            assert!(demanded(&dump(none)).is_err(), "{none:?}");
        }
        assert!(demanded(&json!({ "configs": [cluster("other", &["x"])] })).is_err());
    }

    #[test]
    fn a_zone_is_online_while_a_subscription_is_open() {
        let of = |subscription: Value| {
            is_online(&json!({ "zoneInsight": { "subscriptions": [subscription] } }))
        };
        assert!(of(json!({ "connectTime": "t" })));
        assert!(!of(json!({ "connectTime": "t", "disconnectTime": "u" })));
        assert!(!is_online(&json!({})));
    }
}
