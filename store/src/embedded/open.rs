//! Opening and creating a store file: everything that can be wrong with it is found here, before
//! anything in it is changed.

use super::{
    EPOCH, Embedded, FACTS, FORMAT, FORMAT_FACT, REVISIONS, ROWS,
    file::StoreFile,
    mark::{self, Found, Mark, MarkFile},
};
use crate::view::Revision;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend};
use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A store file that cannot be used. It is as it was.
#[derive(Debug, thiserror::Error)]
#[error("store file {}", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: OpenProblem,
}

/// Why a store file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenProblem {
    /// Somebody has it open.
    #[error("another process uses it")]
    InUse,
    /// It is a file of another program.
    #[error("it is not a store file")]
    Foreign,
    /// It was written by another version of this program.
    #[error("it has format {found}, and this version reads format {FORMAT}")]
    Format {
        /// What it says.
        found: u64,
    },
    /// It does not hold what was written to it.
    #[error("it is damaged, and was left as it is")]
    Damaged(#[source] super::BoxError),
    /// It ends before what its mark says.
    #[error(
        "it ends at revision {}, but {} was acknowledged: it is damaged, or an older copy; remove {} to go on with what it holds",
        found.0, acknowledged.0, mark.display()
    )]
    Older {
        /// Its last revision.
        found: Revision,
        /// What its mark says.
        acknowledged: Revision,
        /// The file that says so.
        mark: PathBuf,
    },
    /// There is none, and there was one.
    #[error(
        "it is missing, but revision {} of it was acknowledged; put it back, or remove {} to begin with nothing",
        acknowledged.0, mark.display()
    )]
    Lost {
        /// What its mark says.
        acknowledged: Revision,
        /// The file that says so.
        mark: PathBuf,
    },
    /// The system refused.
    #[error("it cannot be read and written")]
    Io(#[source] io::Error),
}

impl From<io::Error> for OpenProblem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What redb complains about.
impl From<redb::Error> for OpenProblem {
    fn from(error: redb::Error) -> Self {
        let redb::Error::Io(error) = error else { return Self::Damaged(error.into()) };
        if error.kind() == ErrorKind::InvalidData {
            Self::Foreign
        } else if error.kind() == ErrorKind::UnexpectedEof {
            Self::Damaged(error.into())
        } else {
            Self::Io(error)
        }
    }
}

impl Embedded {
    /// Opens or creates the file at `path`. Blocks, for as long as it takes to read all of it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        at(path).map_err(|problem| OpenError { path: path.into(), problem })
    }

    /// Opens what a simulated disk holds.
    pub fn open_on(disk: impl StorageBackend) -> Result<Self, OpenError> {
        let opened = || {
            let database = checked(disk)?;
            let epoch = match facts(&database)? {
                Some(facts) => facts.epoch,
                None => begin(&database)?,
            };
            Ok(Self { path: "simulated".into(), database, epoch, mark: None })
        };
        opened().map_err(|problem| OpenError { path: "simulated".into(), problem })
    }
}

fn at(path: &Path) -> Result<Embedded, OpenProblem> {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => existing(path, locked(file)?),
        Err(error) if error.kind() == ErrorKind::NotFound => create(path),
        Err(error) => Err(error.into()),
    }
}

fn locked(file: File) -> Result<File, OpenProblem> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenProblem::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn existing(path: &Path, file: File) -> Result<Embedded, OpenProblem> {
    // redb would make a new database of an empty file.
    if file.metadata()?.len() == 0 {
        return Err(OpenProblem::Damaged("it is empty".into()));
    }
    let file = StoreFile::on_trial(file)?;
    let database = checked(file.clone())?;
    let facts = facts(&database)?.ok_or(OpenProblem::Foreign)?;
    let mark_path = mark::path(path);
    let epoch = match mark::read(&mark_path)? {
        Found::Mark(mark) if mark.epoch == facts.epoch && mark.revision > facts.revision => {
            let (found, acknowledged) = (facts.revision, mark.revision);
            return Err(OpenProblem::Older { found, acknowledged, mark: mark_path });
        }
        Found::Mark(mark) if mark.epoch == facts.epoch => facts.epoch,
        Found::Unreadable => facts.epoch,
        // A copy: somebody may remember places of the history that the original has had since.
        Found::Mark(_) | Found::Nothing => fastrand::u64(1..),
    };
    file.accept()?;
    if epoch != facts.epoch {
        set_fact(&database, EPOCH, epoch)?;
        tracing::info!(path = %path.display(), epoch, "store was copied, its history has a new epoch");
    }
    let mark = MarkFile::set(&mark_path, Mark { epoch, revision: facts.revision })?;
    sync_folder(path)?;
    Ok(Embedded { path: path.into(), database, epoch, mark: Some(mark) })
}

