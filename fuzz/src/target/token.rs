//! Tokens: nobody gets in with one that was not signed here.

use super::Target;
use crate::wire::{self, Wire};
use anyhow::{Result, anyhow, ensure};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use identity::token::{
    Claims, DataplaneClaims, KeySet, Refused, Revocations, UserClaims, ZoneClaims, verify,
};
use jiff::Timestamp;

const NOW: i64 = 1_795_457_058;

/// Fields of an input.
const HEADER: u32 = 1;
const BODY: u32 = 2;
/// Takes the place of a good signature.
const SIGNATURE: u32 = 3;
/// Takes the place of the whole token.
const TOKEN: u32 = 4;

/// Who shows a token.
pub(crate) struct Bearers {
    pair: RsaKeyPair,
    keys: KeySet,
    revoked: Revocations,
    now: Timestamp,
}

impl Bearers {
    pub(crate) fn new() -> Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no key"))?;
        let public = STANDARD.encode(pair.public_key().as_ref());
        let lines: Vec<&str> =
            public.as_bytes().chunks(64).filter_map(|line| str::from_utf8(line).ok()).collect();
        let (begin, end) = ("-----BEGIN RSA PUBLIC KEY-----", "-----END RSA PUBLIC KEY-----");
        let pem = format!("{begin}\n{}\n{end}\n", lines.join("\n"));
        let mut keys = KeySet::default();
        keys.insert(1, &pem)?;
        let revoked = Revocations::parse("revoked-1, revoked-2");
        Ok(Self { pair, keys, revoked, now: Timestamp::from_second(NOW)? })
    }

    fn sign(&self, message: &str) -> Result<String> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let signed = self.pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            message.as_bytes(),
            &mut signature,
        );
        signed.map_err(|_| anyhow!("cannot sign"))?;
        Ok(URL_SAFE_NO_PAD.encode(signature))
    }

    /// The token of an input, and whether it is signed as it must be.
    fn token(&self, input: &[u8]) -> Result<(String, bool)> {
        let fields = wire::parse(input).unwrap_or_default();
        if let Some(token) = wire::bytes(&fields, TOKEN) {
            return Ok((String::from_utf8_lossy(token).into_owned(), false));
        }
        let part =
            |number| URL_SAFE_NO_PAD.encode(wire::bytes(&fields, number).unwrap_or_default());
        let message = format!("{}.{}", part(HEADER), part(BODY));
        match wire::bytes(&fields, SIGNATURE) {
            Some(signature) => {
                Ok((format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)), false))
            }
            None => Ok((format!("{message}.{}", self.sign(&message)?), true)),
        }
    }

    fn verify<C: Claims>(&self, token: &str) -> Result<C, Refused> {
        Ok(verify(&self.keys, token, self.now, &self.revoked)?.claims)
    }
}

impl Target for Bearers {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let header = br#"{"alg":"RS256","kid":"1","typ":"JWT"}"#.to_vec();
        let bodies = [
            r#"{"Zone":"east","Scope":["cp"],"exp":1795543458,"nbf":1795457053,"iat":1795457053,"jti":"a"}"#,
            r#"{"Name":"web-1","Mesh":"default","Tags":{"team":["a"]},"Type":"dataplane","Workload":"web","exp":1795543458,"jti":"b"}"#,
            r#"{"Name":"ann","Groups":["mesh-system:admin"],"exp":1795543458,"nbf":0,"jti":"revoked-1"}"#,
            r#"{"Name":"ann","Groups":null,"exp":1795543458}"#,
        ];
        let mut seeds = Vec::new();
        for body in bodies {
            let (header, body) = (Wire::Bytes(header.clone()), Wire::Bytes(body.into()));
            let good = vec![(HEADER, header), (BODY, body)];
            let mut bad = good.clone();
            bad.push((SIGNATURE, Wire::Bytes(vec![7; 256])));
            seeds.extend([wire::print(&good), wire::print(&bad)]);
        }
        let whole = b"eyJhbGciOiJub25lIn0.eyJab25lIjoiZWFzdCJ9.".to_vec();
        seeds.push(wire::print(&[(TOKEN, Wire::Bytes(whole))]));
        seeds
    }

    fn run(&mut self, input: &[u8]) -> Result<String> {
        let (token, signed) = self.token(input)?;
        let zone = self.verify::<ZoneClaims>(&token).map(|claims| claims.admits("east", "cp"));
        let user = self.verify::<UserClaims>(&token).map(|_| ());
        let proxy = self.verify::<DataplaneClaims>(&token).map(|_| ());
        let accepted = zone.is_ok() || user.is_ok() || proxy.is_ok();
        ensure!(signed || !accepted, "accepted, but not signed here: {token}");
        let word = if accepted { "accepted" } else { "refused" };
        Ok(format!("{word} {zone:?} {user:?} {proxy:?}"))
    }
}
