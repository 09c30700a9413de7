//! Proxies of all sorts, over pipes in paused time.

mod access;
mod beacons;
mod kuma;
mod life;
mod overview;
mod streams;
mod world;
