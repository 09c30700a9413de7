//! Sessions with a control plane that is made up, over pipes, in paused time.

use super::*;
use crate::envoy::AdminError;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use proto::atoll::proxy::v1::{
    Ping, Problems, Record, Records, RecordsTaken, Token,
    proxies_server::{Proxies, ProxiesServer},
};
use std::{collections::BTreeMap, pin::Pin};
use tokio::io::DuplexStream;
use tonic::{Response, Status, transport::Endpoint};

const LONG: Duration = Duration::from_secs(60);

/// One session as the control plane sees it.
struct Seen {
    token: String,
    messages: Streaming<FromProxy>,
    to_proxy: mpsc::Sender<Result<ToProxy, Status>>,
}

impl Seen {
    async fn next(&mut self) -> Option<from_proxy::Message> {
        let message = timeout(LONG, self.messages.message()).await.expect("in time");
        message.ok().flatten().map(|message| message.message.unwrap())
    }

    async fn send(&self, message: to_proxy::Message) {
        self.to_proxy.send(Ok(ToProxy { message: Some(message) })).await.unwrap();
    }

    async fn welcome(&mut self) -> Hello {
        let Some(from_proxy::Message::Hello(hello)) = self.next().await else {
            panic!("the first message is a hello")
        };
        let files = BTreeMap::from([("extra.json".to_owned(), b"{}".to_vec())]);
        self.send(to_proxy::Message::Welcome(Welcome { bootstrap: "node: {}".into(), files }))
            .await;
        hello
    }
}

struct ControlPlane {
    sessions: mpsc::Sender<Seen>,
}

#[async_trait::async_trait]
impl Proxies for ControlPlane {
    type SessionStream =
        Pin<Box<dyn futures::Stream<Item = Result<ToProxy, Status>> + Send + 'static>>;

    async fn session(
        &self,
        request: Request<Streaming<FromProxy>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        if token == "Bearer wrong" {
            return Err(Status::unauthenticated("the token is for another mesh"));
        }
        let (to_proxy, answers) = mpsc::channel(16);
        let messages = request.into_inner();
        self.sessions.send(Seen { token, messages, to_proxy }).await.unwrap();
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

struct Pipes(mpsc::Sender<DuplexStream>);

impl Dial for Pipes {
    async fn dial(&self) -> Result<Channel, DialError> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        self.0.send(theirs).await?;
        let mut once = Some(ours);
        let connector = tower::service_fn(move |_| {
            let stream = once.take().ok_or(std::io::ErrorKind::ConnectionRefused);
            async move { Ok::<_, std::io::Error>(TokioIo::new(stream?)) }
        });
        Ok(Endpoint::from_static("http://zone").connect_with_connector(connector).await?)
    }
}

struct Echo;

impl Admin for Echo {
    async fn is_ready(&self) -> bool {
        true
    }

    async fn drain(&self) -> Result<(), AdminError> {
        Ok(())
    }

    async fn connections(&self) -> Result<u64, AdminError> {
        Ok(0)
    }

    async fn fetch(&self, what: What, query: &str) -> Result<Bytes, AdminError> {
        match query {
            "slow" => Err(AdminError::Late),
            _ => Ok(format!("{what:?} {query}").into()),
        }
    }
}

/// A running session, and the other end of it.
struct World {
    sessions: mpsc::Receiver<Seen>,
    state: watch::Sender<State>,
    configured: watch::Receiver<bool>,
    contact: watch::Receiver<Contact>,
    leave: CancellationToken,
    records: Arc<dns::Records>,
    ready: Ready,
    folder: tempfile::TempDir,
    tasks: JoinSet<Result<&'static str, SessionEnded>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "abc\n").unwrap();
        let (dialled, connections) = mpsc::channel(4);
        let (seen, sessions) = mpsc::channel(4);
        let (state, states) = watch::channel(State::default());
        let (configures, configured) = watch::channel(false);
        let (contacts, contact) = watch::channel(Contact::default());
        let records = Arc::<dns::Records>::default();
        let ready = Ready::default();
        let session = Session {
            dial: Pipes(dialled),
            hello: Hello { mesh: "shop".into(), name: "web-1".into(), ..Hello::default() },
            token_file: folder.path().join("token"),
            renewed: None,
            state: states,
            workdir: Workdir::open(&folder.path().join("w")).unwrap(),
            configured: configures,
            contact: contacts,
            ready: ready.clone(),
            admin: Arc::new(Echo),
            records: Some(records.clone()),
        };
        let leave = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let run = session.run(leave.clone());
        tasks.spawn(async move { run.await.map(|()| "session") });
        let incoming = ReceiverStream::new(connections);
        let incoming = futures::StreamExt::map(incoming, Ok::<_, std::io::Error>);
        tasks.spawn(async move {
            let service = ProxiesServer::new(ControlPlane { sessions: seen });
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
            Ok("server")
        });
        Self { sessions, state, configured, contact, leave, records, ready, folder, tasks }
    }

