//! What a global does with many zones: real `global-cp`, real sockets with TLS, simulated zones that
//! keep nothing. Both share this machine, so the zones' work is part of every figure of time;
//! processor time and memory are those of global alone.
//!
//! Arguments name the parts to run; without any, all run.

mod crowd;
mod parts;
mod world;

use anyhow::Result;

fn main() -> Result<()> {
    // Set already when several clients are made.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    for (name, part) in parts::ALL {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part()?;
        }
    }
    Ok(())
}
