//! The code of the main crate as text.

use std::path::Path;

/// A file of code.
pub struct File {
    /// Its path below `src`: `sink/server/mod.rs`.
    pub path: String,
    /// Its code without its unit tests: comments and the contents of strings are blanks, so that
    /// lines stand where they stood.
    pub code: String,
}

impl File {
    /// The folder or file directly below `src` that it belongs to: `sink`, `pipe`.
    pub fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The number of the line with this byte, from 1.
    pub fn line_of(&self, at: usize) -> usize {
        1 + self.code[..at].matches('\n').count()
    }

    /// How many modules it is below the crate.
    pub fn depth(&self) -> usize {
        let folders = self.path.matches('/').count();
        match self.path.rsplit('/').next() {
            Some("mod.rs" | "lib.rs" | "main.rs") => folders,
            _ => folders + 1,
        }
    }
}

/// All files of `src`; those that are only tests are left out.
pub fn all() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    read(&root, "", &mut files);
    assert!(files.len() > 100, "{} files", files.len());
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

fn read(dir: &Path, below: &str, files: &mut Vec<File>) {
    for entry in std::fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "tests" {
            read(&path, &format!("{below}{name}/"), files);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let ends = [
                "#[cfg(test)]\nmod tests {",
                "#[cfg(test)]\npub(crate) mod tests {",
            ];
            let ends = ends.iter().filter_map(|end| text.find(end));
            let code = &text[..ends.min().unwrap_or(text.len())];
            files.push(File {
                path: format!("{below}{name}"),
                code: blanked(code),
            });
        }
    }
}

/// Code without comments and without what stands in strings.
fn blanked(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let (len, is_code) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => {
                (rest.find("*/").map_or(rest.len(), |at| at + 2), false)
            }
            '"' => (quoted_len(rest), false),
            'r' if is_raw(rest) && !ends_in_word(&out) => (raw_len(rest), false),
            // Other characters in quotes are no beginning of anything.
            '\'' if rest.starts_with("'\"'") => (3, false),
            '\'' if rest.starts_with("'\\\"'") => (4, false),
            _ => (first.len_utf8(), true),
        };
        let part = &rest[..len];
        match is_code {
            true => out.push_str(part),
            false => out.extend(part.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = &rest[len..];
    }
    out
}

/// Whether what stands so far ends in a name, of which an `r` would be a part; `br` begins a string.
fn ends_in_word(out: &str) -> bool {
    let before = out.strip_suffix('b').unwrap_or(out);
    before.chars().next_back().is_some_and(is_word)
}

/// Whether a name may hold it.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the string that begins here, with its quotes.
fn quoted_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_raw(text: &str) -> bool {
    text[1..].trim_start_matches('#').starts_with('"')
}

/// The same of `r"…"`, `r#"…"#`.
fn raw_len(text: &str) -> usize {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    text[body..]
        .find(&end)
        .map_or(text.len(), |at| body + at + end.len())
}

/// Where `word` stands in the code, as a whole word.
pub fn whole_words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| {
            !code[..at].chars().next_back().is_some_and(is_word)
                && !code[at + word.len()..].chars().next().is_some_and(is_word)
        })
}

#[test]
fn comments_and_strings_are_blanks() {
    let code = "a /* b */ c // d\n\"e \\\" f\" g br#\"h \" i\"# j '\"' k bar\"l\"";
    let left: Vec<_> = blanked(code)
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(left, ["a", "c", "g", "b", "j", "k", "bar"]);
    assert_eq!(blanked(code).len(), code.len());
}
