//! The rights that the verbs need, as rules that this server understands.

use super::access::{Access, Rights};
use super::not_known;
use super::probes::{
    CommandProbe, NATIVE, NATIVE_FIELDS, NATIVE_IDEMPOTENCY, NATIVE_IDEMPOTENT_IDS, PROBES, Want,
};
use crate::dialect::Feature;
use crate::server::facts::Facts;

/// Which verb a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclJob {
    /// `export`, and the source of `copy`.
    Export,
    /// `import`, and the destination of `copy`.
    Import,
    /// The same with `--method commands`.
    Commands,
}

impl AclJob {
    /// How much this job wants a command.
    pub fn wants(self, probe: &CommandProbe) -> Want {
        match self {
            AclJob::Export => probe.export,
            AclJob::Import => probe.import,
            AclJob::Commands => match (probe.name, probe.import) {
                (NATIVE | NATIVE_FIELDS, _) => Want::Needed,
                // Without them streams lose a little, and that is counted.
                (NATIVE_IDEMPOTENCY | NATIVE_IDEMPOTENT_IDS, _) => Want::Useful,
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
/// `database_rules`: the server has rules about databases ([`has_database_rules`]).
///
/// # Errors
/// That it is not known which commands the server has, for people.
pub fn rule(
    job: AclJob,
    least: bool,
    rights: &Rights,
    database_rules: bool,
) -> Result<String, String> {
    // Not %R~* for an export, although reading is enough: no pattern matches the empty name, which
    // is a key like others, while ~* is not a pattern but means all keys.
    let mut words = vec!["~*".to_owned(), "-@all".to_owned()];
    if database_rules {
        words.push("alldbs".to_owned());
    }
    for probe in PROBES {
        let is_wanted = match job.wants(probe) {
            Want::Needed => true,
            Want::Useful => !least || is_for_all_keys(job, probe),
            Want::No => false,
        };
        if is_wanted && rights.concerns(probe) && *rights.of(probe.name) != Access::Absent {
            let rule = probe.rule();
            // Servers look up a command before they say "not now", but some not its subcommand.
            if let Some(text) = rights.of(probe.name).later()
                && rule.contains('|')
            {
                return Err(not_known(text));
            }
            words.push(rule);
        }
    }
    Ok(words.join(" "))
}

/// Whether a command that can be done without is needed to read all keys there are: those of all
/// databases, and those of slots that are on their way between nodes of a cluster.
fn is_for_all_keys(job: AclJob, probe: &CommandProbe) -> bool {
    let is_slots = matches!(probe.name, "CLUSTER NODES" | "ASKING");
    probe.name == "SELECT" || (job == AclJob::Export && is_slots)
}

/// Whether rules may name databases (`alldbs`, `resetdbs`, `db=0,1`).
pub fn has_database_rules(facts: &Facts) -> bool {
    facts.dialect().has(Feature::DatabaseRules)
}
