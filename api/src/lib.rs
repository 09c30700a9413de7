//! The REST API, the same in global and in zones.
