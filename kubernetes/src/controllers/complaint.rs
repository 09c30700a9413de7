//! Why an object is not, or not wholly, what its author expects.

use std::fmt;

/// What is told about an object, as an Event beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Complaint {
    /// Whether it must be mended.
    pub weight: Weight,
    /// For programs: one word.
    pub reason: &'static str,
    /// For people: what is so, and what to do.
    pub note: String,
}

/// How much a complaint matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// It may be meant so.
    Normal,
    /// Something does not work.
    Warning,
}

impl Complaint {
    /// Something does not work.
    pub fn warning(reason: &'static str, note: impl fmt::Display) -> Self {
        Self { weight: Weight::Warning, reason, note: note.to_string() }
    }

    /// Something that may be meant so.
    pub fn normal(reason: &'static str, note: impl fmt::Display) -> Self {
        Self { weight: Weight::Normal, reason, note: note.to_string() }
    }
}

/// What shall become of the resources that are made of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict<T> {
    /// All that there shall be; `None`: what is there stays as it is.
    pub(super) shall: Option<Vec<T>>,
    /// What is told about it.
    pub(super) complaint: Option<Complaint>,
}

impl<T> Verdict<T> {
    /// There shall be nothing, and nobody wonders.
    pub(super) const fn nothing() -> Self {
        Self { shall: Some(Vec::new()), complaint: None }
    }

    /// There shall be nothing.
    pub(super) const fn none_because(complaint: Complaint) -> Self {
        Self { shall: Some(Vec::new()), complaint: Some(complaint) }
    }

    /// What is there stays as it is.
    pub(super) const fn kept_because(complaint: Complaint) -> Self {
        Self { shall: None, complaint: Some(complaint) }
    }

    /// There shall be `all`.
    pub(super) const fn of(all: Vec<T>) -> Self {
        Self { shall: Some(all), complaint: None }
    }

    /// The same, with something to tell.
    pub(super) fn but(mut self, complaint: Option<Complaint>) -> Self {
        self.complaint = complaint;
        self
    }
}
