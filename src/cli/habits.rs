//! Flags of redis-cli that mean something else here, or nothing. `export -h HOST -p PORT > snap.rmz`
//! would otherwise write the help into the file and end well.

use std::ffi::OsString;

use clap::Command;

/// redis-cli's flags that take a value, and what stands for them here.
const FLAGS: [(char, &str); 5] = [
    ('h', "-h is help; a server is named redis://HOST:PORT"),
    (
        'p',
        "there is no -p; the port belongs to the URL: redis://HOST:PORT",
    ),
    (
        'a',
        "there is no -a; a password comes from --askpass, --password-file, SOURCE_REDIS_PASSWORD or \
         DESTINATION_REDIS_PASSWORD",
    ),
    (
        'n',
        "there is no -n; the database belongs to the URL (redis://HOST:PORT/N), or say --db N where \
         the verb has it",
    ),
    ('u', "there is no -u; a URL stands alone: redis://HOST:PORT"),
];

/// What to say to somebody who writes a flag of redis-cli with a value, which is never shown. The
/// arguments have the program's name first; `root` is the whole grammar. `None` for lines without such flags.
pub fn advice(root: &Command, args: &[OsString]) -> Option<&'static str> {
    let words: Vec<_> = args
        .iter()
        .skip(1)
        .map(|arg| arg.to_string_lossy())
        .collect();
    let words: Vec<&str> = words
        .iter()
        .map(AsRef::as_ref)
        .take_while(|word| *word != "--")
        .collect();
    let find = |word: &str| root.get_subcommands().find(|verb| verb.get_name() == word);
    let is_verb = |word: &str| find(word).is_some();
    let verb = words.iter().find_map(|word| find(word));
    let has_short = |c: char| {
        verb.is_some_and(|verb| verb.get_arguments().any(|arg| arg.get_short() == Some(c)))
    };
    words.iter().enumerate().find_map(|(at, word)| {
        let mut chars = word.strip_prefix('-')?.chars();
        let flag = chars.next()?;
        let (_, advice) = FLAGS
            .iter()
            .find(|(known, _)| *known == flag && !has_short(flag))?;
        let glued = chars.as_str();
        // Behind `-h` another flag of the kind may stand: `-h -p 6379`.
        let is_given = match glued {
            "" => words
                .get(at + 1)
                .is_some_and(|next| !next.starts_with('-') && !is_verb(next)),
            // -h127.0.0.1 and -p6379, but not -hq.
            glued => flag != 'h' || glued.contains(['.', ':']) || glued.starts_with("localhost"),
        };
        (is_given && !is_value_before(&words, at)).then_some(*advice)
    })
}

/// Whether the word at `at` is the value of a long flag before it, as in `--match -p x`.
fn is_value_before(words: &[&str], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).and_then(|at| words.get(at)) else {
        return false;
    };
    let names = [
        "--match",
        "--exclude",
        "--key",
        "--only-key",
        "--add-prefix",
        "--strip-prefix",
    ];
    names.contains(before)
}
