//! The authority of a MeshIdentity: given with it, or made here and kept in two Secrets.

use identity::{Authority, TrustDomain};
use jiff::Timestamp;
use kinds::{DataSource, DataSourceType, mesh_identity::Bundled, secret::Secret};
use resource::Resource;
use std::{collections::BTreeMap, sync::Arc};

/// The Secrets of an authority that is made here, after the display name of its MeshIdentity.
pub(super) const SUFFIXES: [&str; 2] = ["-root-ca", "-private-key"];

/// Why there is no authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAuthority {
    #[error("the Secret {missing:?} is missing, while {present:?} is there")]
    Half { present: String, missing: String },
    #[error("the Secret {0:?} is missing")]
    NoSecret(String),
    #[error("the Secret {0:?} is not text")]
    NotText(String),
    #[error("the file {path:?} cannot be read: {reason}")]
    File { path: String, reason: String },
    #[error("data of type {0:?} cannot be read here: only File, Secret and InsecureInline can")]
    Source(DataSourceType),
    #[error("{0}")]
    Unusable(String),
    #[error("the authority's certificate expired at {0}")]
    Expired(Timestamp),
    #[error("the authority is self-signed, which insecureAllowSelfSigned does not allow")]
    SelfSigned,
    #[error(
        "the Secrets of {0:?} belong to another MeshIdentity of the mesh with this display name"
    )]
    NameTaken(String),
}

impl NoAuthority {
    /// Whether what was there before goes on: nobody wanted this.
    pub(super) const fn is_damage(&self) -> bool {
        match self {
            Self::Half { .. }
            | Self::NoSecret(_)
            | Self::NotText(_)
            | Self::File { .. }
            | Self::Unusable(_) => true,
            Self::Source(_) | Self::Expired(_) | Self::SelfSigned | Self::NameTaken(_) => false,
        }
    }
}

/// What became of the search for an authority.
pub(super) enum Found {
    /// It is there.
    There(Arc<Authority>),
    /// It was made, and is to be kept in these Secrets: certificate and key.
    Made([(String, String); 2]),
}

/// Reads authorities; those whose text did not change are not read again.
#[derive(Debug, Default)]
pub(super) struct Cache(BTreeMap<String, (String, String, Arc<Authority>)>);

impl Cache {
    fn read(
        &mut self,
        name: &str,
        certificate: &str,
        key: &str,
    ) -> Result<Arc<Authority>, NoAuthority> {
        if let Some((old_certificate, old_key, authority)) = self.0.get(name)
            && (&**old_certificate, &**old_key) == (certificate, key)
        {
            return Ok(authority.clone());
        }
        let authority = Authority::from_pem(certificate, key)
            .map_err(|error| NoAuthority::Unusable(error.to_string()))?;
        let authority = Arc::new(authority);
        self.0.insert(name.into(), (certificate.into(), key.into(), authority.clone()));
        Ok(authority)
    }
}

/// The Secrets of the mesh.
pub(super) type Secrets<'a> = dyn Fn(&str) -> Option<Arc<Resource>> + 'a;

/// The files of the control plane, as text.
pub(super) type Files = fn(&str) -> Result<String, String>;

/// Where the text of an authority may be.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) secrets: &'a Secrets<'a>,
    pub(super) files: Files,
}

/// Whose authority is looked for.
pub(super) struct Search<'a> {
    /// A name for the cache: mesh and MeshIdentity.
    pub(super) name: &'a str,
    pub(super) display_name: &'a str,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) now: Timestamp,
}

impl Search<'_> {
    /// The authority that `bundled` asks for.
    pub(super) fn find(
        &self,
        bundled: &Bundled,
        sources: Sources<'_>,
        cache: &mut Cache,
    ) -> Result<Found, NoAuthority> {
        let authority = if bundled.autogenerates() {
            let names = SUFFIXES.map(|suffix| format!("{}{suffix}", self.display_name));
            match names.each_ref().map(|name| (sources.secrets)(name)) {
                [None, None] => return self.make(names),
                [Some(certificate), Some(key)] => {
                    let [certificate_name, key_name] = &names;
                    let certificate = text(&certificate, certificate_name)?;
                    cache.read(self.name, &certificate, &text(&key, key_name)?)?
                }
                [certificate, _] => {
                    let [one, other] = names;
                    let there = certificate.is_some();
                    let (present, missing) = if there { (one, other) } else { (other, one) };
                    return Err(NoAuthority::Half { present, missing });
                }
            }
        } else {
            let ca = bundled.ca.as_ref();
            let certificate = given(ca.and_then(|ca| ca.certificate.as_ref()), sources)?;
            let key = given(ca.and_then(|ca| ca.private_key.as_ref()), sources)?;
            let authority = cache.read(self.name, &certificate, &key)?;
            if authority.is_self_signed() && bundled.insecure_allow_self_signed != Some(true) {
                return Err(NoAuthority::SelfSigned);
            }
            authority
        };
        if authority.not_after() <= self.now {
            return Err(NoAuthority::Expired(authority.not_after()));
        }
        Ok(Found::There(authority))
    }

    fn make(&self, names: [String; 2]) -> Result<Found, NoAuthority> {
        let authority = Authority::generate(self.trust_domain, self.now)
            .map_err(|error| NoAuthority::Unusable(error.to_string()))?;
        let [certificate, key] = names;
        Ok(Found::Made([
            (certificate, authority.certificate_pem().to_owned()),
            (key, authority.key_pem().to_owned()),
        ]))
    }
}

fn given(source: Option<&DataSource>, sources: Sources<'_>) -> Result<String, NoAuthority> {
    let source = source.ok_or_else(|| NoAuthority::Unusable("no authority is given".into()))?;
    match source.kind {
        DataSourceType::InsecureInline => Ok(source
            .insecure_inline
            .as_ref()
            .map(|inline| inline.value.clone())
            .unwrap_or_default()),
        DataSourceType::Secret => {
            let name = source.secret_ref.as_ref().map(|secret| &*secret.name).unwrap_or_default();
            let secret =
                (sources.secrets)(name).ok_or_else(|| NoAuthority::NoSecret(name.into()))?;
            text(&secret, name)
        }
        DataSourceType::File => {
            let path = source.file.as_ref().map(|file| &*file.path).unwrap_or_default();
            let text = (sources.files)(path);
            text.map_err(|reason| NoAuthority::File { path: path.into(), reason })
        }
        DataSourceType::EnvVar => Err(NoAuthority::Source(source.kind)),
    }
}

fn text(secret: &Resource, name: &str) -> Result<String, NoAuthority> {
    let not_text = || NoAuthority::NotText(name.into());
    let secret = kinds::read::<Secret>(secret).map_err(|_| not_text())?;
    String::from_utf8(secret.data().to_vec()).map_err(|_| not_text())
}
