mod calls;
mod cost;
mod direct;
mod effects;
#[allow(dead_code, reason = "each group of tests uses a part")]
mod fixture;
mod inbounds;
mod law;
mod order;
mod redirect;
mod spire;
mod task;

use fixture::*;