/// Makes a new file under another name first: one that is called `path` was complete once.
fn create(path: &Path) -> Result<Embedded, OpenProblem> {
    let mark_path = mark::path(path);
    if let Found::Mark(mark) = mark::read(&mark_path)?
        && mark.revision > Revision(0)
    {
        return Err(OpenProblem::Lost { acknowledged: mark.revision, mark: mark_path });
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = locked(options.open(&temporary)?)?;
    // Somebody else may have made the store between our look and our lock.
    let is_ours = fs::metadata(&temporary).is_ok_and(|there| {
        file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    });
    if path.exists() || !is_ours {
        return Err(OpenProblem::InUse);
    }
    file.set_len(0)?;
    let file = StoreFile::on_trial(file)?;
    file.accept()?;
    let database = checked(file)?;
    let epoch = begin(&database)?;
    // The mark first: a store without one counts as a copy.
    let mark = MarkFile::set(&mark_path, Mark { epoch, revision: Revision(0) })?;
    fs::rename(&temporary, path)?;
    sync_folder(path)?;
    Ok(Embedded { path: path.into(), database, epoch, mark: Some(mark) })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// redb trusts its file unless told otherwise: then a damaged page is found when it is read, as a
/// panic, or is not found at all.
fn checked(disk: impl StorageBackend) -> Result<Database, OpenProblem> {
    let mut builder = Database::builder();
    builder.set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(disk).map_err(redb::Error::from)?)
}

/// What a store says about itself.
struct Facts {
    epoch: u64,
    /// The last one of any kind, also of kinds that this program does not know.
    revision: Revision,
}

/// `None` if there are no tables at all: nothing was ever committed here.
fn facts(database: &Database) -> Result<Option<Facts>, OpenProblem> {
    let read = database.begin_read().map_err(redb::Error::from)?;
    if read.list_tables().map_err(redb::Error::from)?.next().is_none() {
        return Ok(None);
    }
    let Ok(facts) = read.open_table(FACTS) else { return Err(OpenProblem::Foreign) };
    let fact = |name| Ok::<_, redb::Error>(facts.get(name)?.map(|fact| fact.value()));
    let (Some(found), Some(epoch)) = (fact(FORMAT_FACT)?, fact(EPOCH)?) else {
        return Err(OpenProblem::Foreign);
    };
    if found != FORMAT {
        return Err(OpenProblem::Format { found });
    }
    let mut revision = Revision::default();
    let revisions = read.open_table(REVISIONS).map_err(redb::Error::from)?;
    for entry in revisions.iter().map_err(redb::Error::from)? {
        let (_, last) = entry.map_err(redb::Error::from)?;
        revision = revision.max(Revision(last.value()));
    }
    Ok(Some(Facts { epoch, revision }))
}

/// The first commit of a store. Returns the epoch that it draws.
fn begin(database: &Database) -> Result<u64, OpenProblem> {
    let epoch = fastrand::u64(1..);
    let begun = || {
        let write = database.begin_write()?;
        write.open_table(ROWS)?;
        write.open_table(REVISIONS)?;
        {
            let mut facts = write.open_table(FACTS)?;
            facts.insert(FORMAT_FACT, FORMAT)?;
            facts.insert(EPOCH, epoch)?;
        }
        write.commit()?;
        Ok::<_, redb::Error>(())
    };
    begun()?;
    Ok(epoch)
}

fn set_fact(database: &Database, name: &str, value: u64) -> Result<(), OpenProblem> {
    let set = || {
        let write = database.begin_write()?;
        write.open_table(FACTS)?.insert(name, value)?;
        write.commit()?;
        Ok::<_, redb::Error>(())
    };
    Ok(set()?)
}
