//! The session of a proxy, from hello to good-bye.
//!
//! Of two sessions for one Dataplane the newer counts if it is of the same process, which came back
//! before we noticed that it had gone. If it is of another process, the older one is asked whether it
//! lives: if it does not answer in time it is the half-open rest of something that crashed, and the
//! newer one takes its place. If it does, somebody runs two proxies under one name, and the newer one
//! is refused.

use super::{
    auth::Bearer,
    desk::{Admitted, Desk},
    insight::Versions,
    limits,
    proxy::{ConnectionId, Ping, Question},
    registry::{Beginning, Ends, Registry, Rival},
};
use proto::atoll::proxy::v1::{
    Address, AdminAnswer, AdminRequest, ControlPlane, FromProxy, Hello, Ping as PingMessage,
    Problems, State, ToProxy, Welcome, admin_answer, from_proxy, to_proxy,
};
use resource::{ResourceKey, ZoneName};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tonic::{Status, Streaming};
use tracing::{info, warn};
use xds::bootstrap::{self, Bootstrap, Token};

/// Envoy's memory, in MiB.
const HEAP: u32 = 512;
/// By this name a proxy says that Envoy binds a listener for each outbound itself.
pub(super) const BINDS_VIPS: &str = "feature-bind-outbounds";

type ToPeer = mpsc::Sender<ToProxy>;

/// Serves one session until it ends.
pub(super) async fn serve(
    desk: Arc<Desk>,
    bearer: Bearer,
    mut messages: Streaming<FromProxy>,
    to_peer: ToPeer,
) -> Result<(), Status> {
    let hello = hello(&mut messages).await?;
    desk.check_open()?;
    let dataplane = (hello.mesh.as_str(), hello.name.as_str());
    let refused = |status: &Status| {
        warn!(
            mesh = hello.mesh,
            dataplane = hello.name,
            reason = status.message(),
            "proxy refused"
        );
    };
    desk.appears(&bearer, dataplane).await;
    let admitted = desk.admit(&bearer, dataplane, &hello.dataplane).inspect_err(refused)?;
    check_address(hello.advertised.as_ref(), &admitted).inspect_err(refused)?;
    let zone = zone(&desk)?;
    let welcome = welcome(&hello, &admitted, &bearer, zone)?;
    let ends = begin(&desk.registry, &admitted, &hello).await.inspect_err(refused)?;
    let here = Here { registry: desk.registry.clone(), key: admitted.key.clone(), id: ends.id };
    info!(dataplane = %here.key, envoy = hello.envoy_version, "proxy connected");
    let Ends { pings, questions, problems, replaced, written, .. } = ends;
    // Not before: Envoy would ask for a Dataplane that is not there.
    written.await.map_err(|_| Status::unavailable("the store is closed"))?;
    let welcome = to_proxy::Message::Welcome(welcome);
    to_peer.send(to(welcome)).await.map_err(|_| gone())?;
    let names = hello.wants_records.then(|| desk.names.subscribe(&admitted.mesh));
    let talk = Talk {
        here,
        to_peer,
        pings,
        questions,
        problems,
        names,
        pinged: Vec::new(),
        asked: BTreeMap::new(),
        nonce: 0,
        taken: true,
        last: 0,
    };
    tokio::select! {
        biased;
        () = desk.stop.cancelled() => Err(Status::unavailable("the control plane stops")),
        () = replaced.cancelled() => Err(Status::aborted("another session of this Dataplane began")),
        error = desk.tokens.end_of(&bearer) => Err(error.status()),
        ended = talk.run(&mut messages) => ended,
    }
}

async fn hello(messages: &mut Streaming<FromProxy>) -> Result<Hello, Status> {
    let first = timeout(limits::HELLO, messages.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no hello in time"))??;
    let first = first.ok_or_else(gone)?;
    let Some(from_proxy::Message::Hello(hello)) = first.message else {
        return Err(Status::invalid_argument("the first message must be a hello"));
    };
    let texts = [
        ("mesh", &hello.mesh),
        ("name", &hello.name),
        ("version", &hello.version),
        ("envoy_version", &hello.envoy_version),
        ("instance", &hello.instance),
    ];
    for (field, text) in texts {
        check_text(field, text, limits::TEXT)?;
    }
    if hello.instance.is_empty() {
        return Err(Status::invalid_argument("hello.instance: must be set"));
    }
    check_socket(&hello.spire_socket)?;
    hello.state.as_ref().map_or(Ok(()), check_state)?;
    Ok(hello)
}

fn check_text(field: &str, text: &str, limit: usize) -> Result<(), Status> {
    if text.len() <= limit {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("hello.{field}: longer than {limit} bytes")))
}

fn check_socket(path: &str) -> Result<(), Status> {
    daemon::config::check_socket(path)
        .map_err(|error| Status::invalid_argument(format!("hello.spire_socket: {error}")))
}

