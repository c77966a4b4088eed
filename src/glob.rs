//! Redis globs, on bytes, as the server's `stringmatchlen` reads them (util.c), so that `--match`
//! means what `SCAN MATCH` means.
//!
//! - `*` crosses everything, `?` is any one byte, `\x` is `x` itself; a `\` at the end is a `\`.
//! - `[a-z]`, `[^a]`; ranges may stand backwards; `\` escapes inside too. A class without `]` ends
//!   with the pattern, so `[ab` is `[ab]` and `[^` is any byte. `[]` matches nothing. In `[a-]`
//!   the `]` is the end of the range.
//! - The empty key is matched by the empty pattern and by `*` alone, not by `**`.
//!
//! The pattern is read once into tokens. Every token but `*` takes exactly one byte, so going
//! back to the last `*` is enough and a match costs at most pattern × key steps; the server
//! reaches the same with its "skip longer matches".
//!
//! One thing differs between servers: a range with one end below 0x80 and one above compares
//! signed on x86 and unsigned on ARM. Here bytes are unsigned, and [`Glob::is_portable`] says
//! which patterns mean the same everywhere.

/// The server gives up, without a match, on patterns with more stars than this.
const STARS_MAX: usize = 1_000;

/// A pattern, ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    pattern: Vec<u8>,
    tokens: Vec<Token>,
    portable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Any bytes, also none.
    Star,
    /// Any one byte.
    Any,
    /// This byte.
    Byte(u8),
    /// One of these bytes.
    Class(Box<Set>),
}

/// A set of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Set([u64; 4]);

impl Set {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    fn invert(&mut self) {
        for word in &mut self.0 {
            *word = !*word;
        }
    }
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Token::Star => false,
            Token::Any => true,
            Token::Byte(own) => *own == byte,
            Token::Class(set) => set.contains(byte),
        }
    }
}

/// What every name begins with that a pattern matches: all before its first special character.
pub fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    &pattern[..end.unwrap_or(pattern.len())]
}

impl Glob {
    /// Reads a pattern. Every sequence of bytes is one.
    pub fn new(pattern: &[u8]) -> Self {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut portable = true;
        let mut stars = 0;
        let mut rest = pattern;
        while let [first, tail @ ..] = rest {
            rest = tail;
            tokens.push(match *first {
                b'*' => {
                    while let [b'*', tail @ ..] = rest {
                        rest = tail;
                    }
                    stars += 1;
                    Token::Star
                }
                b'?' => Token::Any,
                b'[' => {
                    let (set, tail) = read_class(rest, &mut portable);
                    rest = tail;
                    Token::Class(Box::new(set))
                }
                b'\\' => match rest {
                    [escaped, tail @ ..] => {
                        rest = tail;
                        Token::Byte(*escaped)
                    }
                    [] => Token::Byte(b'\\'),
                },
                byte => Token::Byte(byte),
            });
        }
        Self {
            pattern: pattern.to_vec(),
            tokens,
            portable: portable && stars <= STARS_MAX,
        }
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    /// Whether every server reads the pattern as we do.
    pub fn is_portable(&self) -> bool {
        self.portable
    }

    /// Whether every key matches.
    pub fn is_everything(&self) -> bool {
        self.pattern == b"*"
    }

    /// Whether `key` matches as a whole.
    pub fn matches(&self, key: &[u8]) -> bool {
        if key.is_empty() {
            return self.tokens.is_empty() || self.is_everything();
        }
        let mut token = 0;
        let mut at = 0;
        // Behind the last star: the token to go on with, and the byte to try it at next.
        let mut retry: Option<(usize, usize)> = None;
        while at < key.len() {
            match self.tokens.get(token) {
                Some(Token::Star) => {
                    token += 1;
                    if token == self.tokens.len() {
                        return true;
                    }
                    retry = Some((token, at + 1));
                }
                Some(one) if one.takes(key[at]) => {
                    token += 1;
                    at += 1;
                }
                _ => match retry {
                    Some((behind, next)) => {
                        token = behind;
                        at = next;
                        retry = Some((behind, next + 1));
                    }
                    None => return false,
                },
            }
        }
        self.tokens[token..]
            .iter()
            .all(|token| *token == Token::Star)
    }
}

/// Reads a class behind its `[`; returns it and what follows it.
fn read_class<'a>(pattern: &'a [u8], portable: &mut bool) -> (Set, &'a [u8]) {
    let mut set = Set::default();
    let (inverted, mut rest) = match pattern {
        [b'^', tail @ ..] => (true, tail),
        _ => (false, pattern),
    };
    loop {
        match rest {
            [b'\\', escaped, tail @ ..] => {
                set.insert(*escaped);
                rest = tail;
            }
            [b']', tail @ ..] => {
                rest = tail;
                break;
            }
            [] => break,
            [a, b'-', b, tail @ ..] => {
                let (low, high) = (*a.min(b), *a.max(b));
                *portable &= low.is_ascii() == high.is_ascii();
                (low..=high).for_each(|byte| set.insert(byte));
                rest = tail;
            }
            [byte, tail @ ..] => {
                set.insert(*byte);
                rest = tail;
            }
        }
    }
    if inverted {
        set.invert();
    }
    (set, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        Glob::new(pattern.as_bytes()).matches(key.as_bytes())
    }

    #[test]
    fn patterns_match_as_the_server_matches_them() {
        for (pattern, key, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "", false),
            ("**", "a", true),
            ("?", "", false),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*b*c", "a/b/c", true),
            ("a*b*c", "a-c-b", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hallo", true),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("[^", "x", true),
            ("[", "[", false),
            ("[ab", "b", true),
            ("[ab", "bc", false),
            ("[]", "]", false),
            ("[\\]]", "]", true),
            ("[\\", "\\", true),
            ("[a-", "-", true),
            ("[a-z", "q", true),
            ("[a-]", "_", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("\\", "\\", true),
            ("a\\", "a\\", true),
            ("user:*:name", "user:1:2:name", true),
            ("*?", "x", true),
            ("*??", "x", false),
            ("?*?", "xy", true),
        ] {
            assert_eq!(
                matches(pattern, key),
                expected,
                "{pattern:?} against {key:?}"
            );
        }
    }

    #[test]
    fn bytes_are_bytes() {
        assert!(Glob::new(b"[\x80-\xff]").matches(b"\x90"));
        assert!(Glob::new(b"a?c").matches(b"a\0c"));
        assert!(!Glob::new("?".as_bytes()).matches("ü".as_bytes()));
        assert!(Glob::new(b"[\x80-\xff]").is_portable());
        assert!(!Glob::new(b"[a-\xff]").is_portable());
        assert!(!Glob::new(&b"*a".repeat(1_001)).is_portable());
    }

    #[test]
    fn many_stars_do_not_blow_up() {
        let pattern = "a*".repeat(40) + "b";
        let key = "a".repeat(20_000);
        let started = std::time::Instant::now();
        assert!(!matches(&pattern, &key));
        assert!(started.elapsed().as_secs() < 5);
    }
}
