mod calls;
mod cost;
mod fixture;
mod inbounds;
mod law;
mod task;

use fixture::*;
