//! What vouches for changes that nobody announces: the server's counts of commands.

use crate::server::counts::{CommandCounts, Since};
use crate::source::server::unheard::Module;

/// The counts, as they were and as they are.
#[derive(Debug)]
pub(super) struct Evidence {
    /// When changes began to be listened to; `None` where they vouch for nothing.
    at_start: Option<CommandCounts>,
    /// When that was last looked at; `None` where the server does not say.
    now: Option<CommandCounts>,
    /// Databases were swapped, and nothing was scanned anew for it.
    swapped: bool,
    /// XINFO STREAM is refused: every stream is read again in the final round.
    looks_refused: bool,
}

impl Evidence {
    pub fn new(counts: Option<CommandCounts>) -> Self {
        Self {
            at_start: counts.clone(),
            now: counts,
            swapped: false,
            looks_refused: false,
        }
    }

    /// The scan begins anew.
    pub fn begin_anew(&mut self, counts: Option<CommandCounts>) {
        self.at_start.clone_from(&counts);
        self.now = counts;
        self.swapped = false;
    }

    /// Whether the server told its counts.
    pub fn is_told(&self) -> bool {
        self.now.is_some()
    }

    /// Takes a look at the counts of commands; why only a new scan can help, if that is so.
    pub fn note(&mut self, now: Option<CommandCounts>, in_cluster: bool) -> Option<&'static str> {
        let before = self.now.as_ref()?;
        let Some(now) = now else {
            return Some("the source no longer tells whether databases are swapped");
        };
        let since = now.since(before);
        self.swapped |= since == Since::Swapped;
        self.now = Some(now);
        if since == Since::Reset && in_cluster {
            // There is no SWAPDB in clusters. Only values of modules have to be read again now.
            self.at_start = None;
            return None;
        }
        since.means_rescan()
    }

    pub fn has_swapped(&self) -> bool {
        self.swapped
    }

    pub fn refuse_looks(&mut self) {
        self.looks_refused = true;
    }

    pub fn looks_refused(&self) -> bool {
        self.looks_refused
    }

    /// Why values of this type may have changed unheard since changes are listened to.
    pub fn doubt(&self, module: &Module) -> Option<String> {
        let (Some(before), Some(now)) = (&self.at_start, &self.now) else {
            return Some(format!(
                "the source does not tell by which commands values of a module ({}) were changed \
                 (INFO commandstats is refused, or was reset)",
                module.type_name()
            ));
        };
        let mut called = now.called_since(before);
        let command = called.find(|name| module.may_be_silent(name))?;
        Some(format!(
            "{} was called, and it is not known whether the source announces what it changes ({})",
            command.to_uppercase(),
            module.type_name(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::server::unheard::modules;

    fn counts(rows: &[(&str, u64)]) -> Option<CommandCounts> {
        let line = |(name, count): &(&str, u64)| format!("cmdstat_{name}:calls={count},usec=9\r\n");
        CommandCounts::parse(&rows.iter().map(line).collect::<String>())
    }

    #[test]
    fn swaps_and_what_hides_them_mean_another_scan() {
        let mut evidence = Evidence::new(counts(&[("get", 1)]));
        assert_eq!(evidence.note(counts(&[("get", 2)]), false), None);
        let swapped = counts(&[("get", 3), ("swapdb", 1)]);
        assert!(evidence.note(swapped.clone(), false).is_some());
        assert!(evidence.has_swapped());
        assert!(evidence.note(None, false).is_some(), "no longer told");
        evidence.begin_anew(swapped);
        assert!(!evidence.has_swapped() && evidence.is_told());
        let mut silent = Evidence::new(None);
        assert_eq!(silent.note(counts(&[("swapdb", 9)]), false), None);
        assert!(!silent.is_told());
    }

    #[test]
    fn counts_vouch_for_modules_only_as_long_as_they_are_whole() {
        let json = modules()
            .find(|module| module.type_name() == "ReJSON-RL")
            .expect("it is known");
        let mut evidence = Evidence::new(counts(&[("json.set", 5), ("get", 7)]));
        evidence.note(counts(&[("json.set", 6), ("get", 8)]), true);
        assert_eq!(evidence.doubt(json), None);
        let strange = counts(&[("json.set", 6), ("json.new", 1), ("get", 9)]);
        evidence.note(strange, true);
        assert!(
            evidence
                .doubt(json)
                .is_some_and(|text| text.contains("JSON.NEW"))
        );
        // Reset in a cluster: nothing is scanned anew for it, and nothing is vouched for.
        let mut evidence = Evidence::new(counts(&[("json.set", 5), ("get", 7)]));
        assert_eq!(evidence.note(counts(&[("get", 1)]), true), None);
        assert!(
            evidence
                .doubt(json)
                .is_some_and(|text| text.contains("reset"))
        );
    }
}
