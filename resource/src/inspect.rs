//! What the Envoy of a proxy can be asked: through the API, and from one control plane to another.

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As lines.
    Text,
    /// As JSON.
    Json,
}

/// What is asked of an Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its whole configuration, as JSON, with endpoints or without.
    Config {
        /// Whether endpoints belong to it.
        endpoints: bool,
    },
    /// Its statistics, all or those that were ever used.
    Stats {
        /// How to write them.
        format: Format,
        /// Only those in use.
        used_only: bool,
    },
    /// Its clusters and their endpoints.
    Clusters {
        /// How to write them.
        format: Format,
    },
}
