//! What control planes have in files.

use super::{Entry, Holder, Renewal, Sort};
use crate::admin_token;
use identity::{
    tls::{ClientTls, Ending, Role, ServerTls},
    token,
};
use jiff::Timestamp;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

const OURS: &str = "the control plane, in time";

fn by(ending: &Ending) -> Renewal {
    if ending.renewed {
        return Renewal::automatic(OURS);
    }
    match ending.role {
        Role::OwnAuthority => Renewal::by(
            "nobody: let others believe a new one first, then take its files away and start again",
        ),
        Role::Own | Role::Authority => {
            Renewal::by(format!("whoever writes the file of {}", ending.setting))
        }
    }
}

impl Holder for ServerTls {
    fn entries(&self, _soon: Timestamp) -> Vec<Entry> {
        let entry = |ending: Ending| {
            let sort = match ending.role {
                Role::Own => Sort::ServerCertificate,
                Role::OwnAuthority => Sort::ServerAuthority,
                Role::Authority => Sort::ClientAuthority,
            };
            Entry::one(sort, ending.setting.clone(), ending.not_after, by(&ending))
        };
        self.endings().into_iter().map(entry).collect()
    }
}

impl Holder for ClientTls {
    fn entries(&self, _soon: Timestamp) -> Vec<Entry> {
        let entry = |ending: Ending| {
            let sort = match ending.role {
                Role::Own => Sort::OwnCertificate,
                Role::OwnAuthority | Role::Authority => Sort::GlobalAuthority,
            };
            Entry::one(sort, ending.setting.clone(), ending.not_after, by(&ending))
        };
        self.endings().into_iter().map(entry).collect()
    }
}

/// A token of the control plane's own, in a file.
#[derive(Debug)]
pub struct TokenFile {
    sort: Sort,
    name: String,
    path: PathBuf,
    by: String,
}

impl TokenFile {
    /// The token that the control plane shows its global, in the file that `setting` names.
    #[must_use]
    pub fn own(setting: &str, path: &str, zone: &str) -> Arc<dyn Holder> {
        let by = format!("whoever writes the file of {setting}: atoll token zone {zone}");
        let (name, path) = (setting.into(), path.into());
        Arc::new(Self { sort: Sort::OwnToken, name, path, by })
    }

    /// The administrator's, in the data directory.
    #[must_use]
    pub fn admin(data: &Path) -> Arc<dyn Holder> {
        let path = data.join(admin_token::FILE);
        let by = "the control plane at its next start, if the file is gone".to_owned();
        Arc::new(Self { sort: Sort::AdminToken, name: admin_token::FILE.into(), path, by })
    }
}

impl Holder for TokenFile {
    fn entries(&self, _soon: Timestamp) -> Vec<Entry> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let entry = |ends| Entry::one(self.sort, &*self.name, ends, Renewal::by(&*self.by));
        token::ending(&text).map(entry).into_iter().collect()
    }
}
