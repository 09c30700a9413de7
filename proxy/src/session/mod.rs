//! The session with the zone's control plane: one stream, opened anew whenever it ends.

mod dial;
mod ended;
#[cfg(test)]
mod tests;

pub(crate) use self::{dial::Tls, ended::SessionEnded};

use crate::{
    envoy::{Admin, What},
    records,
    state::Contact,
    workdir::{Workdir, WorkdirError},
};
use daemon::{Backoff, Ready};
use proto::atoll::proxy::v1::{
    AdminAnswer, AdminRequest, FromProxy, Hello, Leaving, Pong, RecordsTaken, State, ToProxy,
    Token, Welcome, admin_answer, admin_request, from_proxy, proxies_client::ProxiesClient,
    to_proxy,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Streaming, metadata::MetadataValue, transport::Channel};
use tracing::{debug, info, warn};

/// What a connection, and then the welcome, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the control plane has to end the stream of a proxy that leaves.
const FAREWELL: Duration = Duration::from_secs(2);
/// The largest message of the control plane: a bootstrap, or many records.
const LARGEST_MESSAGE: usize = 16 << 20;
/// The largest answer of Envoy that is passed on.
pub(crate) const LARGEST_ANSWER: usize = 15 << 20;
/// Requests for Envoy that run at once.
const REQUESTS: usize = 4;
/// Messages on their way; all but the state are answers, which the control plane asked for.
const QUEUE: usize = 16;
/// A token file is not larger.
const LARGEST_TOKEN: usize = 16 << 10;

/// Opens connections to the control plane.
pub(crate) trait Dial: Send + 'static {
    /// A new connection.
    fn dial(&self) -> impl Future<Output = Result<Channel, DialError>> + Send;
}

/// Why there is no connection.
pub(crate) type DialError = Box<dyn std::error::Error + Send + Sync>;

/// What a session ended with, other than an error.
#[derive(Debug, PartialEq, Eq)]
struct Left;

/// See the module.
pub(crate) struct Session<D, A> {
    pub(crate) dial: D,
    /// Without a state.
    pub(crate) hello: Hello,
    pub(crate) token_file: PathBuf,
    /// A token that came over the session, and the one of the file that it replaces.
    pub(crate) renewed: Option<(String, String)>,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) workdir: Workdir,
    /// Turns true with the first welcome.
    pub(crate) configured: watch::Sender<bool>,
    /// How it stands with the control plane.
    pub(crate) contact: watch::Sender<Contact>,
    /// Shows why there is none, and what the control plane says is wrong.
    pub(crate) ready: Ready,
    pub(crate) admin: Arc<A>,
    /// Set if names are answered here.
    pub(crate) records: Option<Arc<dns::Records>>,
}

