//! Everything wrong with a configuration, each with its place.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, such as `kds.tls.certFile`, or the variable.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

/// Collects what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    prefix: String,
    found: Vec<Problem>,
}

impl Problems {
    /// Adds a problem of the setting at `path`, which is relative to the section.
    pub fn add(&mut self, path: impl fmt::Display, reason: impl fmt::Display) {
        let path = self.path(path);
        self.found.push(Problem { path, reason: reason.to_string() });
    }

    /// Checks a section: what `check` adds gets `section` before its path.
    pub fn at(&mut self, section: impl fmt::Display, check: impl FnOnce(&mut Self)) {
        let within = self.path(section);
        let outside = std::mem::replace(&mut self.prefix, within);
        check(self);
        self.prefix = outside;
    }

    fn path(&self, path: impl fmt::Display) -> String {
        let path = path.to_string();
        match (self.prefix.is_empty(), path.is_empty()) {
            (true, _) => path,
            (false, true) => self.prefix.clone(),
            (false, false) => format!("{}.{path}", self.prefix),
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Each problem, in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }

    pub(super) fn extend(&mut self, others: impl IntoIterator<Item = Problem>) {
        self.found.extend(others);
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.found
    }
}
