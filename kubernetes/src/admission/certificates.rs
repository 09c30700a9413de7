//! The certificate of the control plane, for webhooks and for proxies, in a Secret that all its
//! processes share. The control plane makes it, and makes the next one in time.
//!
//! Nobody is cut off by a new authority: it is trusted for the last third of the life of the one before
//! it, and signs when that is about to end. What a pod was told to trust when it was made holds until
//! then.

use identity::{Authority, AuthorityError, ServerPair, certificates, renew_server_at, to_pem};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use std::{collections::BTreeMap, time::Duration};

/// How long the certificate of a server is valid.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Clients trust these.
const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const NEXT_KEY: &str = "next-ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The content of a Secret.
pub(super) type Data = BTreeMap<String, ByteString>;

/// Everything that the Secret holds.
#[derive(Debug)]
pub(super) struct Kept {
    /// Signs.
    authority: Authority,
    /// Will sign.
    next: Option<Authority>,
    /// Certificates of those that signed and are trusted still.
    older: Vec<String>,
    pair: ServerPair,
}

/// Why a Secret is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damaged {
    #[error("{0}: missing, or not PEM")]
    Missing(&'static str),
    #[error("{0}")]
    Authority(&'static str, #[source] AuthorityError),
}

impl Kept {
    /// Makes everything anew.
    pub(super) fn make(names: &[String], now: Timestamp) -> Result<Self, AuthorityError> {
        let authority = authority(now)?;
        let ca_pem = authority.certificate_pem().to_owned();
        let pair = authority.issue_for_server(names, ca_pem, now, LIFE)?;
        Ok(Self { authority, next: None, older: Vec::new(), pair })
    }

    /// Reads what [`write`](Self::write) wrote.
    pub(super) fn read(data: &Data) -> Result<Self, Damaged> {
        let text = |key: &'static str| {
            let bytes = data.get(key).map(|it| it.0.clone());
            bytes.and_then(|it| String::from_utf8(it).ok()).ok_or(Damaged::Missing(key))
        };
        let trusted = certificates(&text(CA)?).filter(|all| !all.is_empty());
        let mut trusted = trusted.ok_or(Damaged::Missing(CA))?.into_iter().map(|it| to_pem(&it));
        let mut signer = |key: &'static str| {
            let certificate = trusted.next().ok_or(Damaged::Missing(CA))?;
            let read = Authority::from_pem(&certificate, &text(key)?);
            read.map_err(|error| Damaged::Authority(key, error))
        };
        let authority = signer(CA_KEY)?;
        let next = data.contains_key(NEXT_KEY).then(|| signer(NEXT_KEY)).transpose()?;
        let older = trusted.collect();
        let pair = ServerPair {
            chain_pem: text(CERTIFICATE)?,
            key_pem: text(KEY)?.into(),
            ca_pem: text(CA)?,
        };
        Ok(Self { authority, next, older, pair })
    }

    pub(super) fn write(&self) -> Data {
        let next = self.next.as_ref().map(|next| (NEXT_KEY, next.key_pem()));
        let parts = [
            (CA, self.pair.ca_pem.as_str()),
            (CA_KEY, self.authority.key_pem()),
            (CERTIFICATE, &self.pair.chain_pem),
            (KEY, &self.pair.key_pem),
        ];
        let parts = parts.into_iter().chain(next);
        parts.map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec()))).collect()
    }

    pub(super) const fn pair(&self) -> &ServerPair {
        &self.pair
    }

    /// The same with all that is due by `now`; `None` if nothing is.
    pub(super) fn renewed(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<Option<Self>, AuthorityError> {
        if now < self.renew_at(names) && self.pair.ca_pem == self.trusted(now) {
            return Ok(None);
        }
        let copy = |it: &Authority| Authority::from_pem(it.certificate_pem(), it.key_pem());
        let mut kept = Self {
            authority: copy(&self.authority)?,
            next: self.next.as_ref().map(copy).transpose()?,
            older: self.older.clone(),
            pair: self.pair.clone(),
        };
        if kept.next.is_none() && self.authority.succeed_at() <= now {
            kept.next = Some(authority(now)?);
        }
        if hand_over_at(&kept.authority) <= now
            && let Some(next) = kept.next.take()
        {
            let before = std::mem::replace(&mut kept.authority, next);
            kept.older.push(before.certificate_pem().to_owned());
        }
        let ca_pem = kept.trusted(now);
        let due = renew_server_at(&kept.pair, &kept.authority, names).is_none_or(|at| at <= now);
        if due {
            kept.pair = kept.authority.issue_for_server(names, ca_pem, now, LIFE)?;
        } else {
            kept.pair.ca_pem = ca_pem;
        }
        Ok(Some(kept))
    }

    /// When to look again.
    pub(super) fn renew_at(&self, names: &[String]) -> Timestamp {
        let pair = renew_server_at(&self.pair, &self.authority, names);
        let authority = match self.next {
            None => self.authority.succeed_at(),
            Some(_) => hand_over_at(&self.authority),
        };
        pair.unwrap_or(Timestamp::UNIX_EPOCH).min(authority)
    }

    /// Who signs, who will, and who did if that counts still.
    fn trusted(&self, now: Timestamp) -> String {
        let signers = [Some(&self.authority), self.next.as_ref()].into_iter().flatten();
        let signers = signers.map(Authority::certificate_pem);
        let counts = |pem: &&String| {
            let ends = certificates(pem).and_then(|all| identity::not_after(all.first()?));
            ends.is_some_and(|ends| now < ends)
        };
        signers.chain(self.older.iter().filter(counts).map(String::as_str)).collect()
    }
}

