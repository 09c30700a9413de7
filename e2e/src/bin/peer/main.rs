//! Applications and clients of end-to-end tests: `peer http|grpc|tcp|count|last ADDRESS NAME`,
//! `peer names ADDRESS ANSWER`, `peer client`.

mod grpc;
mod socket;
mod web;

use anyhow::{Context, Result, bail};
use e2e::{
    peer::{Ask, Hello, Told},
    tls,
};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, HandshakeKind};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Runtime,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for what is large.
const LONG: Duration = Duration::from_secs(60);
/// How much is sent or read at once.
const BLOCK: usize = 64 * 1024;
/// A load leaves the machine some air between two requests.
const PAUSE: Duration = Duration::from_millis(2);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = Runtime::new()?;
    match *words {
        ["http", address, name] => runtime.block_on(web::serve(address, name)),
        ["grpc", address, name] => runtime.block_on(grpc::serve(address, name)),
        ["tcp", address, name] => runtime.block_on(tcp(address, name)),
        ["count", address, name] => runtime.block_on(count(address, name)),
        ["last", address, name] => runtime.block_on(last(address, name)),
        ["names", address, answer] => runtime.block_on(names(address, answer.parse()?)),
        ["client"] => client(&runtime),
        _ => bail!("peer http|grpc|tcp|count|last|names ADDRESS NAME, or peer client"),
    }
}

