//! PEM, for the labels that the certificate libraries do not know.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

const WIDTH: usize = 64;

/// A label and what stands under it.
pub(crate) type Section<'a> = (&'a str, Zeroizing<Vec<u8>>);

/// The sections of a text. `None` if one is malformed.
pub(crate) fn sections(text: &str) -> Option<Vec<Section<'_>>> {
    let mut sections = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (label, body) = begun.split_once("-----")?;
        let (body, after) = body.split_once("-----END ")?;
        let after = after.strip_prefix(label)?.strip_prefix("-----")?;
        let body: Zeroizing<String> =
            Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        sections.push((label, Zeroizing::new(STANDARD.decode(body.as_bytes()).ok()?)));
        rest = after;
    }
    Some(sections)
}

/// One section as text.
pub(crate) fn print(label: &str, content: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(content));
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(WIDTH));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        let (a, b) = (vec![7; 100], vec![1, 2, 3]);
        let text = format!("note\n{}\r\n{}", print("RSA PUBLIC KEY", &a), print("X", &b));
        let read = sections(&text).unwrap();
        assert_eq!(read, [("RSA PUBLIC KEY", Zeroizing::new(a)), ("X", Zeroizing::new(b))]);
        assert!(text.lines().all(|line| line.len() <= WIDTH));
    }

    #[test]
    fn malformed_sections_are_refused() {
        for text in [
            "-----BEGIN X-----\nAAAA",
            "-----BEGIN X",
            "-----BEGIN X-----\nAAAA\n-----END Y-----",
            "-----BEGIN X-----\n!\n-----END X-----",
        ] {
            assert_eq!(sections(text), None, "{text:?}");
        }
        assert_eq!(sections(""), Some(vec![]));
    }
}