/// When an authority is too old for one more certificate.
fn hand_over_at(authority: &Authority) -> Timestamp {
    let life = SignedDuration::try_from(LIFE).unwrap_or(SignedDuration::MAX);
    authority.not_after().saturating_sub(life).unwrap_or(Timestamp::MIN)
}

fn authority(now: Timestamp) -> Result<Authority, AuthorityError> {
    Authority::for_servers("Atoll control plane", now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(day * 24 * 3600).unwrap()
    }

    fn names() -> Vec<String> {
        vec!["atoll-admission.kuma-system.svc".into(), "127.0.0.1".into()]
    }

    fn again(kept: &Kept) -> Kept {
        Kept::read(&kept.write()).unwrap()
    }

    fn count(kept: &Kept) -> usize {
        certificates(&kept.pair.ca_pem).unwrap().len()
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life_by_the_same_authority() {
        let first = again(&Kept::make(&names(), day(0)).unwrap());
        assert!(first.renewed(&names(), day(59)).unwrap().is_none());
        let second = again(&first.renewed(&names(), day(60)).unwrap().unwrap());
        assert_ne!(first.pair.chain_pem, second.pair.chain_pem);
        assert_eq!(first.pair.ca_pem, second.pair.ca_pem);
        assert!(second.renewed(&names(), day(60)).unwrap().is_none());
        let more = [names(), vec!["atoll-zone-cp".into()]].concat();
        let third = again(&second.renewed(&more, day(60)).unwrap().unwrap());
        assert!(third.renewed(&more, day(60)).unwrap().is_none());
    }

    #[test]
    fn a_new_authority_is_trusted_long_before_it_signs() {
        let mut kept = Kept::make(&names(), day(0)).unwrap();
        let first = kept.authority.certificate_pem().to_owned();
        let (mut seen, mut at) = (Vec::new(), day(0));
        while at < day(7400) {
            at = kept.renew_at(&names());
            let before = kept.pair.clone();
            kept = again(&kept.renewed(&names(), at).unwrap().unwrap());
            // Who trusted what there was before takes what comes.
            let chain = certificates(&kept.pair.chain_pem).unwrap();
            let trusted = certificates(&before.ca_pem).unwrap();
            assert!(trusted.iter().any(|ca| identity::is_issued_by(&chain[0], ca)), "{at}");
            assert!(identity::not_after(&chain[0]).unwrap() > at);
            let signs = kept.authority.certificate_pem() == first;
            if seen.last().is_none_or(|(_, last)| *last != (count(&kept), signs)) {
                seen.push((at, (count(&kept), signs)));
            }
        }
        let steps: Vec<_> = seen.iter().map(|(_, step)| *step).collect();
        let expected = [(1, true), (2, true), (2, false), (1, false), (2, false)];
        assert_eq!(steps[..4], expected[..4], "{seen:?}");
    }

    #[test]
    fn a_secret_that_somebody_changed_says_what_is_wrong() {
        let good = Kept::make(&names(), day(0)).unwrap().write();
        let other = Kept::make(&names(), day(0)).unwrap().write();
        let with = |key: &str, value: Option<ByteString>| {
            let mut data = good.clone();
            match value {
                Some(value) => drop(data.insert(key.into(), value)),
                None => drop(data.remove(key)),
            }
            Kept::read(&data).unwrap_err().to_string()
        };
        assert_eq!(with(CA, None), "ca.crt: missing, or not PEM");
        assert_eq!(with(CA, Some(ByteString(vec![255]))), "ca.crt: missing, or not PEM");
        assert_eq!(with(CA_KEY, other.get(CA_KEY).cloned()), "ca.key");
        assert_eq!(with(NEXT_KEY, good.get(CA_KEY).cloned()), "ca.crt: missing, or not PEM");
        // A certificate of another authority is only replaced.
        let mut data = good.clone();
        data.extend([CERTIFICATE, KEY].map(|key| (key.to_owned(), other[key].clone())));
        let kept = Kept::read(&data).unwrap();
        assert!(kept.renewed(&names(), day(1)).unwrap().is_some());
    }
}
