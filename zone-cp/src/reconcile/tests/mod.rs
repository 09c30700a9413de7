mod calls;
mod cost;
#[allow(dead_code, reason = "each group of tests uses a part")]
mod fixture;

use fixture::*;
