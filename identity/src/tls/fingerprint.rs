//! How a certificate is named.

use aws_lc_rs::digest::{SHA256, digest};
use std::{
    fmt::{self, Display},
    str::FromStr,
};

const BYTES: usize = 32;

/// The SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; BYTES]);

impl Fingerprint {
    /// That of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }
}

/// Not the fingerprint of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 hexadecimal digits, with colons or without")]
pub struct NoFingerprint;

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let digits = text.chars().filter(|digit| *digit != ':').map(|digit| digit.to_digit(16));
        let digits = digits.collect::<Option<Vec<_>>>().ok_or(NoFingerprint)?;
        let bytes = digits.chunks(2).map(|pair| match pair {
            [high, low] => u8::try_from(high << 4 | low).ok(),
            _ => None,
        });
        let bytes = bytes.collect::<Option<Vec<_>>>().ok_or(NoFingerprint)?;
        bytes.try_into().map(Self).map_err(|_| NoFingerprint)
    }
}

impl Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_shows_it() {
        let one = Fingerprint::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(one.to_string(), text);
        assert_eq!(text.parse(), Ok(one));
        let pairs: Vec<&str> = text.as_bytes().chunks(2).flat_map(std::str::from_utf8).collect();
        assert_eq!(pairs.join(":").to_uppercase().parse(), Ok(one));
        for bad in
            ["", "ba", &text.replacen('b', "g", 1), &format!("{text}0"), &format!("{text}00")]
        {
            assert_eq!(bad.parse::<Fingerprint>(), Err(NoFingerprint), "{bad}");
        }
    }
}
