//! The keys that sign and verify tokens.

use crate::pem::{self, Section};
use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::{KeySize, PublicKey},
    signature::{
        KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
        UnparsedPublicKey,
    },
};
use std::{collections::BTreeMap, fmt};
use x509_parser::der_parser::{asn1_rs::FromDer as _, asn1_rs::OctetString, asn1_rs::Sequence};
use zeroize::Zeroizing;

const PRIVATE: &str = "RSA PRIVATE KEY";
const PUBLIC: &str = "RSA PUBLIC KEY";

/// Why a key is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is not PEM of one RSA key.
    #[error("not an RSA key as PEM")]
    Malformed,
    /// Its content is damaged, or it has less than 2048 bits.
    #[error("the RSA key is damaged, or has less than 2048 bits")]
    Rejected,
    /// The machine could not make one.
    #[error("no key can be generated")]
    Generate,
}

/// A key that signs tokens: RSA with 2048 bits, in PKCS#1, as other control planes read it.
pub struct SigningKey {
    pair: RsaKeyPair,
    pem: Zeroizing<String>,
}

impl SigningKey {
    /// Makes a new key, which takes a few hundred milliseconds.
    pub fn generate() -> Result<Self, InvalidKey> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| InvalidKey::Generate)?;
        let pkcs8 = pair.as_der().map_err(|_| InvalidKey::Generate)?;
        let pkcs1 = pkcs1(pkcs8.as_ref()).ok_or(InvalidKey::Generate)?;
        Ok(Self { pair, pem: Zeroizing::new(pem::print(PRIVATE, &pkcs1)) })
    }

    /// Reads a private key.
    pub fn from_pem(text: &str) -> Result<Self, InvalidKey> {
        let pair = match section(text)? {
            (PRIVATE, der) => RsaKeyPair::from_der(&der),
            ("PRIVATE KEY", der) => RsaKeyPair::from_pkcs8(&der),
            _ => return Err(InvalidKey::Malformed),
        };
        let pair = pair.map_err(|_| InvalidKey::Rejected)?;
        Ok(Self { pair, pem: Zeroizing::new(text.to_owned()) })
    }

    /// The private key as PEM.
    #[must_use]
    pub fn private_pem(&self) -> &str {
        &self.pem
    }

    /// The public key as PEM.
    #[must_use]
    pub fn public_pem(&self) -> String {
        pem::print(PUBLIC, self.pair.public_key().as_ref())
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
        Some(signature)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// The keys of one sort of tokens, by serial number. The highest one signs, all of them verify.
#[derive(Debug, Default)]
pub struct KeySet {
    signing: BTreeMap<u32, SigningKey>,
    verifying: BTreeMap<u32, ParsedPublicKey>,
}

impl KeySet {
    /// Adds a private or a public key. A key that cannot be read leaves the others as they are.
    pub fn insert(&mut self, serial: u32, text: &str) -> Result<(), InvalidKey> {
        let public = match section(text)? {
            (PUBLIC | "PUBLIC KEY", der) => {
                PublicKey::from_der(&der).map_err(|_| InvalidKey::Rejected)?.as_ref().to_vec()
            }
            _ => {
                let key = SigningKey::from_pem(text)?;
                let public = key.pair.public_key().as_ref().to_vec();
                self.signing.insert(serial, key);
                public
            }
        };
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
        self.verifying.insert(serial, key.parse().map_err(|_| InvalidKey::Rejected)?);
        Ok(())
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.verifying.is_empty()
    }

    /// The serial number of the key that signs, if one can.
    #[must_use]
    pub fn signing_serial(&self) -> Option<u32> {
        self.signing.last_key_value().map(|(serial, _)| *serial)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.signing.last_key_value()?.1.sign(message)
    }

    pub(super) fn verifying(&self, serial: u32) -> Option<&ParsedPublicKey> {
        self.verifying.get(&serial)
    }
}

fn section(text: &str) -> Result<Section<'_>, InvalidKey> {
    let sections = pem::sections(text).ok_or(InvalidKey::Malformed)?;
    let [section] = <[_; 1]>::try_from(sections).map_err(|_| InvalidKey::Malformed)?;
    Ok(section)
}

/// The inner key of a PKCS#8 key: version, algorithm, key.
fn pkcs1(pkcs8: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (_, outer) = Sequence::from_der(pkcs8).ok()?;
    let (rest, _version) = u8::from_der(&outer.content).ok()?;
    let (rest, _algorithm) = Sequence::from_der(rest).ok()?;
    let (_, key) = OctetString::from_der(rest).ok()?;
    Some(Zeroizing::new(key.as_ref().to_vec()))
}
