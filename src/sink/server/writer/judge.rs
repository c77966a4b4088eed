//! What an answer means, as pure functions: of what was asked, and what was said.

use crate::payload::has_metadata;
use crate::policy::{Method, OnConflict};
use crate::server::cluster::Redirect;
use crate::server::conn::is_forbidden;
use crate::server::facts::Facts;
use crate::sink::server::foresee::Way;
use crate::sink::server::refusal::{RestoreError, is_bad_format, is_replaceable};

use super::item::{Item, Task};

/// What is known where an error reply is read.
pub(super) struct Asked<'a> {
    pub item: &'a Item,
    /// Who answered.
    pub facts: &'a Facts,
    pub is_cluster: bool,
    /// It was a primary when this run began, or it is said to be one.
    pub was_primary: bool,
    pub method: Method,
}

/// What an error reply means for a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another node is the one, or it is not now.
    Redirected(Redirect),
    /// The primary became a replica.
    Demoted,
    /// A tombstone: whether the key stands cannot be seen.
    Unseen,
    /// Dry run: EXISTS is refused; RESTORE tells the same.
    TryInstead,
    /// A temporary key was not removed.
    NotRemoved,
    /// The destination does not take the value's key metadata.
    MetadataRefused,
    /// The key is there already.
    Standing,
    /// The same again, later.
    Later,
    /// The database is not to be had by this key.
    Database,
    /// The key is refused.
    Refused {
        reason: String,
        hint: Option<String>,
    },
    /// Native commands take the place of RESTORE.
    ByCommands,
    /// Nothing can be foretold, or written: the run ends. With what to do about it, where that is
    /// known.
    End(Option<&'static str>),
}

impl Asked<'_> {
    /// What this error reply means.
    pub fn judge(&self, text: &str) -> Verdict {
        let item = self.item;
        if self.is_cluster
            && let Some(redirect) = Redirect::parse(text)
        {
            return Verdict::Redirected(redirect);
        }
        if text.starts_with("READONLY") && self.was_primary {
            return Verdict::Demoted;
        }
        match item.task {
            Task::Ask if is_forbidden(text) => return Verdict::Unseen,
            Task::Look if is_forbidden(text) && !item.is_by_commands() => {
                return Verdict::TryInstead;
            }
            Task::CleanUp(_) => return Verdict::NotRemoved,
            _ => {}
        }
        let head = item.record.value.head();
        if is_bad_format(text)
            && matches!(item.task, Task::Restore { .. } | Task::Look)
            && has_metadata(item.context.family, head)
        {
            return Verdict::MetadataRefused;
        }
        let refusal = RestoreError::of(text, self.facts, &item.context);
        match refusal.of_value(item.context.family, head) {
            RestoreError::Standing if item.is_restored() => Verdict::Standing,
            // No other command answers so: what it did, or what stands there, nobody knows.
            RestoreError::Standing => Verdict::Refused {
                reason: match item.is_by_commands() {
                    true => format!("the destination answered a native command with {text}"),
                    false => {
                        let command = item.task.command();
                        format!("the destination answered {command} with {text}")
                    }
                },
                hint: None,
            },
            RestoreError::Later => Verdict::Later,
            RestoreError::Database => Verdict::Database,
            RestoreError::Key { reason, hint } => Verdict::Refused { reason, hint },
            RestoreError::Run { advice } => self.judge_end(text, advice),
        }
    }

    /// No key is to be had there, by what was asked.
    fn judge_end(&self, text: &str, advice: &'static str) -> Verdict {
        let item = self.item;
        match item.task {
            // Without DEL the others arrive all the same.
            Task::Delete { .. } if is_forbidden(text) => Verdict::Refused {
                reason: format!("it is to be removed, and the destination refuses DEL: {text}"),
                hint: None,
            },
            // Nothing can be foretold where nobody may look.
            Task::Look | Task::Try(Way::Set | Way::Rename) if is_forbidden(text) => {
                Verdict::End(None)
            }
            // Some services and users have everything but RESTORE.
            _ if is_replaceable(text) && self.method == Method::Auto && !item.is_by_commands() => {
                Verdict::ByCommands
            }
            _ => Verdict::End(Some(advice)),
        }
    }
}

/// What is known of a key that stands already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stands {
    pub task: Task,
    /// Another key of the source was written under its name.
    pub collides: bool,
    /// The record may have been written already.
    pub is_doubtful: bool,
    /// An earlier record of it stood there before this run wrote anything.
    pub stood_untouched: bool,
    pub is_own: bool,
    /// What stands is read back.
    pub compares: bool,
}

/// What is to be done where a key stands already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Another key of the source has the name.
    Collision,
    /// It was told to replace what stands: again would be for ever.
    NotReplaced,
    /// It is read back and compared.
    Compare,
    /// It is this run's own, and replaced.
    Replace,
    /// It is left alone.
    Skip,
}

impl Stands {
    /// What is to be done.
    pub fn judge(self) -> Standing {
        match self.task {
            _ if self.collides => Standing::Collision,
            Task::Restore { replace: true, .. } => Standing::NotReplaced,
            // Nobody knows whose it is, but what it is can be seen; or an earlier record of it stood
            // there already, and this one may stand there as well.
            _ if self.is_doubtful || self.stood_untouched => Standing::Compare,
            _ if self.is_own => Standing::Replace,
            _ if !self.compares => Standing::Skip,
            _ => Standing::Compare,
        }
    }
}

/// Dry run: what becomes of a key, by whether it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreseen {
    /// Another key of the source has the name.
    Collision,
    /// It is read back and compared.
    Compare,
    /// It would be written in place of what this run wrote.
    ReplacesOwn,
    /// It would be skipped.
    Skipped,
    /// It would be written.
    Written,
}

/// Dry run: what becomes of a key that `exists`, or not.
pub(super) fn foresee(on_conflict: OnConflict, stands: Stands, exists: bool) -> Foreseen {
    match on_conflict {
        OnConflict::Fail | OnConflict::Skip if stands.collides => Foreseen::Collision,
        _ if stands.stood_untouched && exists => Foreseen::Compare,
        _ if stands.is_own => Foreseen::ReplacesOwn,
        OnConflict::Fail | OnConflict::Skip if exists && stands.compares => Foreseen::Compare,
        OnConflict::Skip if exists => Foreseen::Skipped,
        _ => Foreseen::Written,
    }
}

#[cfg(test)]
super::tests::named!(Verdict: Redirected, Demoted, Unseen, TryInstead, NotRemoved, MetadataRefused, Standing, Later, Database, Refused, ByCommands, End);

#[cfg(test)]
super::tests::named!(Standing: Collision, NotReplaced, Compare, Replace, Skip);

#[cfg(test)]
super::tests::named!(Foreseen: Collision, Compare, ReplacesOwn, Skipped, Written);
