//! What another process uses.

use anyhow::{Context, Result};
use std::{fs, time::Duration};

/// How long `pid` was on a processor.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Its name may contain anything but ends at the last bracket; the times are the 12th and 13th
    // field behind it.
    let (_, fields) = stat.rsplit_once(')').context("a line with a name")?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || fields.next().context("a time")?.context("a number");
    let ticks = next()? + next()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Memory of `pid`, in MiB: what is there now, and the most there ever was.
pub fn memory(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok::<u64, anyhow::Error>(kilobytes.context("a number of kB")?.parse::<u64>()? >> 10)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}