/// Greets, as a server that speaks first, and echoes.
async fn tcp(address: &str, name: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await.context(address.to_owned())?;
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await?;
        let greeting = format!("hello from {name}\n");
        connections.spawn(async move {
            stream.write_all(greeting.as_bytes()).await?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Reads all that comes, and only then says how much it was.
async fn count(address: &str, name: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await.context(address.to_owned())?;
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await?;
        let name = name.to_owned();
        connections.spawn(async move {
            let read = drain(&mut stream).await?;
            stream.write_all(format!("{name} got {read}\n").as_bytes()).await
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Greets, ends its own half at once, and logs how much comes on the other one.
#[expect(clippy::print_stdout, reason = "a test reads it")]
async fn last(address: &str, name: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await.context(address.to_owned())?;
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await?;
        let greeting = format!("the last word of {name}\n");
        connections.spawn(async move {
            stream.write_all(greeting.as_bytes()).await?;
            stream.shutdown().await?;
            println!("got {}", drain(&mut stream).await?);
            io::Result::Ok(())
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Reads to the end, and says how much it was.
async fn drain(stream: &mut TcpStream) -> io::Result<u64> {
    let mut bytes = vec![0; BLOCK];
    let mut total = 0;
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}

/// Answers every question for an IPv4 address with the same one, and others with none.
async fn names(address: &str, answer: Ipv4Addr) -> Result<()> {
    let socket = UdpSocket::bind(address).await.context(address.to_owned())?;
    let mut bytes = [0; 512];
    loop {
        let (read, from) = socket.recv_from(&mut bytes).await?;
        let query = bytes.get(..read).unwrap_or_default();
        if let Some(reply) = reply(query, answer) {
            socket.send_to(&reply, from).await?;
        }
    }
}

fn reply(query: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let labels = query.get(HEADER..)?;
    // The name ends with an empty label; its type and class follow.
    let mut end = 0;
    while let length @ 1.. = *labels.get(end)? {
        end += usize::from(length) + 1;
    }
    let question = labels.get(..end + 5)?;
    let is_ipv4 = question.get(end + 1..end + 3)? == [0, 1];
    // An authoritative answer without error, with one question and its answers.
    let mut reply = query.get(..2)?.to_vec();
    reply.extend([0x84, 0, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    reply.extend(question);
    if is_ipv4 {
        // The name of the question, an address, for a minute.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(answer.octets());
    }
    Some(reply)
}

/// A connection, with TLS or without.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

#[derive(Default)]
struct Client {
    to: String,
    /// How it made its connection, if that has TLS.
    tls: Option<(Arc<ClientConfig>, Hello)>,
    http: Option<SendRequest<Full<Bytes>>>,
    tcp: Option<Box<dyn Wire>>,
    load: Option<(watch::Sender<bool>, JoinHandle<Told>)>,
}

#[expect(clippy::print_stdout, reason = "its answers go to a pipe")]
fn client(runtime: &Runtime) -> Result<()> {
    let mut client = Client::default();
    for line in io::stdin().lock().lines() {
        let ask: Ask = serde_json::from_str(&line?)?;
        let start = now();
        let limit = if matches!(ask, Ask::Pour { .. }) { LONG } else { PATIENCE };
        let outcome = runtime.block_on(async { timeout(limit, client.act(ask)).await });
        let mut told = match outcome {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => Told { error: format!("{error:#}"), ..Told::default() },
            Err(_) => Told { error: format!("nothing within {limit:?}"), ..Told::default() },
        };
        told.micros = micros(start);
        told.open =
            client.http.as_ref().is_some_and(|http| !http.is_closed()) || client.tcp.is_some();
        println!("{}", serde_json::to_string(&told)?);
        io::stdout().flush()?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn now() -> Instant {
    Instant::now()
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn dial(to: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn speak(wire: impl Wire + 'static) -> Result<SendRequest<Full<Bytes>>> {
    let (http, connection) = http1::handshake(TokioIo::new(wire)).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
    tokio::spawn(async move { connection.await.ok() });
    Ok(http)
}

type Headers = BTreeMap<String, String>;

async fn get(
    http: &mut SendRequest<Full<Bytes>>,
    to: &str,
    path: &str,
    headers: &Headers,
) -> Result<Told> {
    http.ready().await?;
    let mut request = Request::get(path);
    if !headers.contains_key("host") {
        request = request.header("host", to);
    }
    for (key, value) in headers {
        request = request.header(key, value);
    }
    let request = request.body(Full::default())?;
    let response = http.send_request(request).await?;
    let status = Some(response.status().as_u16());
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Told { status, body: String::from_utf8_lossy(&body).into_owned(), ..Told::default() })
}

impl Client {
    async fn act(&mut self, ask: Ask) -> Result<Told> {
        match ask {
            Ask::Connect { to } => {
                (self.http, self.tcp) = (None, None);
                self.tcp = Some(Box::new(dial(&to).await?));
                self.to = to;
                Ok(Told::default())
            }
            Ask::Secure { to, hello } => {
                self.tls = Some((tls::client(&hello)?, hello));
                self.to = to;
                self.secure().await
            }
            Ask::Resume => self.secure().await,
            Ask::Get { path, headers } => {
                // The first request decides that the connection speaks HTTP.
                if let Some(tcp) = self.tcp.take() {
                    self.http = Some(speak(tcp).await?);
                }
                let http = self.http.as_mut().context("not connected")?;
                get(http, &self.to, &path, &headers).await
            }
            Ask::Read => {
                let mut bytes = [0; 1024];
                let read = self.tcp()?.read(&mut bytes).await;
                self.got(read, &bytes)
            }
            Ask::Echo { text } => {
                let mut bytes = vec![0; text.len()];
                let tcp = self.tcp()?;
                let read = match tcp.write_all(text.as_bytes()).await {
                    Ok(()) => tcp.read_exact(&mut bytes).await,
                    Err(error) => Err(error),
                };
                self.got(read, &bytes)
            }
            Ask::Pour { bytes } => self.pour(bytes).await,
            Ask::Talk { to, words } => grpc::talk(&to, &words).await,
            Ask::Chat { to, words } => socket::chat(&to, &words).await,
            Ask::Load => {
                let (stop, stopped) = watch::channel(false);
                let to = self.to.clone();
                #[expect(clippy::disallowed_methods, reason = "joined when the load is stopped")]
                let load = tokio::spawn(load(to, stopped));
                self.load = Some((stop, load));
                Ok(Told::default())
            }
            Ask::Stop => {
                let (stop, load) = self.load.take().context("there is no load")?;
                stop.send_replace(true);
                Ok(load.await?)
            }
        }
    }

    async fn secure(&mut self) -> Result<Told> {
        (self.http, self.tcp) = (None, None);
        let (config, hello) = self.tls.as_ref().context("no connection had TLS")?;
        let tcp = dial(&self.to).await?;
        let name = tls::server_name(hello, tcp.peer_addr()?.ip())?;
        let wire = TlsConnector::from(config.clone()).connect(name, tcp).await?;
        let resumed = wire.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        self.tcp = Some(Box::new(wire));
        Ok(Told { resumed, ..Told::default() })
    }

    async fn pour(&mut self, bytes: u64) -> Result<Told> {
        let mut tcp = self.tcp.take().context("not connected")?;
        let block = vec![0; BLOCK];
        let mut left = bytes;
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            tcp.write_all(block.get(..size).unwrap_or_default()).await?;
            left -= size as u64;
        }
        tcp.shutdown().await?;
        let mut body = String::new();
        tcp.read_to_string(&mut body).await?;
        Ok(Told { body, ..Told::default() })
    }

    fn tcp(&mut self) -> Result<&mut Box<dyn Wire>> {
        self.tcp.as_mut().context("not connected")
    }

    fn got(&mut self, read: io::Result<usize>, bytes: &[u8]) -> Result<Told> {
        match read {
            Ok(0) => {
                self.tcp = None;
                bail!("the connection was closed")
            }
            Ok(read) => {
                let body = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default());
                Ok(Told { body: body.into_owned(), ..Told::default() })
            }
            Err(error) => {
                self.tcp = None;
                Err(error.into())
            }
        }
    }
}

/// Requests one after the other, on one connection as long as it lives.
async fn load(to: String, stopped: watch::Receiver<bool>) -> Told {
    let (mut total, mut http) = (Told::default(), None);
    let mut pause = interval(PAUSE);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = now();
    while !*stopped.borrow() {
        pause.tick().await;
        let start = now();
        let answer = async {
            let connection = match http.take().filter(|http: &SendRequest<_>| !http.is_closed()) {
                Some(connection) => connection,
                None => {
                    total.opened += 1;
                    speak(dial(&to).await?).await?
                }
            };
            let connection = http.insert(connection);
            get(connection, &to, "/load", &Headers::new()).await
        };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(told)) if told.status == Some(200) => {
                total.good += 1;
                total.gap = total.gap.max(micros(last));
                last = now();
                *total.by.entry(name(&told.body)).or_default() += 1;
            }
            Ok(Ok(told)) => {
                total.bad += 1;
                total.error = format!("{:?}: {}", told.status, told.body);
            }
            Ok(Err(error)) => {
                total.bad += 1;
                total.error = format!("{error:#}");
                http = None;
            }
            Err(_) => {
                total.bad += 1;
                total.error = "no answer".into();
                http = None;
            }
        }
        total.slowest = total.slowest.max(micros(start));
    }
    total.gap = total.gap.max(micros(last));
    // What failed is in the count; an error is for an ask that failed as a whole.
    total.body = std::mem::take(&mut total.error);
    total
}

/// Which application answered.
fn name(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let name = body.get("name").and_then(serde_json::Value::as_str);
    name.unwrap_or_default().to_owned()
}
