//! What the API server asks before it takes an object: defaults and checks, over TLS.

mod config;

pub use self::config::Config;
