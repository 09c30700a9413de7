//! Names of others: several upstream servers, with time-outs, TCP where UDP does not suffice, and a
//! cache.

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::Record,
};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    system_conf,
};
use parking_lot::Mutex;
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout},
};

/// How many queries may wait for upstream servers at once.
const WAITING: usize = 1024;
/// After this the next server is asked too.
const LONG: Duration = Duration::from_millis(300);
const PORT: u16 = 53;
const CACHED: u64 = 8192;
/// However little an upstream server thinks of change: names of others move too.
const POSITIVE_MAX_TTL: Duration = Duration::from_secs(3600);
const NEGATIVE_MAX_TTL: Duration = Duration::from_secs(60);
/// How often the system's list of servers is looked at; laptops and containers change networks.
const LOOK: Duration = Duration::from_secs(5);

/// Which servers are asked.
#[derive(Clone, Debug)]
pub(crate) enum Upstreams {
    /// These.
    Listed(Vec<SocketAddr>),
    /// Those that a file in the format of `resolv.conf` names, except ourselves.
    System {
        /// The file.
        file: PathBuf,
        /// Our address.
        except: SocketAddr,
    },
}

/// Asks upstream servers.
pub(crate) struct Forwarder {
    upstreams: Upstreams,
    patience: Duration,
    waiting: Semaphore,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    looked: Option<Instant>,
    modified: Option<SystemTime>,
    servers: Arc<Servers>,
}

/// One resolver for each server, because one that has several gives up when the first of them
/// says that it failed.
#[derive(Default)]
struct Servers {
    resolvers: Vec<Arc<TokioResolver>>,
    /// The one that answered last is asked first.
    first: AtomicUsize,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").field("upstreams", &self.upstreams).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// A forwarder that gives each server `patience`, and a query twice that: less than the time
    /// after which clients give up.
    pub(crate) fn new(upstreams: Upstreams, patience: Duration) -> Self {
        let (waiting, current) = (Semaphore::new(WAITING), Mutex::default());
        Self { upstreams, patience, waiting, current }
    }

    fn servers(&self) -> Arc<Servers> {
        let mut current = self.current.lock();
        let now = Instant::now();
        match &self.upstreams {
            Upstreams::Listed(servers) if current.looked.is_none() => {
                current.looked = Some(now);
                current.servers = Servers::new(servers, self.patience);
            }
            Upstreams::System { file, except }
                if current.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK) =>
            {
                let modified = fs::metadata(file).and_then(|file| file.modified()).ok();
                if current.looked.is_none() || modified != current.modified {
                    let mut servers = nameservers(&fs::read(file).unwrap_or_default());
                    servers.retain(|server| server != except);
                    let file = file.display();
                    tracing::info!(%file, ?servers, "upstream servers of the system");
                    current.modified = modified;
                    current.servers = Servers::new(&servers, self.patience);
                }
                current.looked = Some(now);
            }
            Upstreams::Listed(_) | Upstreams::System { .. } => {}
        }
        current.servers.clone()
    }

    /// Completes `response` with what upstream servers say to `query`.
    pub(crate) async fn complete(&self, query: Query, mut response: Message) -> Message {
        match self.look_up(&query).await {
            Ok((code, answers, authorities)) => {
                response.metadata.response_code = code;
                response.add_answers(answers);
                response.add_authorities(authorities);
            }
            Err(reason) => {
                tracing::debug!(%query, %reason, "query was not answered by an upstream server");
                response.metadata.response_code = ResponseCode::ServFail;
            }
        }
        response
    }

    async fn look_up(&self, query: &Query) -> Result<Said, Unanswered> {
        let _place = self.waiting.try_acquire().map_err(|_| Unanswered::TooMany)?;
        let servers = self.servers();
        let looked_up = servers.ask(query);
        timeout(self.patience.saturating_mul(2), looked_up).await.map_err(|_| Unanswered::Late)?
    }
}

/// What an upstream server said: response code, answers, authorities.
type Said = (ResponseCode, Vec<Record>, Vec<Record>);

impl Servers {
    fn new(upstreams: &[SocketAddr], patience: Duration) -> Arc<Self> {
        let resolvers = upstreams.iter().filter_map(|server| {
            let built = resolver(*server, patience);
            let built = built.inspect_err(|error| tracing::error!(%server, %error, "no resolver"));
            built.ok().map(Arc::new)
        });
        Arc::new(Self { resolvers: resolvers.collect(), first: AtomicUsize::new(0) })
    }

    /// Asks one server after the other: the next one when one fails, or takes long.
    async fn ask(&self, query: &Query) -> Result<Said, Unanswered> {
        let count = self.resolvers.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut next = (0..count).map(|i| (first + i) % count);
        let mut asked = JoinSet::new();
        let mut failure = Unanswered::NoServers;
        loop {
            let started = next.next().and_then(|i| Some((i, self.resolvers.get(i)?.clone())));
            let all = started.is_none();
            if let Some((i, resolver)) = started {
                let query = query.clone();
                asked.spawn(async move { (i, ask(&resolver, &query).await) });
            }
            let joined = match timeout(LONG, asked.join_next()).await {
                Err(_) if all => asked.join_next().await,
                Err(_) => continue,
                Ok(joined) => joined,
            };
            match joined {
                Some(Ok((i, Ok(said)))) => {
                    self.first.store(i, Ordering::Relaxed);
                    return Ok(said);
                }
                Some(Ok((_, Err(error)))) => failure = error,
                Some(Err(_)) => {}
                None if all => return Err(failure),
                None => {}
            }
        }
    }
}

async fn ask(resolver: &TokioResolver, query: &Query) -> Result<Said, Unanswered> {
    let mut name = query.name().clone();
    // Otherwise the search list would be tried.
    name.set_fqdn(true);
    match resolver.lookup(name, query.query_type()).await {
        Ok(lookup) => Ok((ResponseCode::NoError, lookup.answers().to_vec(), Vec::new())),
        Err(NetError::Dns(DnsError::NoRecordsFound(negative))) => {
            let soa = negative.soa.map(|soa| (*soa).into_record_of_rdata());
            Ok((negative.response_code, Vec::new(), soa.into_iter().collect()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Why a query is answered with SERVFAIL.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("there are no upstream servers")]
    NoServers,
    #[error("too many queries wait")]
    TooMany,
    #[error("no upstream server answered in time")]
    Late,
    #[error(transparent)]
    Failed(#[from] NetError),
}

/// The servers that a file in the format of `resolv.conf` names.
pub(crate) fn nameservers(resolv_conf: &[u8]) -> Vec<SocketAddr> {
    let parsed = system_conf::parse_resolv_conf(resolv_conf);
    let servers = parsed.map(|(config, _)| config.name_servers().to_vec()).unwrap_or_default();
    servers.iter().map(|server| SocketAddr::new(server.ip, PORT)).collect()
}

fn resolver(upstream: SocketAddr, patience: Duration) -> Result<TokioResolver, NetError> {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = upstream.port();
        connection
    };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port);
    let server = NameServerConfig::new(upstream.ip(), true, connections.into());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = patience;
    options.attempts = 1;
    options.ndots = 0;
    options.edns0 = true;
    options.cache_size = CACHED;
    options.positive_max_ttl = Some(POSITIVE_MAX_TTL);
    options.negative_max_ttl = Some(NEGATIVE_MAX_TTL);
    options.use_hosts_file = ResolveHosts::Never;
    // CNAMEs on the way are part of the answer.
    options.preserve_intermediates = true;
    options.try_tcp_on_error = true;
    builder.build()
}
