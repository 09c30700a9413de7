/// No address of a socket is longer.
const LONGEST: usize = 107;

/// Why nobody can listen at a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSocket {
    /// The kernel takes no such address.
    #[error("longer than {LONGEST} bytes")]
    TooLong,
    /// It depends on where who reads it runs.
    #[error("{0:?} is no absolute path")]
    NotAbsolute(String),
}

/// Whether `path` can be that of a socket. Nothing is the socket of nobody.
pub fn check_socket(path: &str) -> Result<(), InvalidSocket> {
    if path.len() > LONGEST {
        return Err(InvalidSocket::TooLong);
    }
    if path.contains('\0') || !(path.is_empty() || path.starts_with('/')) {
        return Err(InvalidSocket::NotAbsolute(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_an_absolute_path_that_is_not_too_long() {
        assert_eq!(check_socket(""), Ok(()));
        assert_eq!(check_socket(&format!("/{}", "a".repeat(106))), Ok(()));
        assert_eq!(check_socket(&format!("/{}", "a".repeat(107))), Err(InvalidSocket::TooLong));
        for path in ["api.sock", "/a\0b"] {
            assert_eq!(check_socket(path), Err(InvalidSocket::NotAbsolute(path.into())));
        }
    }
}
