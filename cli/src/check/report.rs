//! What was looked at, and how it is said.

use super::cluster::Refusal;
use crate::output::{Format, Output};
use anyhow::Result;
use serde::Serialize;
use serde_json::json;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Fine,
    /// It works, but not as it should.
    Warning,
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What ought to be.
    check: String,
    outcome: Outcome,
    /// What is instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

/// Things that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Group {
    group: &'static str,
    checks: Vec<Finding>,
}

impl Group {
    pub(super) fn new(group: &'static str) -> Self {
        Self { group, checks: Vec::new() }
    }

    pub(super) fn fine(&mut self, check: impl Into<String>) {
        let check = check.into();
        self.checks.push(Finding { check, outcome: Outcome::Fine, found: None, todo: None });
    }

    pub(super) fn warn(
        &mut self,
        check: impl Into<String>,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) {
        self.add(Outcome::Warning, check.into(), found.into(), todo.into());
    }

    pub(super) fn fail(
        &mut self,
        check: impl Into<String>,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) {
        self.add(Outcome::Failure, check.into(), found.into(), todo.into());
    }

    fn add(&mut self, outcome: Outcome, check: String, found: String, todo: String) {
        self.checks.push(Finding { check, outcome, found: Some(found), todo: Some(todo) });
    }

    /// What could not be read, and so not be judged.
    pub(super) fn unread(&mut self, check: impl Into<String>, refusal: &Refusal) {
        match refusal {
            Refusal::Forbidden(_) => {
                self.warn(check, refusal.to_string(), "Run it as a user who may read this.");
            }
            Refusal::Absent | Refusal::Failed(_) => {
                self.fail(
                    check,
                    refusal.to_string(),
                    "Try again; if it stays, look at the API server.",
                );
            }
        }
    }

    /// Whether the first check is fine, without which the others mean nothing.
    pub(super) fn begins_well(&self) -> bool {
        self.checks.first().is_some_and(|finding| finding.outcome == Outcome::Fine)
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|finding| finding.outcome == outcome).count()
    }
}

/// All groups, said one by one as they come.
#[derive(Debug)]
pub(super) struct Report<'a, 'o> {
    format: Format,
    out: &'a mut Output<'o>,
    groups: Vec<Group>,
}

impl<'a, 'o> Report<'a, 'o> {
    pub(super) fn new(format: Format, out: &'a mut Output<'o>) -> Self {
        Self { format, out, groups: Vec::new() }
    }

    pub(super) fn add(&mut self, group: Group) -> Result<()> {
        if self.format == Format::Table {
            self.out.line(group.group)?;
            for finding in &group.checks {
                self.say(finding)?;
            }
            self.out.line("")?;
        }
        self.groups.push(group);
        Ok(())
    }

    fn say(&mut self, finding: &Finding) -> Result<()> {
        let mark = match finding.outcome {
            Outcome::Fine => "✓",
            Outcome::Warning => "‼",
            Outcome::Failure => "×",
        };
        self.out.line(format_args!("  {mark} {}", finding.check))?;
        for text in [&finding.found, &finding.todo].into_iter().flatten() {
            for line in text.lines() {
                self.out.line(format_args!("      {line}"))?;
            }
        }
        Ok(())
    }

    /// Says the end of it: whether nothing failed.
    pub(super) fn end(self) -> Result<bool> {
        let count = |outcome| self.groups.iter().map(|group| group.count(outcome)).sum::<usize>();
        let (failures, warnings) = (count(Outcome::Failure), count(Outcome::Warning));
        if self.format == Format::Table {
            let many = |count, what| match count {
                1 => format!("1 {what}"),
                _ => format!("{count} {what}s"),
            };
            self.out.line(match (failures, warnings) {
                (0, 0) => "Everything is well.".to_owned(),
                _ => format!("{}, {}.", many(failures, "failure"), many(warnings, "warning")),
            })?;
        } else {
            let groups = serde_json::to_value(&self.groups)?;
            self.out.document(self.format, &json!({ "well": failures == 0, "groups": groups }))?;
        }
        Ok(failures == 0)
    }
}