fn check_state(state: &State) -> Result<(), Status> {
    let long = state.inbounds.keys().any(|name| name.len() > limits::TEXT);
    if state.inbounds.len() > limits::INBOUNDS || long {
        let most = limits::INBOUNDS;
        return Err(Status::invalid_argument(format!("state.inbounds: more than {most}")));
    }
    Ok(())
}

/// An address is what other zones will dial: it is refused here rather than withheld later.
fn check_address(advertised: Option<&Address>, admitted: &Admitted) -> Result<(), Status> {
    let listener = admitted.spec.listeners().iter().find(|it| super::proxy::is_ingress(it));
    let Some(advertised) = advertised else { return Ok(()) };
    let Some(listener) = listener else {
        return Err(Status::invalid_argument(
            "hello.advertised: the Dataplane has no listener of type ZoneIngress",
        ));
    };
    let port = if advertised.port == 0 { listener.port } else { advertised.port };
    let spec = serde_json::json!({ "address": advertised.host, "port": port });
    let checked = kinds::mesh_zone_address::KIND.from_json(spec);
    checked
        .map(drop)
        .map_err(|error| Status::invalid_argument(format!("hello.advertised: {error}")))
}

fn zone(desk: &Desk) -> Result<ZoneName, Status> {
    match &desk.registry.shelf.place {
        kinds::labels::Place::Zone { name, .. } => Ok(name.clone()),
        kinds::labels::Place::Global => Err(Status::internal("proxies connect to zones")),
    }
}

fn welcome(
    hello: &Hello,
    admitted: &Admitted,
    bearer: &Bearer,
    zone: ZoneName,
) -> Result<Welcome, Status> {
    let features = if hello.binds_vips { vec![BINDS_VIPS.to_owned()] } else { Vec::new() };
    let bootstrap = Bootstrap {
        mesh: admitted.mesh.clone(),
        name: hello.name.clone(),
        workload: admitted.workload(),
        zone,
        dataplane: hello.dataplane.clone(),
        control_plane: control_plane(hello.control_plane.as_ref())?,
        readiness: None,
        features,
        metadata: serde_json::Map::new(),
        admin_socket: None,
        spire_socket: Some(hello.spire_socket.clone()).filter(|path| !path.is_empty()),
        version: hello.version.clone(),
        max_heap_mib: HEAP,
        token: Token::File(bearer.token.to_string().into()),
    };
    let rendered = bootstrap.render();
    Ok(Welcome { bootstrap: rendered.bootstrap, files: rendered.files })
}

fn control_plane(asked: Option<&ControlPlane>) -> Result<bootstrap::ControlPlane, Status> {
    let missing =
        |field: &str| Status::invalid_argument(format!("hello.control_plane.{field}: must be set"));
    let asked = asked.ok_or_else(|| missing("address"))?;
    let address = asked.address.as_ref().filter(|address| !address.host.is_empty());
    let address = address.ok_or_else(|| missing("address"))?;
    let port = u16::try_from(address.port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| missing("address.port"))?;
    if asked.ca.is_empty() {
        return Err(missing("ca"));
    }
    check_text("control_plane.address.host", &address.host, limits::TEXT)?;
    check_text("control_plane.server_name", &asked.server_name, limits::TEXT)?;
    check_text("control_plane.ca", &asked.ca, limits::CA)?;
    let server_name = if asked.server_name.is_empty() { &address.host } else { &asked.server_name };
    Ok(bootstrap::ControlPlane {
        host: address.host.clone(),
        server_name: server_name.clone(),
        port,
        ca_pem: asked.ca.clone(),
    })
}

/// Begins the session, if need be in the place of one that does not answer.
async fn begin(
    registry: &Arc<Registry>,
    admitted: &Admitted,
    hello: &Hello,
) -> Result<Ends, Status> {
    let beginning = Beginning {
        sent: admitted.sent.clone(),
        instance: hello.instance.clone(),
        state: hello.state.clone().unwrap_or_default(),
        advertised: hello.advertised.clone(),
        versions: Versions { proxy: hello.version.clone(), envoy: hello.envoy_version.clone() },
    };
    let mut over: Option<ConnectionId> = None;
    loop {
        let rival = match registry.begin_session(&admitted.key, &beginning, over) {
            Ok(ends) => return Ok(ends),
            Err(rival) => rival,
        };
        if lives(&rival).await {
            let key = &admitted.key;
            return Err(Status::already_exists(format!(
                "another proxy runs as Dataplane {key}, and answers"
            )));
        }
        over = Some(rival.id);
    }
}

async fn lives(rival: &Rival) -> bool {
    let (answer, answered) = oneshot::channel();
    match rival.pings.try_send(answer) {
        // Others ask already, so somebody will know soon.
        Err(mpsc::error::TrySendError::Full(_)) => true,
        Err(mpsc::error::TrySendError::Closed(_)) => false,
        Ok(()) => matches!(timeout(limits::PONG, answered).await, Ok(Ok(()))),
    }
}

