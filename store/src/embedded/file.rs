//! The file under redb: locked, and not changed before it was found to be whole.
//!
//! redb repairs what it opens, so an open that ends with "damaged" may have destroyed what somebody
//! could still have saved. While a file is on trial, writes are kept in memory; when it is accepted
//! they are made, in their order and with their syncs, so that a crash meanwhile is a crash of redb.

use parking_lot::RwLock;
use redb::StorageBackend;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    sync::Arc,
};

const PAGE: usize = 4096;

/// A file; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct StoreFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Its lock is held as long as it is open.
    file: File,
    /// `None` once it is accepted.
    trial: RwLock<Option<Trial>>,
}

/// What would have been written.
#[derive(Debug)]
struct Trial {
    steps: Vec<Step>,
    /// Pages as they would be.
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    len: u64,
    /// Up to here the bytes of the file would still be there: it was never shorter.
    kept: u64,
}

#[derive(Debug)]
enum Step {
    Write(u64, Box<[u8]>),
    Resize(u64),
    Sync,
}

impl StoreFile {
    /// A file on trial.
    pub(super) fn on_trial(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let trial = Trial { steps: Vec::new(), pages: BTreeMap::new(), len, kept: len };
        Ok(Self(Arc::new(Inner { file, trial: RwLock::new(Some(trial)) })))
    }

    /// Makes what was held back. From now on writes go through.
    pub(super) fn accept(&self) -> io::Result<()> {
        let mut trial = self.0.trial.write();
        for step in trial.take().map(|trial| trial.steps).unwrap_or_default() {
            match step {
                Step::Write(offset, data) => self.0.file.write_all_at(&data, offset)?,
                Step::Resize(len) => self.0.file.set_len(len)?,
                Step::Sync => self.0.file.sync_data()?,
            }
        }
        Ok(())
    }
}

impl Trial {
    fn read(&self, file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        read_or_zeros(file, self.kept, offset, out)?;
        let pages =
            self.pages.range(offset / PAGE as u64..=(offset + out.len() as u64) / PAGE as u64);
        for (page, data) in pages {
            overlap(*page, offset, out.len(), |inside, outside| {
                if let (Some(out), Some(data)) = (out.get_mut(outside), data.get(inside)) {
                    out.copy_from_slice(data);
                }
            });
        }
        Ok(())
    }

    fn write(&mut self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        for page in offset / PAGE as u64..(offset + data.len() as u64).div_ceil(PAGE as u64) {
            let entry = match self.pages.entry(page) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let mut there = Box::new([0; PAGE]);
                    read_or_zeros(file, self.kept, page * PAGE as u64, &mut there[..])?;
                    entry.insert(there)
                }
            };
            overlap(page, offset, data.len(), |inside, outside| {
                if let (Some(there), Some(data)) = (entry.get_mut(inside), data.get(outside)) {
                    there.copy_from_slice(data);
                }
            });
        }
        self.len = self.len.max(offset + data.len() as u64);
        self.steps.push(Step::Write(offset, data.into()));
        Ok(())
    }

    fn resize(&mut self, len: u64) {
        // Nothing that was cut off may come back when the file grows again.
        let last = len / PAGE as u64;
        self.pages.retain(|page, _| *page <= last);
        if let Some(page) = self.pages.get_mut(&last) {
            page.iter_mut().skip((len % PAGE as u64) as usize).for_each(|byte| *byte = 0);
        }
        self.len = len;
        self.kept = self.kept.min(len);
        self.steps.push(Step::Resize(len));
    }
}

/// Calls `copy` with the part of `page` that lies in `offset..offset + len`, seen from the start of
/// the page and from `offset`.
fn overlap(
    page: u64,
    offset: u64,
    len: usize,
    copy: impl FnOnce(std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let start = page * PAGE as u64;
    let (from, to) = (start.max(offset), (start + PAGE as u64).min(offset + len as u64));
    if from < to {
        // Both fit: they are within a page, or within a buffer.
        let part = |base: u64| (from - base) as usize..(to - base) as usize;
        copy(part(start), part(offset));
    }
}

/// What is beyond `kept` was made by a resize, hence zero.
fn read_or_zeros(file: &File, kept: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let there = usize::try_from(kept.saturating_sub(offset)).unwrap_or(usize::MAX);
    let (there, beyond) = out.split_at_mut(there.min(out.len()));
    beyond.fill(0);
    file.read_exact_at(there, offset)
}

impl StorageBackend for StoreFile {
    fn len(&self) -> io::Result<u64> {
        match &*self.0.trial.read() {
            Some(trial) => Ok(trial.len),
            None => Ok(self.0.file.metadata()?.len()),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.0.trial.read() {
            Some(trial) => trial.read(&self.0.file, offset, out),
            None => self.0.file.read_exact_at(out, offset),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &mut *self.0.trial.write() {
            Some(trial) => trial.resize(len),
            None => self.0.file.set_len(len)?,
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(trial) = &mut *self.0.trial.write() {
            trial.steps.push(Step::Sync);
            return Ok(());
        }
        self.0.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(trial) = &mut *self.0.trial.write() {
            return trial.write(&self.0.file, offset, data);
        }
        self.0.file.write_all_at(data, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_on_trial_is_zero_when_the_file_grows_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [1; 4 * PAGE]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let file = StoreFile::on_trial(file).unwrap();
        // Bytes of before and bytes of the trial, in the page where it is cut and behind it.
        let half = PAGE as u64 / 2;
        file.write(PAGE as u64 + half, &[2; 2 * PAGE]).unwrap();
        let cut = PAGE as u64 + half + 10;
        file.set_len(cut).unwrap();
        assert!(file.read(cut, &mut [0]).is_err(), "there is nothing");
        file.set_len(4 * PAGE as u64).unwrap();
        let expected =
            [vec![1; PAGE + PAGE / 2], vec![2; 10], vec![0; 2 * PAGE + PAGE / 2 - 10]].concat();
        let mut found = vec![9; 4 * PAGE];
        file.read(0, &mut found).unwrap();
        assert!(found == expected, "on trial");
        assert!(std::fs::read(&path).unwrap() == [1; 4 * PAGE], "nothing was changed");
        file.accept().unwrap();
        assert!(std::fs::read(&path).unwrap() == expected, "accepted");
    }
}