impl<D: Dial, A: Admin> Session<D, A> {
    /// Keeps a session until `leave` is cancelled, then says good-bye. It fails if there was none yet
    /// and cannot be one with the settings that there are.
    pub(crate) async fn run(mut self, leave: CancellationToken) -> Result<(), SessionEnded> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        let mut said = String::new();
        loop {
            let ended = self.once(&leave, &mut backoff, &mut said).await;
            let Err(error) = ended else { return Ok(()) };
            let began = *self.configured.borrow();
            if error.is_final(began) {
                return Err(error);
            }
            // The same again and again says nothing new.
            say_once(&mut said, &error);
            self.ready.show("session", vec![chain(&error)]);
            self.contact.send_modify(|contact| contact.connected = false);
            let next = Instant::now() + backoff.next(fastrand::f64());
            tokio::select! {
                biased;
                () = leave.cancelled() => return Ok(()),
                () = sleep_until(next) => {}
            }
        }
    }

    async fn once(
        &mut self,
        leave: &CancellationToken,
        backoff: &mut Backoff,
        said: &mut String,
    ) -> Result<Left, SessionEnded> {
        let opened = tokio::select! {
            biased;
            () = leave.cancelled() => return Ok(Left),
            opened = timeout(PATIENCE, self.open()) => opened.map_err(|_| SessionEnded::Late)??,
        };
        let (mut stream, to_peer, welcome) = opened;
        self.welcomed(&welcome)?;
        backoff.made_progress();
        said.clear();
        info!("session with the control plane begun");
        // It says again what is still wrong.
        self.ready.show("session", Vec::new());
        self.ready.show("proxy", Vec::new());
        self.contact.send_replace(Contact { connected: true, ..Contact::default() });
        self.serve(&mut stream, to_peer, leave).await
    }

    /// Connects, says hello and waits for the welcome.
    async fn open(
        &mut self,
    ) -> Result<(Streaming<ToProxy>, mpsc::Sender<FromProxy>, Welcome), SessionEnded> {
        let token = self.token()?;
        let channel = self.dial.dial().await.map_err(SessionEnded::Connect)?;
        let mut client = ProxiesClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        let (to_peer, messages) = mpsc::channel(QUEUE);
        let state = Some(self.state.borrow_and_update().clone());
        let hello = from_proxy::Message::Hello(Hello { state, ..self.hello.clone() });
        to_peer.try_send(from(hello)).map_err(|_| SessionEnded::Stuck)?;
        let mut request = Request::new(ReceiverStream::new(messages));
        let credential: MetadataValue<_> = format!("Bearer {token}")
            .parse()
            .map_err(|_| SessionEnded::NotAToken(self.token_file.clone()))?;
        request.metadata_mut().insert("authorization", credential);
        let answer = client.session(request).await.map_err(SessionEnded::Refused)?;
        let mut stream = answer.into_inner();
        let to_proxy::Message::Welcome(welcome) = next(&mut stream).await? else {
            return Err(SessionEnded::NoWelcome);
        };
        Ok((stream, to_peer, welcome))
    }

    /// What the file says, or the token that came for what the file says.
    fn token(&self) -> Result<String, SessionEnded> {
        let token = token(&self.token_file)?;
        match &self.renewed {
            Some((replaced, renewed)) if *replaced == token => Ok(renewed.clone()),
            Some(_) | None => Ok(token),
        }
    }

    fn welcomed(&self, welcome: &Welcome) -> Result<(), WorkdirError> {
        self.write(&welcome.files)?;
        // An Envoy that runs keeps the one it began with; the next one begins with this.
        self.workdir.write_bootstrap(&welcome.bootstrap)?;
        self.configured.send_replace(true);
        Ok(())
    }

    fn write(&self, files: &BTreeMap<String, Vec<u8>>) -> Result<(), WorkdirError> {
        files.iter().try_for_each(|(name, content)| self.workdir.write(name, content))
    }

    fn renew(&mut self, token: Token) -> Result<(), SessionEnded> {
        self.write(&token.files)?;
        let replaced = std::fs::read_to_string(&self.token_file)
            .map_err(|source| SessionEnded::Token { path: self.token_file.clone(), source })?;
        self.renewed = Some((replaced.trim().to_owned(), token.token));
        Ok(())
    }

    async fn serve(
        &mut self,
        stream: &mut Streaming<ToProxy>,
        to_peer: mpsc::Sender<FromProxy>,
        leave: &CancellationToken,
    ) -> Result<Left, SessionEnded> {
        let mut problems = BTreeSet::new();
        let mut answers = JoinSet::new();
        loop {
            // All branches are cancel safe: none loses what it has not returned.
            tokio::select! {
                biased;
                () = leave.cancelled() => return farewell(stream, to_peer).await,
                message = next(stream) => match message? {
                    to_proxy::Message::Welcome(welcome) => self.welcomed(&welcome)?,
                    to_proxy::Message::Problems(now) => {
                        self.ready.show("proxy", now.problems.clone());
                        say(&mut problems, now.problems);
                        let unready = !now.unready.is_empty();
                        self.contact.send_modify(|contact| contact.unready = unready);
                    }
                    to_proxy::Message::Token(token) => self.renew(token)?,
                    to_proxy::Message::Ping(_) => put(&to_peer, from_proxy::Message::Pong(Pong {}))?,
                    to_proxy::Message::Admin(request) if answers.len() >= REQUESTS => {
                        put(&to_peer, answer(request.id, Err("too many requests at once".into())))?;
                    }
                    to_proxy::Message::Admin(request) => {
                        let admin = self.admin.clone();
                        answers.spawn(async move { ask(&*admin, request).await });
                    }
                    to_proxy::Message::Records(message) => {
                        let nonce = message.nonce;
                        if let Some(records) = &self.records {
                            records::apply(records, message);
                        }
                        put(&to_peer, from_proxy::Message::RecordsTaken(RecordsTaken { nonce }))?;
                    }
                },
                // One that panicked has no answer.
                Some(answer) = answers.join_next(), if !answers.is_empty() => {
                    if let Ok(answer) = answer {
                        put(&to_peer, answer)?;
                    }
                }
                // `None` once the supervisor is gone: the process ends.
                Some(state) = self.changed(&to_peer) => {
                    put(&to_peer, from_proxy::Message::State(state))?;
                }
            }
        }
    }

    /// The state once it changed and there is room for it: a control plane that does not read is
    /// told the last one only.
    async fn changed(&mut self, to_peer: &mpsc::Sender<FromProxy>) -> Option<State> {
        if !self.state.has_changed().ok()? {
            // Looked at again in `borrow_and_update`, so that nothing between is missed.
            let mut waiting = self.state.clone();
            waiting.changed().await.ok()?;
        }
        drop(to_peer.reserve().await.ok()?);
        Some(self.state.borrow_and_update().clone())
    }
}

