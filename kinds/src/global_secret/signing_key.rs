//! The public half of an RSA key, as PKCS#1 in PEM: what the protocol has zones verify tokens with.

use base64::{Engine, engine::general_purpose::STANDARD};

const PRIVATE: (&str, &str) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
const PUBLIC: (&str, &str) = ("-----BEGIN RSA PUBLIC KEY-----", "-----END RSA PUBLIC KEY-----");
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;

/// The public half of the private key in `pem`; `None` if it holds none.
pub(super) fn public(pem: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, body) = text.split_once(PRIVATE.0)?;
    let (body, _) = body.split_once(PRIVATE.1)?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).ok()?;

    let (key, _) = element(&der, SEQUENCE)?;
    let (_version, rest) = element(key, INTEGER)?;
    let (modulus, rest) = element(rest, INTEGER)?;
    let (exponent, _) = element(rest, INTEGER)?;

    let mut numbers = Vec::new();
    for number in [modulus, exponent] {
        push(&mut numbers, INTEGER, number)?;
    }
    let mut der = Vec::new();
    push(&mut der, SEQUENCE, &numbers)?;
    Some(armoured(&der))
}

/// The content of the element at the start of `bytes`, if it has this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, bytes) = bytes.split_first()?;
    let (length, bytes) = bytes.split_first()?;
    if *first != tag {
        return None;
    }
    if *length < 0x80 {
        return bytes.split_at_checked(usize::from(*length));
    }
    let (digits, bytes) = bytes.split_at_checked(usize::from(*length & 0x7f))?;
    if digits.is_empty() || digits.len() > 4 {
        return None;
    }
    let length = digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
    bytes.split_at_checked(length)
}

fn push(out: &mut Vec<u8>, tag: u8, content: &[u8]) -> Option<()> {
    out.push(tag);
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => out.push(length),
        _ => {
            let digits = u32::try_from(content.len()).ok()?.to_be_bytes();
            let digits = digits.get(digits.iter().position(|digit| *digit != 0)?..)?;
            out.push(0x80 | u8::try_from(digits.len()).ok()?);
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
    Some(())
}

fn armoured(der: &[u8]) -> String {
    let mut body = STANDARD.encode(der);
    let mut pem = format!("{}\n", PUBLIC.0);
    while !body.is_empty() {
        let rest = body.split_off(body.len().min(64));
        pem.push_str(&body);
        pem.push('\n');
        body = rest;
    }
    pem + PUBLIC.1 + "\n"
}