    async fn session(&mut self) -> Seen {
        timeout(LONG, self.sessions.recv()).await.expect("in time").expect("it runs")
    }

    /// How the session ends.
    async fn ended(&mut self) -> Result<&'static str, SessionEnded> {
        timeout(LONG, self.tasks.join_next()).await.expect("in time").unwrap().unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("w").join(name)).unwrap()
    }

    async fn connected(&mut self, wanted: bool) {
        let wait = self.contact.wait_for(|contact| contact.connected == wanted);
        drop(timeout(LONG, wait).await.expect("in time").unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_begins_with_the_state_and_brings_the_bootstrap() {
    let mut world = World::new();
    world.state.send_modify(|state| state.ready = true);
    let mut session = world.session().await;
    let hello = session.welcome().await;
    let state = Some(State { ready: true, ..State::default() });
    let expected = Hello { mesh: "shop".into(), name: "web-1".into(), state, ..Hello::default() };
    assert_eq!((hello, session.token.as_str()), (expected, "Bearer abc"));
    drop(timeout(LONG, world.configured.wait_for(|c| *c)).await.unwrap().unwrap());
    assert_eq!(world.file("bootstrap.yaml"), "node: {}");
    assert_eq!(world.file("extra.json"), "{}");

    world.state.send_modify(|state| state.ready = false);
    let told = from_proxy::Message::State(State::default());
    assert_eq!(session.next().await, Some(told));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_comes_back_within_two_seconds() {
    let mut world = World::new();
    for _ in 0..5 {
        let mut session = world.session().await;
        session.welcome().await;
        world.connected(true).await;
        drop(session);
        let lost = Instant::now();
        world.connected(false).await;
        let mut session = world.session().await;
        assert!(lost.elapsed() <= Duration::from_secs(2), "{:?}", lost.elapsed());
        assert_eq!(
            session.next().await.map(|m| matches!(m, from_proxy::Message::Hello(_))),
            Some(true)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_leaves_says_so_and_waits_until_it_is_withdrawn() {
    let mut world = World::new();
    let mut session = world.session().await;
    session.welcome().await;
    world.connected(true).await;
    world.leave.cancel();
    assert_eq!(session.next().await, Some(from_proxy::Message::Leaving(Leaving {})));
    assert_eq!(session.next().await, None, "nothing follows");
    assert!(
        timeout(Duration::from_secs(1), world.tasks.join_next()).await.is_err(),
        "not withdrawn"
    );
    drop(session);
    assert_eq!(world.ended().await.unwrap(), "session");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_began_goes_on_with_a_token_that_is_refused_and_reads_it_again() {
    let mut world = World::new();
    let mut session = world.session().await;
    session.welcome().await;
    world.connected(true).await;
    let token = world.folder.path().join("token");
    for (content, why) in [
        ("wrong", "Unauthenticated: the token is for another mesh".to_owned()),
        ("", format!("{} holds no token", token.display())),
    ] {
        std::fs::write(&token, content).unwrap();
        let _ended = session.to_proxy.send(Err(Status::unauthenticated("it expired"))).await;
        let early = timeout(Duration::from_secs(30), world.sessions.recv()).await;
        assert!(early.is_err(), "it was let in");
        assert_eq!(world.ready.problems(), [format!("session: {why}")]);
    }
    std::fs::write(&token, "right").unwrap();
    let mut session = world.session().await;
    assert_eq!(session.token, "Bearer right");
    session.welcome().await;
    world.connected(true).await;
    assert_eq!(world.ready.problems(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_whose_settings_are_wrong_ends_and_says_why() {
    let mut world = World::new();
    let mut session = world.session().await;
    session.next().await.unwrap();
    let status = Status::invalid_argument("dataplane: networking.address: must be set");
    session.to_proxy.send(Err(status)).await.unwrap();
    let ended = world.ended().await.unwrap_err();
    let text = "InvalidArgument: dataplane: networking.address: must be set";
    assert_eq!(ended.to_string(), text);

    for (content, text) in [("wrong", "Unauthenticated: the token is for another mesh"), ("", "")] {
        let mut world = World::new();
        std::fs::write(world.folder.path().join("token"), content).unwrap();
        let ended = world.ended().await.unwrap_err();
        match content {
            "" => assert!(matches!(ended, SessionEnded::NotAToken(_)), "{ended}"),
            _ => assert_eq!(ended.to_string(), text),
        }
        assert!(!*world.configured.borrow());
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_and_said() {
    let mut world = World::new();
    for status in [
        Status::unavailable("this zone does not know everything yet"),
        Status::not_found("mesh: mesh \"shop\" does not exist"),
        Status::already_exists("another proxy runs as Dataplane shop/web-1, and answers"),
        Status::internal("broken"),
    ] {
        let mut session = world.session().await;
        session.next().await.unwrap();
        let why = format!("session: {:?}: {}", status.code(), status.message());
        session.to_proxy.send(Err(status)).await.unwrap();
        // Paused time: what comes next comes after it was said.
        let mut again = world.session().await;
        assert_eq!(world.ready.problems(), [why]);
        again.next().await.unwrap();
    }
    let mut session = world.session().await;
    session.welcome().await;
    world.connected(true).await;
    assert_eq!(world.ready.problems(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_serves_less_than_it_should_is_not_ready_and_says_why() {
    let mut world = World::new();
    let mut session = world.session().await;
    session.welcome().await;
    world.connected(true).await;
    let told = |unready: &[&str]| {
        let unready: Vec<_> = unready.iter().map(|text| (*text).to_owned()).collect();
        to_proxy::Message::Problems(Problems { problems: unready.clone(), unready })
    };
    session.send(told(&["port taken"])).await;
    let known = world.contact.wait_for(|contact| contact.unready);
    drop(timeout(LONG, known).await.expect("in time").unwrap());
    assert_eq!(world.ready.problems(), ["proxy: port taken"]);
    session.send(told(&[])).await;
    let solved = world.contact.wait_for(|contact| !contact.unready);
    drop(timeout(LONG, solved).await.expect("in time").unwrap());
    assert_eq!(world.ready.problems(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_control_plane_asks_and_is_answered() {
    let mut world = World::new();
    let mut session = world.session().await;
    session.welcome().await;
    let ask = |id: &str, query: &str| {
        let what = i32::from(admin_request::What::Stats);
        to_proxy::Message::Admin(AdminRequest { id: id.into(), what, query: query.into() })
    };
    let answered = |id: &str, result| {
        let result = Some(result);
        Some(from_proxy::Message::Admin(AdminAnswer { id: id.into(), result }))
    };
    session.send(ask("1", "filter=x")).await;
    let body = admin_answer::Result::Body(b"Stats filter=x".to_vec());
    assert_eq!(session.next().await, answered("1", body));
    session.send(ask("2", "slow")).await;
    let late = admin_answer::Result::Error("envoy did not answer in time".into());
    assert_eq!(session.next().await, answered("2", late));
    session.send(to_proxy::Message::Ping(Ping {})).await;
    assert_eq!(session.next().await, Some(from_proxy::Message::Pong(Pong {})));
    session
        .send(to_proxy::Message::Problems(Problems {
            problems: vec!["port taken".into()],
            unready: vec![],
        }))
        .await;
    session.send(to_proxy::Message::Ping(Ping {})).await;
    assert_eq!(session.next().await, Some(from_proxy::Message::Pong(Pong {})));
    assert_eq!(world.ready.problems(), ["proxy: port taken"]);
    assert!(!world.contact.borrow().unready);
    let files = BTreeMap::from([("token.yaml".to_owned(), b"newer".to_vec())]);
    session.send(to_proxy::Message::Token(Token { token: "newer".into(), files })).await;
    session.send(to_proxy::Message::Ping(Ping {})).await;
    assert_eq!(session.next().await, Some(from_proxy::Message::Pong(Pong {})));
    assert_eq!(world.file("token.yaml"), "newer");
    drop(session);
    let mut session = world.session().await;
    assert_eq!(session.token, "Bearer newer");
    session.welcome().await;
    std::fs::write(world.folder.path().join("token"), "newest").unwrap();
    drop(session);
    assert_eq!(world.session().await.token, "Bearer newest", "somebody replaced the file");
}

#[tokio::test(start_paused = true)]
async fn a_welcome_that_names_a_file_elsewhere_is_refused() {
    let mut world = World::new();
    let mut session = world.session().await;
    session.next().await.unwrap();
    let files = BTreeMap::from([("../x".to_owned(), Vec::new())]);
    session.send(to_proxy::Message::Welcome(Welcome { files, ..Welcome::default() })).await;
    let mut again = world.session().await;
    assert!(!*world.configured.borrow());
    again.welcome().await;
    world.connected(true).await;
}

#[tokio::test(start_paused = true)]
async fn names_are_taken_and_outlive_the_session() {
    let mut world = World::new();
    let mut session = world.session().await;
    session.welcome().await;
    let cart = Record { name: "cart.svc.mesh.local.".into(), addresses: vec!["241.0.0.1".into()] };
    let records = Records { nonce: 7, complete: true, upserts: vec![cart], removals: Vec::new() };
    session.send(to_proxy::Message::Records(records)).await;
    let taken = from_proxy::Message::RecordsTaken(RecordsTaken { nonce: 7 });
    assert_eq!(session.next().await, Some(taken));
    assert_eq!(world.records.len(), 1);
    drop(session);
    world.connected(false).await;
    assert_eq!(world.records.len(), 1, "a control plane that is away takes no name away");
}
