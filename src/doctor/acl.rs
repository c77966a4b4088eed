//! The rights that the verbs need, as rules that this server understands.

use super::access::{Access, Rights};
use super::probes::{NATIVE, NATIVE_FIELDS, PROBES, Probe, Want};

/// Which verb a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// `export`, and the source of `copy`.
    Export,
    /// `import`, and the destination of `copy`.
    Import,
    /// The same with `--method commands`.
    Commands,
}

impl Job {
    /// How much this job wants a command.
    pub fn wants(self, probe: &Probe) -> Want {
        match self {
            Job::Export => probe.export,
            Job::Import => probe.import,
            Job::Commands => match (probe.name, probe.import) {
                (NATIVE | NATIVE_FIELDS, _) => Want::Needed,
                (_, Want::No) => Want::No,
                _ if matches!(probe.name, "RESTORE" | "EXISTS") => Want::No,
                _ => Want::Useful,
            },
        }
    }
}

/// A rule for `ACL SETUSER name on >password …`.
///
/// `least`: only what cannot be done without; otherwise everything that the job makes use of.
/// Commands that the server does not have are left out, because naming them would be an error.
pub fn rule(job: Job, least: bool, rights: &Rights) -> String {
    // Not %R~* for an export, although reading is enough: no pattern matches the empty name, which
    // is a key like others, while ~* is not a pattern but means all keys.
    let mut words = vec!["~*".to_owned(), "-@all".to_owned()];
    for probe in PROBES {
        let is_wanted = match job.wants(probe) {
            Want::Needed => true,
            // Least is what a whole server takes, all of its databases.
            Want::Useful => !least || probe.name == "SELECT",
            Want::No => false,
        };
        if is_wanted && rights.concerns(probe) && *rights.of(probe.name) != Access::Absent {
            words.push(probe.rule.to_owned());
        }
    }
    words.join(" ")
}