/// A session that has begun. It ends when this is dropped.
struct Here {
    registry: Arc<Registry>,
    key: ResourceKey,
    id: ConnectionId,
}

impl Drop for Here {
    fn drop(&mut self) {
        self.registry.end_session(&self.key, self.id);
    }
}

/// What goes on in a session.
struct Talk {
    here: Here,
    to_peer: ToPeer,
    pings: mpsc::Receiver<Ping>,
    questions: mpsc::Receiver<Question>,
    problems: tokio::sync::watch::Receiver<Problems>,
    /// Set if the proxy answers DNS.
    names: Option<crate::names::Subscription>,
    /// Who waits for a sign of life.
    pinged: Vec<Ping>,
    /// Who waits for which answer.
    asked: BTreeMap<String, oneshot::Sender<Result<bytes::Bytes, String>>>,
    /// Of the records that were sent last.
    nonce: u64,
    /// Whether they were taken: nothing more is sent before.
    taken: bool,
    last: u64,
}

impl Talk {
    async fn run(mut self, messages: &mut Streaming<FromProxy>) -> Result<(), Status> {
        loop {
            // All of these are cancel safe: none loses what it has not returned.
            tokio::select! {
                biased;
                message = messages.message() => match message? {
                    // The proxy crashed, or its connection did.
                    None => return Ok(()),
                    Some(message) => if self.hear(message).await? { return Ok(()) },
                },
                Some(ping) = self.pings.recv() => {
                    self.pinged.retain(|waiting| !waiting.is_closed());
                    self.pinged.push(ping);
                    self.say(to_proxy::Message::Ping(PingMessage {})).await?;
                }
                Some(question) = self.questions.recv() => self.ask(question).await?,
                Ok(()) = self.problems.changed() => {
                    let problems = self.problems.borrow_and_update().clone();
                    self.say(to_proxy::Message::Problems(problems)).await?;
                }
                records = next_records(&mut self.names), if self.taken => {
                    self.nonce += 1;
                    self.taken = false;
                    self.say(to_proxy::Message::Records(records.message(self.nonce))).await?;
                }
            }
        }
    }

    /// Whether the proxy left.
    async fn hear(&mut self, message: FromProxy) -> Result<bool, Status> {
        // One that is newer than we are is none to us.
        let Some(message) = message.message else { return Ok(false) };
        match message {
            from_proxy::Message::Hello(_) => {
                return Err(Status::invalid_argument("a session has one hello"));
            }
            from_proxy::Message::State(state) => {
                check_state(&state)?;
                self.here.registry.set_state(&self.here.key, self.here.id, state);
            }
            from_proxy::Message::Leaving(_) => {
                info!(dataplane = %self.here.key, "proxy leaves");
                if let Some(written) = self.here.registry.leave(&self.here.key, self.here.id) {
                    written.await.map_err(|_| Status::unavailable("the store is closed"))?;
                }
                return Ok(true);
            }
            from_proxy::Message::Admin(answer) => self.answered(answer),
            from_proxy::Message::RecordsTaken(taken) => self.taken |= taken.nonce == self.nonce,
            from_proxy::Message::Pong(_) => {
                for waiting in self.pinged.drain(..) {
                    // Who does not wait any more needs no answer.
                    let _sent = waiting.send(());
                }
            }
        }
        Ok(false)
    }

    async fn ask(&mut self, question: Question) -> Result<(), Status> {
        self.asked.retain(|_, waiting| !waiting.is_closed());
        if self.asked.len() >= limits::QUESTIONS {
            drop(question.answer.send(Err("too many questions at once".into())));
            return Ok(());
        }
        self.last += 1;
        let id = self.last.to_string();
        self.asked.insert(id.clone(), question.answer);
        let what = question.what.into();
        self.say(to_proxy::Message::Admin(AdminRequest { id, what, query: question.query })).await
    }

    fn answered(&mut self, answer: AdminAnswer) {
        let Some(waiting) = self.asked.remove(&answer.id) else { return };
        let result = match answer.result {
            Some(admin_answer::Result::Body(body)) => Ok(body.into()),
            Some(admin_answer::Result::Error(error)) => Err(error),
            None => Err("the proxy answered nothing".into()),
        };
        drop(waiting.send(result));
    }

    async fn say(&self, message: to_proxy::Message) -> Result<(), Status> {
        self.to_peer.send(to(message)).await.map_err(|_| gone())
    }
}

async fn next_records(names: &mut Option<crate::names::Subscription>) -> crate::names::Delta {
    match names {
        Some(names) => names.next().await,
        None => std::future::pending().await,
    }
}

const fn to(message: to_proxy::Message) -> ToProxy {
    ToProxy { message: Some(message) }
}

fn gone() -> Status {
    Status::cancelled("the proxy is gone")
}
