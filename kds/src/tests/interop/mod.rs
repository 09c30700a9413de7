//! Ours with plain peers, and the real kinds: a plain zone at our global, our zone at a plain
//! global.

mod bad_input;
mod connection;
mod plain;
mod plain_global;
mod plain_zone;
mod scenarios;
mod world;
