//! The session of a proxy: one stream that lives as long as the proxy does.

use super::{
    Shared,
    auth::{Accepted, Wanted, admit},
    lives::{Open, Problems},
    proxy_key,
    registration::Announced,
};
use daemon::config::Secret;
use proto::atoll::proxy::v1::{
    FromProxy, Hello, Ping, Problems as Told, ToProxy, Welcome, from_proxy, proxies_server,
    to_proxy,
};
use resource::{ResourceKey, ZoneName, label};
use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};
use store::{Backend, StoreError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use xds::bootstrap::{Bootstrap, ControlPlane};

/// What the first message may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a proxy has to answer whether it is still there.
const PING: Duration = Duration::from_secs(2);
/// How much memory Envoy may take unless told otherwise, in MiB.
const HEAP: u32 = 512;
/// Messages on their way to a proxy. One that does not read them loses its session.
const QUEUE: usize = 16;

/// The service of sessions.
pub(super) struct Sessions<B> {
    pub(super) shared: Arc<Shared<B>>,
}

type Outgoing = Pin<Box<dyn Stream<Item = Result<ToProxy, Status>> + Send>>;

#[tonic::async_trait]
impl<B: Backend + 'static> proxies_server::Proxies for Sessions<B> {
    type SessionStream = Outgoing;

    async fn session(
        &self,
        request: Request<Streaming<FromProxy>>,
    ) -> Result<Response<Outgoing>, Status> {
        let accepted = self.shared.tokens.accept(request.metadata())?;
        let messages = request.into_inner();
        let (to_proxy, outgoing) = mpsc::channel(QUEUE);
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            let ended = run(shared, accepted, messages, &to_proxy).await;
            if let Err(status) = ended {
                // Who is gone needs no status.
                to_proxy.try_send(Err(status)).ok();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

type ToPeer = mpsc::Sender<Result<ToProxy, Status>>;

async fn run<B: Backend + 'static>(
    shared: Arc<Shared<B>>,
    accepted: Accepted,
    mut messages: Streaming<FromProxy>,
    to_proxy: &ToPeer,
) -> Result<(), Status> {
    let first = timeout(PATIENCE, messages.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no first message"))??;
    let Some(FromProxy { message: Some(from_proxy::Message::Hello(hello)) }) = first else {
        return Err(Status::invalid_argument("the first message must be hello"));
    };
    let announced = shared.check(&accepted, &hello)?;
    let (mut talk, problems) = shared.begin(&announced.key, &hello.instance).await?;
    let key = announced.key.clone();
    tracing::info!(dataplane = %key, version = hello.version, "proxy connected");
    let mut session = Session { shared: shared.clone(), announced, hello, problems, to_proxy };
    let ended = session.serve(&accepted, &mut messages, &mut talk).await;
    match &ended {
        Ok(Left) => {
            if shared.lives.lock().leave(&key, talk.id) {
                tracing::info!(dataplane = %key, "proxy left");
                shared.registry.withdraw(&key).await.map_err(|error| unavailable(&error))?;
            }
        }
        Err(status) => {
            if shared.lives.lock().end(&key, talk.id, Instant::now()) {
                tracing::info!(dataplane = %key, reason = status.message(), "session ended");
                shared.wake.notify_one();
            }
        }
    }
    ended.map(|Left| ())
}

/// The proxy said good-bye.
struct Left;

/// What others ask a session.
struct Talk {
    id: u64,
    replaced: CancellationToken,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
}

fn unavailable(error: &StoreError) -> Status {
    Status::unavailable(error.to_string())
}

impl<B: Backend + 'static> Shared<B> {
    /// Reads what a proxy says it is, and whether its token lets it be that.
    fn check(&self, accepted: &Accepted, hello: &Hello) -> Result<Announced, Status> {
        let announced = self.registry.read(hello).map_err(|error| {
            tracing::warn!(mesh = ?hello.mesh, name = ?hello.name, %error, "proxy refused");
            Status::invalid_argument(error.to_string())
        })?;
        let Announced { key, labels, ingress, .. } = &announced;
        let mesh = key.mesh.as_ref().ok_or_else(|| Status::invalid_argument("no mesh"))?;
        let needs_workload = self.issuer.needs_workload(mesh, labels);
        let wanted = Wanted { key, labels, ingress: *ingress, needs_workload };
        admit(&accepted.claims, &wanted)?;
        // Nor may it take over a Dataplane that its token does not admit.
        if let Some(row) = self.registry.stored(key) {
            let needs_workload = self.issuer.needs_workload(mesh, &row.head.labels);
            let ingress = row.head.labels.get(label::LISTENER_ZONE_INGRESS) == Some(label::ENABLED);
            admit(
                &accepted.claims,
                &Wanted { key, labels: &row.head.labels, ingress, needs_workload },
            )?;
        }
        Ok(announced)
    }

    /// Takes the place of the proxy's session. Of two processes that are the same Dataplane the one
    /// that was first keeps it, as long as it answers.
    async fn begin(
        &self,
        key: &ResourceKey,
        instance: &str,
    ) -> Result<(Talk, watch::Receiver<Problems>), Status> {
        let before = self.lives.lock().session(key).filter(|open| open.instance != instance);
        if let Some(open) = before {
            let (answer, answered) = oneshot::channel();
            let asked = open.ask.try_send(answer).is_ok();
            if asked && timeout(PING, answered).await.is_ok_and(|answer| answer.is_ok()) {
                let text = format!("another proxy is connected as Dataplane {key}");
                tracing::warn!(dataplane = %key, "second proxy refused");
                return Err(Status::already_exists(text));
            }
        }
        let (ask, asked) = mpsc::channel(4);
        let replaced = CancellationToken::new();
        let mut lives = self.lives.lock();
        let id = lives.next_id();
        let (instance, ending) = (instance.to_owned(), replaced.clone());
        let problems = lives.begin(key, Open { id, instance, replaced: ending, ask });
        Ok((Talk { id, replaced, asked }, problems))
    }
}

struct Session<'a, B> {
    shared: Arc<Shared<B>>,
    announced: Announced,
    hello: Hello,
    problems: watch::Receiver<Problems>,
    to_proxy: &'a ToPeer,
}

impl<B: Backend + 'static> Session<'_, B> {
    async fn serve(
        &mut self,
        accepted: &Accepted,
        messages: &mut Streaming<FromProxy>,
        talk: &mut Talk,
    ) -> Result<Left, Status> {
        let shared = self.shared.clone();
        let registry = &shared.registry;
        let id = format!("{}-{}", self.hello.instance, talk.id);
        let revision = registry.arrive(&self.announced, &self.hello, &id).await;
        self.shared.meshes.wait_for(revision.map_err(|error| unavailable(&error))?).await;
        self.send(to_proxy::Message::Welcome(self.welcome(accepted)?))?;
        let mesh = self.announced.key.mesh.clone();
        let mesh = mesh.ok_or_else(|| Status::invalid_argument("no mesh"))?;
        let mut names = self.shared.names.subscribe(&mesh);
        let (mut nonce, mut waiting) = (0, Vec::new());
        loop {
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => {
                    return Err(Status::unavailable("the control plane stops"));
                }
                () = talk.replaced.cancelled() => {
                    return Err(Status::aborted("a newer session of this proxy began"));
                }
                message = messages.message() => match message?.and_then(|it| it.message) {
                    Some(from_proxy::Message::Leaving(_)) => return Ok(Left),
                    Some(from_proxy::Message::State(state)) => {
                        let key = &self.announced.key;
                        tracing::info!(dataplane = %key, ready = state.ready, "proxy changed");
                        let changed = registry.change(&self.announced, &self.hello, &state).await;
                        changed.map_err(|error| unavailable(&error))?;
                    }
                    Some(from_proxy::Message::Pong(_)) => {
                        for answer in waiting.drain(..) {
                            let answer: oneshot::Sender<()> = answer;
                            // Who asked may not wait any more.
                            answer.send(()).ok();
                        }
                    }
                    Some(from_proxy::Message::Hello(_)) => {
                        return Err(Status::invalid_argument("a second hello"));
                    }
                    // Nothing was asked of it; records need no answer.
                    Some(from_proxy::Message::Admin(_) | from_proxy::Message::RecordsTaken(_)) => {}
                    None => return Err(Status::cancelled("the proxy closed the session")),
                },
                Some(answer) = talk.asked.recv() => {
                    waiting.push(answer);
                    self.send(to_proxy::Message::Ping(Ping {}))?;
                }
                changed = self.problems.changed() => {
                    changed.map_err(|_| Status::aborted("the proxy was withdrawn"))?;
                    let problems = self.problems.borrow_and_update().values().cloned().collect();
                    self.send(to_proxy::Message::Problems(Told { problems }))?;
                }
                delta = names.next(), if self.hello.wants_records => {
                    nonce += 1;
                    self.send(to_proxy::Message::Records(delta.message(nonce)))?;
                }
            }
        }
    }

    fn send(&self, message: to_proxy::Message) -> Result<(), Status> {
        let sent = self.to_proxy.try_send(Ok(ToProxy { message: Some(message) }));
        sent.map_err(|_| Status::resource_exhausted("the proxy does not read"))
    }

    fn welcome(&self, accepted: &Accepted) -> Result<Welcome, Status> {
        let missing = || Status::invalid_argument("hello: controlPlane is missing");
        let control_plane = self.hello.control_plane.as_ref().ok_or_else(missing)?;
        let address = control_plane.address.as_ref().ok_or_else(missing)?;
        let port = u16::try_from(address.port).map_err(|_| missing())?;
        let key = proxy_key(&self.announced.key).ok_or_else(missing)?;
        let zone: ZoneName = match &self.shared.registry.place {
            kinds::labels::Place::Zone { name, .. } => name.clone(),
            kinds::labels::Place::Global => return Err(Status::internal("global has no proxies")),
        };
        let bootstrap = Bootstrap {
            mesh: key.mesh,
            name: key.name.to_string(),
            workload: self.announced.labels.get(label::WORKLOAD).map(str::to_owned),
            zone,
            dataplane: self.announced.json.clone(),
            binds_vips: self.hello.binds_vips,
            control_plane: ControlPlane {
                host: address.host.clone(),
                port,
                ca_pem: control_plane.ca.clone(),
            },
            // Asked over the admin socket; the port is for others, and any will do.
            readiness: SocketAddr::from(([127, 0, 0, 1], 0)),
            version: self.hello.version.clone(),
            max_heap_mib: HEAP,
            token: Secret::from(accepted.token.clone()),
        };
        let rendered = bootstrap.render();
        let files = rendered.files.into_iter().collect();
        Ok(Welcome { bootstrap: rendered.bootstrap, files })
    }
}
