//! Proxies of all sorts, over pipes in paused time.

mod access;
mod beacons;
mod kuma;
mod life;
mod overview;
mod pods;
mod streams;
mod world;
