//! What the control plane of a cluster is started with: keys, users, flags.

use crate::{
    keys::{Authority, write_signing_key},
    kubeconfig::Kubeconfig,
    programs::Programs,
};
use anyhow::{Result, bail};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, Stream, pki_types::pem::PemObject as _,
};
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// The port of the API server.
const PORT: u16 = 6443;
const ETCD: u16 = 2379;
const ETCD_PEERS: u16 = 2380;

/// The range of the addresses of Services; the first one is that of the API server.
const SERVICES: &str = "10.96.0.0/16";
const SERVER: &str = "10.96.0.1";

/// How long one look at a server may take.
const LOOK: Duration = Duration::from_secs(5);

/// A user of an API server: its token, its name, its group.
pub type User = (&'static str, &'static str, &'static str);

/// The administrator of every server.
pub const ADMINISTRATOR: User = ("administrator", "admin", "system:masters");

/// The control plane of a cluster, at an address of its own.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The programs that it runs.
    pub programs: Programs,
    /// Where it listens.
    pub address: Ipv4Addr,
    /// Its files.
    pub folder: PathBuf,
    /// The certificate that the server's descends from, as PEM.
    pub authority: String,
}

impl Setup {
    /// Makes keys and users; the administrator is one of them.
    pub fn new(folder: PathBuf, address: Ipv4Addr, users: &[User]) -> Result<Self> {
        let programs = Programs::find()?;
        let authority = Authority::new("cluster")?;
        let names = ["kubernetes.default.svc", "kubernetes.default", SERVER, &address.to_string()];
        authority.server(&names)?.write(&folder, "server")?;
        let authority = authority.certificate;
        fs::write(folder.join("ca.crt"), &authority)?;
        write_signing_key(&folder, "accounts")?;
        let users = [&[ADMINISTRATOR], users].concat();
        let lines = users.iter().zip(1..);
        let line =
            |((token, name, group), id): (&User, u32)| format!("{token},{name},{id},{group}\n");
        fs::write(folder.join("tokens.csv"), lines.map(line).collect::<String>())?;
        let this = Self { programs, address, folder, authority };
        for (token, name, _) in users {
            this.kubeconfig(token).write(&this.file(name))?;
        }
        Ok(this)
    }

    /// How a user with this token asks.
    #[must_use]
    pub fn kubeconfig(&self, token: &str) -> Kubeconfig {
        let server = format!("https://{}:{PORT}", self.address);
        Kubeconfig { server, authority: self.authority.clone(), token: token.to_owned() }
    }

    /// A file of its folder; the kubeconfig of a user has the user's name.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn flag(&self, flag: &str, file: &str) -> String {
        format!("--{flag}={}", self.file(file).display())
    }

    /// The flags of etcd.
    #[must_use]
    pub fn etcd(&self) -> Vec<String> {
        let clients = format!("http://{}:{ETCD}", self.address);
        let peers = format!("http://{}:{ETCD_PEERS}", self.address);
        vec![
            self.flag("data-dir", "etcd"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
        ]
    }

    /// The flags of kube-apiserver.
    #[must_use]
    pub fn server(&self) -> Vec<String> {
        vec![
            format!("--etcd-servers=http://{}:{ETCD}", self.address),
            format!("--bind-address={}", self.address),
            format!("--advertise-address={}", self.address),
            format!("--secure-port={PORT}"),
            self.flag("tls-cert-file", "server.crt"),
            self.flag("tls-private-key-file", "server.key"),
            self.flag("token-auth-file", "tokens.csv"),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            self.flag("service-account-signing-key-file", "accounts.key"),
            self.flag("service-account-key-file", "accounts.pub"),
            "--allow-privileged=true".to_owned(),
        ]
    }

    /// The flags of kube-controller-manager, which runs alone.
    #[must_use]
    pub fn controllers(&self) -> Vec<String> {
        vec![
            self.flag("kubeconfig", ADMINISTRATOR.1),
            "--leader-elect=false".to_owned(),
            // No port: several run beside each other.
            "--secure-port=0".to_owned(),
            self.flag("service-account-private-key-file", "accounts.key"),
            self.flag("root-ca-file", "ca.crt"),
        ]
    }

    /// Fails while the API server is not ready.
    pub fn ready(&self) -> Result<()> {
        let at = SocketAddr::from((self.address, PORT));
        let mut tcp = TcpStream::connect_timeout(&at, LOOK)?;
        tcp.set_read_timeout(Some(LOOK))?;
        let mut session = ClientConnection::new(trusting(&self.authority)?, at.ip().into())?;
        let mut stream = Stream::new(&mut session, &mut tcp);
        // Who is nobody may not ask before the roles of the start are there.
        write!(
            stream,
            "GET /readyz HTTP/1.0\r\nAuthorization: Bearer {}\r\n\r\n",
            ADMINISTRATOR.0
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.0 200") { Ok(()) } else { bail!("{answer}") }
    }
}

fn trusting(authority: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(Arc::new(config?.with_root_certificates(roots).with_no_client_auth()))
}

/// A loopback address whose ports are free. Each server has one of its own, so its ports are known
/// before it has them, and stay when it is started again.
pub(crate) fn free_address() -> Result<Ipv4Addr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Half of 127.0.0.0/8, 128 for each process.
    let process = (std::process::id() & 0xffff) << 7;
    for _ in 0..128 {
        let number = process | (NEXT.fetch_add(1, Ordering::Relaxed) & 0x7f);
        let address = Ipv4Addr::from_bits(0x7f80_0000 | number);
        let free = |port| TcpListener::bind((address, port)).is_ok();
        // The last address is that of the network.
        if address != Ipv4Addr::new(127, 255, 255, 255)
            && [PORT, ETCD, ETCD_PEERS].into_iter().all(free)
        {
            return Ok(address);
        }
    }
    bail!("no loopback address with free ports")
}
