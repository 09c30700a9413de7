//! The files of a server's certificate: given ones, and those that we make.

use super::{Ending, Role, TlsError};
use crate::{
    Authority,
    authority::{certificates, not_after, renewal},
};
use jiff::Timestamp;
use rcgen::SanType;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

/// How long a certificate is valid that we make for ourselves.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A file, and the setting that names it.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) setting: String,
    pub(super) path: PathBuf,
}

impl Named {
    pub(super) fn new(setting: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { setting: setting.into(), path: path.into() }
    }

    /// What changes when somebody writes or replaces the file.
    pub(super) fn mark(&self) -> Option<(u64, i64, i64, u64)> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
    }

    pub(super) fn read(&self) -> Result<String, TlsError> {
        fs::read_to_string(&self.path).map_err(|source| {
            let Self { setting, path } = self.clone();
            TlsError::Read { setting, path, source }
        })
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        match certificates(&self.read()?) {
            Some(chain) if !chain.is_empty() => Ok(chain),
            _ => {
                let Self { setting, path } = self.clone();
                Err(TlsError::NoCertificate { setting, path })
            }
        }
    }

    /// When each of its certificates ends. What cannot be read was said when it was loaded.
    pub(super) fn endings(&self, role: Role, renewed: bool) -> Vec<Ending> {
        let ending = |not_after| Ending { setting: self.setting.clone(), role, not_after, renewed };
        let chain = self.certificates().unwrap_or_default();
        chain.iter().filter_map(not_after).map(ending).collect()
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(self.read()?.as_bytes()).map_err(|_| {
            let Self { setting, path } = self.clone();
            TlsError::NoKey { setting, path }
        })
    }

    /// Other processes see the old file or the new one, never a part.
    fn write(&self, content: &str, mode: u32) -> Result<(), TlsError> {
        let beside = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            // What a crash left behind may have another mode.
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)?;
            self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        write().map_err(|source| {
            let Self { setting, path } = self.clone();
            TlsError::Write { setting, path, source }
        })
    }
}

/// Reads a certificate and its key.
pub(super) fn load(certificate: &Named, key: &Named) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificate.certificates()?;
    let provider = super::provider();
    let signing = provider.key_provider.load_private_key(key.key()?).map_err(|_| {
        let Named { setting, path } = key.clone();
        TlsError::NoKey { setting, path }
    })?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        Ok(()) => Ok(Arc::new(pair)),
        Err(_) => Err(TlsError::Mismatch {
            setting: key.setting.clone(),
            key: key.path.clone(),
            certificate: certificate.path.clone(),
        }),
    }
}

/// The certificate that a server makes for itself, and the authority that signs it.
#[derive(Clone, Debug)]
pub(super) struct SelfMade {
    pub(super) authority: Named,
    authority_key: Named,
    pub(super) certificate: Named,
    pub(super) key: Named,
    names: BTreeSet<String>,
}

impl SelfMade {
    /// Those in the folder `tls` of a data directory, for a server with these names.
    pub(super) fn new(data: &Path, names: &[String]) -> Self {
        let file = |name| Named::new("dataDir", data.join("tls").join(name));
        let mut names: BTreeSet<String> =
            names.iter().map(|name| name.to_ascii_lowercase()).collect();
        names.extend(["localhost", "127.0.0.1", "::1"].map(String::from));
        // Unknown on other systems, where it can be configured.
        if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
            names.insert(host.trim().to_ascii_lowercase());
        }
        Self {
            authority: file("ca.crt"),
            authority_key: file("ca.key"),
            certificate: file("server.crt"),
            key: file("server.key"),
            names,
        }
    }

    /// Makes what is missing or outlived. Returns when to call again.
    pub(super) fn ensure(&self, now: Timestamp) -> Result<Timestamp, TlsError> {
        let mut names = self.names.clone();
        if let Some(has) = self.usable(now) {
            if names.is_subset(&has.names) {
                return Ok(has.renew_at);
            }
            // Another server of the process shares the certificate.
            names.extend(has.names);
        }
        let authority = self.authority(now)?;
        let sans = names.iter().filter_map(|name| san(name)).collect();
        let (chain, key) =
            authority.issue_server(sans, now, LIFE).map_err(|source| self.broken(source))?;
        self.key.write(&key, 0o600)?;
        self.certificate.write(&chain, 0o644)?;
        Ok(self.usable(now).map_or(now, |has| has.renew_at))
    }

    fn authority(&self, now: Timestamp) -> Result<Authority, TlsError> {
        if self.authority.path.exists() {
            let (certificate, key) = (self.authority.read()?, self.authority_key.read()?);
            return Authority::from_pem(&certificate, &key).map_err(|source| self.broken(source));
        }
        let authority = Authority::for_servers("Atoll control plane", now)
            .map_err(|source| self.broken(source))?;
        if let Some(folder) = self.authority.path.parent() {
            fs::create_dir_all(folder).map_err(|source| TlsError::Write {
                setting: self.authority.setting.clone(),
                path: folder.to_owned(),
                source,
            })?;
        }
        // The certificate last: without it nobody trusts the key, and both are made anew.
        self.authority_key.write(authority.key_pem(), 0o600)?;
        self.authority.write(authority.certificate_pem(), 0o644)?;
        Ok(authority)
    }

    fn broken(&self, source: crate::AuthorityError) -> TlsError {
        let Named { setting, path } = self.authority.clone();
        TlsError::Authority { setting, path, source }
    }

    /// What the certificate is good for, if it is the authority's and not too old.
    fn usable(&self, now: Timestamp) -> Option<Usable> {
        load(&self.certificate, &self.key).ok()?;
        let chain = self.certificate.certificates().ok()?;
        let authority = self.authority.certificates().ok()?;
        let (_, own) = X509Certificate::from_der(chain.first()?).ok()?;
        let (_, authority) = X509Certificate::from_der(authority.first()?).ok()?;
        own.verify_signature(Some(authority.public_key())).ok()?;
        let instant = |second| Timestamp::from_second(second).ok();
        let renew_at = renewal(
            instant(own.validity().not_before.timestamp())?,
            instant(own.validity().not_after.timestamp())?,
        );
        let sans = own.subject_alternative_name().ok()??;
        let names = sans.value.general_names.iter().filter_map(name).collect();
        (now < renew_at).then_some(Usable { names, renew_at })
    }
}

struct Usable {
    names: BTreeSet<String>,
    renew_at: Timestamp,
}

pub(crate) fn san(name: &str) -> Option<SanType> {
    match name.parse::<IpAddr>() {
        Ok(address) => Some(SanType::IpAddress(address)),
        Err(_) => Some(SanType::DnsName(name.try_into().ok()?)),
    }
}

pub(crate) fn name(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some((*name).to_owned());
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()?;
    Some(address.to_string())
}