/// The token in a file.
pub(crate) fn token(path: &Path) -> Result<String, SessionEnded> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SessionEnded::Token { path: path.to_owned(), source })?;
    let token = text.trim();
    if token.is_empty()
        || token.len() > LARGEST_TOKEN
        || !token.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(SessionEnded::NotAToken(path.to_owned()));
    }
    Ok(token.to_owned())
}

async fn farewell(
    stream: &mut Streaming<ToProxy>,
    to_peer: mpsc::Sender<FromProxy>,
) -> Result<Left, SessionEnded> {
    put(&to_peer, from_proxy::Message::Leaving(Leaving {}))?;
    drop(to_peer);
    // Its end says that the proxy was withdrawn. Nothing else matters any more.
    let ended = async { while let Ok(Some(_)) = stream.message().await {} };
    if timeout(FAREWELL, ended).await.is_err() {
        warn!("the control plane does not confirm that this proxy left");
    }
    Ok(Left)
}

async fn next(stream: &mut Streaming<ToProxy>) -> Result<to_proxy::Message, SessionEnded> {
    loop {
        let message = stream.message().await.map_err(SessionEnded::Refused)?;
        // One that is newer than we are is none to us.
        if let Some(message) = message.ok_or(SessionEnded::Ended)?.message {
            return Ok(message);
        }
    }
}

const fn from(message: from_proxy::Message) -> FromProxy {
    FromProxy { message: Some(message) }
}

fn put(
    to_peer: &mpsc::Sender<FromProxy>,
    message: from_proxy::Message,
) -> Result<(), SessionEnded> {
    to_peer.try_send(from(message)).map_err(|_| SessionEnded::Stuck)
}

async fn ask(admin: &impl Admin, request: AdminRequest) -> from_proxy::Message {
    let what = match request.what() {
        admin_request::What::ConfigDump => What::ConfigDump,
        admin_request::What::Stats => What::Stats,
        admin_request::What::Clusters => What::Clusters,
    };
    let result = admin.fetch(what, &request.query).await;
    answer(request.id, result.map_err(|error| chain(&error)))
}

fn answer(id: String, result: Result<bytes::Bytes, String>) -> from_proxy::Message {
    let result = match result {
        Ok(body) => admin_answer::Result::Body(body.into()),
        Err(error) => admin_answer::Result::Error(error),
    };
    from_proxy::Message::Admin(AdminAnswer { id, result: Some(result) })
}

/// Logs what the control plane says is wrong, and what is not any more.
fn say(known: &mut BTreeSet<String>, now: Vec<String>) {
    let now: BTreeSet<String> = now.into_iter().collect();
    for problem in now.difference(known) {
        warn!(problem, "the control plane reports a problem of this proxy");
    }
    for problem in known.difference(&now) {
        info!(problem, "a problem of this proxy is solved");
    }
    *known = now;
}

fn say_once(said: &mut String, error: &SessionEnded) {
    let reason = chain(error);
    if *said == reason {
        debug!(reason, "no session with the control plane");
    } else {
        warn!(reason, "no session with the control plane");
        *said = reason;
    }
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
