//! What is made of files, and made anew when they change.

use super::{TlsError, files::Named};

/// What the files were like when they were read.
type Marks = Vec<Option<(u64, i64, i64, u64)>>;

/// What was made of files that were good.
#[derive(Debug)]
pub(super) struct Reloaded<T> {
    value: T,
    marks: Marks,
    /// What could not be used, to be said once.
    refused: Option<Marks>,
}

impl<T> Reloaded<T> {
    pub(super) fn new(
        files: &[&Named],
        make: impl FnOnce() -> Result<T, TlsError>,
    ) -> Result<Self, TlsError> {
        // Before they are read: what changes meanwhile is read again.
        let marks = marks(files);
        Ok(Self { value: make()?, marks, refused: None })
    }

    /// Makes it anew if a file changed. What was good last stays if that fails.
    pub(super) fn look(
        &mut self,
        files: &[&Named],
        make: impl FnOnce() -> Result<T, TlsError>,
    ) -> &T {
        let marks = marks(files);
        if marks == self.marks {
            return &self.value;
        }
        let settings = || files.iter().map(|file| &*file.setting).collect::<Vec<_>>().join(", ");
        match make() {
            Ok(value) => {
                tracing::info!(settings = settings(), "certificates loaded again");
                *self = Self { value, marks, refused: None };
            }
            // It may be half written: tried again, but told once.
            Err(error) if self.refused.as_ref() != Some(&marks) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::error!(
                    error,
                    "certificates changed and are not usable, the last ones stay"
                );
                self.refused = Some(marks);
            }
            Err(_) => {}
        }
        &self.value
    }

    pub(super) const fn value(&self) -> &T {
        &self.value
    }
}

fn marks(files: &[&Named]) -> Marks {
    files.iter().map(|file| file.mark()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, fs};

    #[test]
    fn files_are_read_again_when_they_changed_and_until_they_are_good() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        let file = Named::new("tls.certFile", &path);
        let reads = Cell::new(0);
        let read = || {
            reads.set(reads.get() + 1);
            file.read()
        };
        fs::write(&path, "one").unwrap();
        let mut reloaded = Reloaded::new(&[&file], read).unwrap();
        let mut looks = |times: usize| {
            let seen = (0..times).map(|_| reloaded.look(&[&file], read).clone()).last();
            (seen.unwrap_or_default(), reads.get())
        };
        assert_eq!(looks(9), ("one".into(), 1));
        fs::write(&path, "other").unwrap();
        assert_eq!(looks(9), ("other".into(), 2));
        fs::remove_file(&path).unwrap();
        assert_eq!(looks(3), ("other".into(), 5), "it may be good a moment later");
        fs::write(&path, "third").unwrap();
        assert_eq!(looks(9), ("third".into(), 6));
    }
}
