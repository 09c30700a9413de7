//! What goes wrong.

use super::{
    operations,
    world::{Due, World},
};
use anyhow::Result;
use std::{io::ErrorKind, sync::atomic::Ordering, time::Duration};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Reset,
    Partition,
    OneWay,
    Delay,
    Loss,
    Full,
    ZoneCrash,
    GlobalCrash,
    DiskFull,
    Restart,
    Upgrade,
    Disabled,
    Deleted,
    Bad,
    Alike,
    Squat,
    Clock,
}

impl Fault {
    pub(crate) const ALL: &[Self] = &[
        Self::Reset,
        Self::Partition,
        Self::OneWay,
        Self::Delay,
        Self::Loss,
        Self::Full,
        Self::ZoneCrash,
        Self::ZoneCrash,
        Self::GlobalCrash,
        Self::GlobalCrash,
        Self::DiskFull,
        Self::Restart,
        Self::Upgrade,
        Self::Disabled,
        Self::Deleted,
        Self::Bad,
        Self::Bad,
        Self::Bad,
        Self::Alike,
        Self::Squat,
        Self::Clock,
    ];

    const fn called(self) -> &'static str {
        match self {
            Self::Reset => "connections reset",
            Self::Partition => "partitions",
            Self::OneWay => "partitions in one direction",
            Self::Delay => "delays and reorderings",
            Self::Loss => "losses",
            Self::Full => "slow and full peers",
            Self::ZoneCrash => "crashes of zones",
            Self::GlobalCrash => "crashes of global",
            Self::DiskFull => "full disks",
            Self::Restart => "restarts",
            Self::Upgrade => "other versions",
            Self::Disabled => "disabled zones",
            Self::Deleted => "deleted zones",
            Self::Bad => "bad resources",
            Self::Alike => "forged names",
            Self::Squat => "taken names",
            Self::Clock => "clocks set",
        }
    }
}

/// Something goes wrong, for a while.
pub(crate) async fn begin(world: &mut World, fault: Fault) -> Result<()> {
    *world.faults.entry(fault.called()).or_default() += 1;
    let zone = world.random.usize(1..world.machines.len());
    let a_while = Duration::from_millis(world.random.u64(100..20_000));
    world.truth.lock().note(format_args!("fault: {} ({zone}, {a_while:?})", fault.called()));
    let road = zone - 1;
    match fault {
        Fault::Reset => world.network.reset(road),
        Fault::Partition => {
            world.network.change(road, |weather| weather.blocked = [true; 2]);
            world.later(a_while * 3, Due::Clear(zone));
        }
        Fault::OneWay => {
            let blocked = if world.random.bool() { [true, false] } else { [false, true] };
            world.network.change(road, |weather| weather.blocked = blocked);
            world.later(a_while, Due::Clear(zone));
        }
        Fault::Delay => {
            let most = world.random.u64(50..3000);
            world.network.change(road, |weather| weather.latency = (0, most));
            world.later(a_while, Due::Clear(zone));
        }
        Fault::Loss => {
            let loss = world.random.u32(5..60);
            world.network.change(road, |weather| weather.loss = loss);
            world.later(a_while, Due::Clear(zone));
        }
        Fault::Full => {
            let most = world.random.u64(20..500);
            world.network.change(road, |weather| {
                weather.window = 2;
                weather.latency = (most / 2, most);
            });
            world.later(a_while, Due::Clear(zone));
        }
        Fault::ZoneCrash => dies(world, zone, ErrorKind::NotConnected).await,
        Fault::GlobalCrash => dies(world, 0, ErrorKind::NotConnected).await,
        Fault::DiskFull => {
            let node = world.random.usize(..world.machines.len());
            dies(world, node, ErrorKind::StorageFull).await;
        }
        Fault::Restart => {
            let node = world.random.usize(..world.machines.len());
            if let Some(machine) = world.machines.get_mut(node) {
                machine.stop().await;
            }
            world.later(a_while / 8, Due::Start(node));
        }
        Fault::Upgrade => other_version(world, zone, a_while).await,
        Fault::Disabled => {
            operations::enable(world, zone, false).await?;
            if world.random.u32(..3) > 0 {
                world.later(a_while, Due::Enable(zone));
            }
        }
        Fault::Deleted => deleted(world, zone, a_while).await?,
        Fault::Bad => {
            let node = world.random.usize(..world.machines.len());
            operations::bad(world, node).await;
        }
        Fault::Alike => operations::alike(world).await,
        Fault::Squat => {
            let node = world.random.usize(..world.machines.len());
            operations::squat(world, node).await;
        }
        Fault::Clock => {
            let skew = world.random.i64(-7_200_000..7_200_000);
            let node = world.random.usize(..world.machines.len());
            if let Some(machine) = world.machines.get(node) {
                machine.skew.store(skew, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// A zone ends, and starts as another version of its program.
async fn other_version(world: &mut World, zone: usize, a_while: Duration) {
    let World { machines, random, .. } = world;
    if let Some(machine) = machines.get_mut(zone) {
        machine.stop().await;
        machine.install(random);
    }
    world.later(a_while / 8, Due::Start(zone));
}

/// Power goes in the middle of a write, or the disk is full in the middle of it.
async fn dies(world: &mut World, node: usize, error: ErrorKind) {
    let operations = world.random.usize(..30);
    if let Some(machine) = world.machines.get(node).filter(|machine| machine.life.is_some()) {
        machine.disk.fail_after(operations, error);
    } else {
        return;
    }
    let times = world.random.usize(1..5);
    operations::some(world, node, times).await;
    let crash = Duration::from_millis(world.random.u64(..60));
    let start = Duration::from_millis(world.random.u64(60..15_000));
    world.later(crash, Due::Crash(node));
    world.later(start, Due::Start(node));
}

/// A zone ends, is deleted, and comes back: before or after somebody makes it anew.
async fn deleted(world: &mut World, zone: usize, a_while: Duration) -> Result<()> {
    if world.machines.first().is_none_or(|global| global.life.is_none()) {
        return Ok(());
    }
    if let Some(machine) = world.machines.get_mut(zone) {
        machine.stop().await;
    }
    world.pass(Duration::from_millis(1500)).await?;
    let deleted = operations::delete_zone(world, zone).await?;
    world.later(a_while / 2, Due::Start(zone));
    if deleted && world.random.u32(..3) > 0 {
        world.later(a_while, Due::Create(zone));
    }
    Ok(())
}
