mod calls;
mod cost;
mod fixture;

use fixture::*;
