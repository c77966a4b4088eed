//! What must be known of a command line even if it cannot be parsed: which verb it is, whether it
//! asks for JSON, and whether standard output is to carry data. Usage errors are told by it too.

use std::ffi::{OsStr, OsString};

use clap::{ArgAction, Args as _, Command};

use super::SelectArgs;
use crate::verb::{Data, Verb};

/// A command line in outline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The verb; `None` if there is none that is known.
    pub verb: Option<Verb>,
    /// Whether there is `--json`.
    pub json: bool,
    /// Whether there is `--progress json`.
    pub json_progress: bool,
    /// Whether standard output is to carry an archive, or other data that is no report.
    pub stdout_is_data: bool,
    /// What stands where it is no flag nor the value of one, without program name and verb.
    positionals: Vec<OsString>,
    /// Names of flags, with their values where they have some.
    flags: Vec<(String, Option<OsString>)>,
}

impl Outline {
    /// The outline of these arguments, program name first; `root` is the whole grammar, with these verbs.
    pub fn of(root: &Command, verbs: &[Verb], args: &[OsString]) -> Self {
        let mut outline = Self::default();
        let mut command = root;
        let mut rest = args.iter().skip(1);
        while let Some(arg) = rest.next() {
            let text = arg.to_string_lossy();
            if text == "--" {
                outline.positionals.extend(rest.by_ref().cloned());
            } else if let Some(long) = text.strip_prefix("--") {
                let (name, mut value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(OsString::from(value))),
                    None => (long, None),
                };
                if value.is_none() && takes_value(command, |arg| arg.get_long() == Some(name)) {
                    value = rest.next().cloned();
                }
                outline.flags.push((name.to_owned(), value));
            } else if text.len() > 1 && text.starts_with('-') {
                outline.short(command, &text, &mut rest);
            } else if outline.verb.is_none()
                && let Some(verb) = root.find_subcommand(&*text)
            {
                command = verb;
                let known = verbs.iter().find(|verb| verb.name == text);
                outline.verb = known.copied();
            } else {
                outline.positionals.push(arg.clone());
            }
        }
        outline.conclude();
        outline
    }

    /// `-qo FILE`: flags without values, the last perhaps with one.
    fn short<'a>(
        &mut self,
        command: &Command,
        text: &str,
        rest: &mut impl Iterator<Item = &'a OsString>,
    ) {
        for (at, c) in text.char_indices().skip(1) {
            if takes_value(command, |arg| arg.get_short() == Some(c)) {
                let glued = text[at + c.len_utf8()..].trim_start_matches('=');
                let value = match glued {
                    "" => rest.next().cloned(),
                    glued => Some(glued.into()),
                };
                return self.flags.push((c.to_string(), value));
            }
            self.flags.push((c.to_string(), None));
        }
    }

    /// The flags that restrict the run to some keys, as they were written; `None` without any.
    pub fn selection(&self) -> Option<String> {
        let known = SelectArgs::augment_args(Command::new("selection"));
        let selects = |name: &str| {
            let mut flags = known.get_arguments();
            name == "only-key" || flags.any(|flag| flag.get_long() == Some(name))
        };
        let given = self.flags.iter().filter(|(name, _)| selects(name));
        let words: Vec<String> = given
            .map(|(name, value)| match value {
                Some(value) => format!("--{name} {}", value.to_string_lossy()),
                None => format!("--{name}"),
            })
            .collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    fn conclude(&mut self) {
        self.json = self.has("json");
        self.json_progress = self.value("progress").is_some_and(|style| style == "json");
        let data = self.verb.map_or(Data::Never, |verb| verb.data);
        let output = match data {
            Data::UnlessSecond => self.positionals.get(1).map(OsString::as_os_str),
            _ => self.value("output").or_else(|| self.value("o")),
        };
        let is_file = output.is_some_and(|name| name != "-");
        let is_quiet = self.has("quiet") || self.has("q");
        let writes_data = match data {
            Data::Never => false,
            Data::UnlessOutputJsonOrQuiet => !self.json && !is_quiet,
            Data::UnlessOutput | Data::UnlessSecond => true,
        };
        self.stdout_is_data = writes_data && !is_file && !self.has("dry-run");
    }

    /// Whether a flag is there, by its name without dashes.
    fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|(known, _)| known == name)
    }

    fn value(&self, name: &str) -> Option<&OsStr> {
        let mut given = self.flags.iter().filter(|(known, _)| known == name);
        given.next_back()?.1.as_deref()
    }
}

fn takes_value(command: &Command, is_meant: impl Fn(&clap::Arg) -> bool) -> bool {
    let mut arguments = command.get_arguments();
    arguments.any(|arg| {
        let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        takes && !arg.is_require_equals_set() && is_meant(arg)
    })
}
