//! Addresses of servers as policies have them.

/// A URL, taken apart. What is left out is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    /// Before `://`.
    pub(crate) scheme: &'a str,
    /// Before `@`.
    pub(crate) user: &'a str,
    /// A name or an address.
    pub(crate) host: &'a str,
    /// After the host.
    pub(crate) port: &'a str,
    /// Path, query and fragment.
    pub(crate) rest: &'a str,
}

impl<'a> Url<'a> {
    /// Takes a text apart; `None` if it has no host, or what no URL has.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if text.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
            return None;
        }
        let (scheme, after) = text.split_once("://").unwrap_or(("", text));
        let (server, rest) = match after.find(['/', '?', '#']) {
            Some(end) => after.split_at_checked(end)?,
            None => (after, ""),
        };
        let (user, server) = server.rsplit_once('@').unwrap_or(("", server));
        let (host, port) = match server.strip_prefix('[').and_then(|it| it.split_once(']')) {
            Some((host, "")) => (host, ""),
            Some((host, port)) => (host, port.strip_prefix(':')?),
            None => server.split_once(':').unwrap_or((server, "")),
        };
        (!host.is_empty()).then_some(Self { scheme, user, host, port, rest })
    }

    /// The port, if it is one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port.parse().ok().filter(|port| *port > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = |text| Url::parse(text).map(|it| [it.scheme, it.user, it.host, it.port, it.rest]);
        for (text, expected) in [
            ("http://a:80/b?c", Some(["http", "", "a", "80", "/b?c"])),
            ("u@[::1]:443", Some(["", "u", "::1", "443", ""])),
            ("[fd00::1]/x", Some(["", "", "fd00::1", "", "/x"])),
            ("127.0.0.1:5000", Some(["", "", "127.0.0.1", "5000", ""])),
            ("[::1]80", None),
            ("http://", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(url(text), expected, "{text}");
        }
    }

    #[test]
    fn a_port_is_above_zero() {
        let port = |text: &str| Url::parse(text).and_then(|url| url.port());
        assert_eq!(
            [port("a:65535"), port("a:0"), port("a:65536"), port("a:x"), port("a")],
            [Some(65535), None, None, None, None]
        );
    }
}
