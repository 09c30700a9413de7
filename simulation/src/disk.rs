//! A disk that can lose what was not synced, tear what was being written, and fail.

use parking_lot::{Mutex, MutexGuard};
use redb::StorageBackend;
use std::{
    io::{self, ErrorKind},
    sync::Arc,
};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// Bytes that outlive a process of the simulation. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

/// The disk as one process sees it, until a crash.
#[derive(Debug)]
pub struct Attached {
    disk: Disk,
    crashes: usize,
}

#[derive(Debug, Default)]
struct State {
    crashes: usize,
    /// As processes see it.
    now: Vec<u8>,
    /// As it was at the last sync.
    synced: Vec<u8>,
    /// Writes since then, in order.
    writes: Vec<Write>,
    /// Writes, resizes and syncs in all.
    operations: usize,
    /// Every operation after so many fails.
    limit: Option<(usize, ErrorKind)>,
}

#[derive(Debug)]
enum Write {
    At(usize, Vec<u8>),
    Resize(usize),
}

impl Disk {
    /// Power is lost: of the sectors that were not synced, those stay that `survives` picks. A real
    /// disk keeps any of them, in any combination.
    pub fn crash(&self, mut survives: impl FnMut() -> bool) {
        let mut state = self.0.lock();
        state.crashes += 1;
        state.limit = None;
        let mut after = std::mem::take(&mut state.synced);
        for write in std::mem::take(&mut state.writes) {
            for part in write.parts() {
                if survives() {
                    part.apply(&mut after);
                }
            }
        }
        state.now.clone_from(&after);
        state.synced = after;
    }

    /// After `operations` more, every one fails with `error`: the disk is full, or power is about
    /// to be lost in the middle of something.
    pub fn fail_after(&self, operations: usize, error: ErrorKind) {
        let mut state = self.0.lock();
        state.limit = Some((state.operations + operations, error));
    }

    /// There is room again.
    pub fn heal(&self) {
        self.0.lock().limit = None;
    }

    /// How many bytes its files have.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().now.len()
    }

    /// Whether nothing was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.0.lock().operations
    }

    /// For a process that starts. What ran before the last crash is cut off, so that its destructors
    /// cannot tidy up what a real crash leaves behind.
    #[must_use]
    pub fn attach(&self) -> Attached {
        Attached { disk: self.clone(), crashes: self.0.lock().crashes }
    }
}

impl Attached {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.0.lock();
        if state.crashes == self.crashes { Ok(state) } else { Err(ErrorKind::NotConnected.into()) }
    }

    /// The state, for an operation that changes it.
    fn operation(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        state.operations += 1;
        match state.limit {
            Some((limit, error)) if state.operations > limit => Err(error.into()),
            _ => Ok(state),
        }
    }
}

impl Write {
    /// What the disk writes as a whole each.
    fn parts(self) -> Vec<Self> {
        let Self::At(offset, data) = self else { return vec![self] };
        let (mut parts, mut offset, mut rest) = (Vec::new(), offset, &data[..]);
        while !rest.is_empty() {
            let (part, after) = rest.split_at((SECTOR - offset % SECTOR).min(rest.len()));
            parts.push(Self::At(offset, part.to_vec()));
            offset += part.len();
            rest = after;
        }
        parts
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Resize(len) => bytes.resize(*len, 0),
            Self::At(offset, data) => {
                // A write survived whose resize did not.
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(there) = bytes.get_mut(*offset..end) {
                    there.copy_from_slice(data);
                }
            }
        }
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput.into())
}

impl StorageBackend for Attached {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (state, start) = (self.state()?, index(offset)?);
        let there = state.now.get(start..start + out.len());
        out.copy_from_slice(there.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operation()?.write(Write::Resize(index(len)?));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operation()?.sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operation()?.write(Write::At(index(offset)?, data.to_vec()));
        Ok(())
    }
}

impl State {
    fn write(&mut self, write: Write) {
        write.apply(&mut self.now);
        self.writes.push(write);
    }

    fn sync(&mut self) {
        for write in self.writes.drain(..) {
            write.apply(&mut self.synced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &Disk, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        disk.attach().read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn what_was_synced_stays_and_of_the_rest_any_sectors() {
        let disk = Disk::default();
        let before = disk.attach();
        before.set_len(3 * SECTOR as u64).unwrap();
        before.sync_data().unwrap();
        before.write(SECTOR as u64 - 1, &[7; SECTOR + 2]).unwrap();
        assert_eq!(read(&disk, 3 * SECTOR)[SECTOR - 1..2 * SECTOR + 1], [7; SECTOR + 2]);
        let mut part = 0;
        disk.crash(|| {
            part += 1;
            part == 2
        });
        let mut expected = vec![0; 3 * SECTOR];
        expected[SECTOR..2 * SECTOR].fill(7);
        assert_eq!((part, read(&disk, 3 * SECTOR)), (3, expected));
        assert!(before.write(0, &[1]).is_err(), "from before the crash");
    }

    #[test]
    fn a_full_disk_fails_until_there_is_room() {
        let disk = Disk::default();
        let attached = disk.attach();
        disk.fail_after(1, ErrorKind::StorageFull);
        attached.write(0, &[1]).unwrap();
        assert_eq!(attached.write(1, &[2]).unwrap_err().kind(), ErrorKind::StorageFull);
        disk.heal();
        attached.write(1, &[3]).unwrap();
        assert_eq!(read(&disk, 2), [1, 3]);
    }
}
