//! Patterns of names, as KEYS and SCAN take them.

/// Whether `text` is of the form `pattern`.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p == pattern.len() && t == text.len() {
            return true;
        }
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        let step = match (pattern.get(p), text.get(t)) {
            (Some(_), Some(&byte)) => one(&pattern[p..], byte),
            _ => None,
        };
        match (step, star) {
            (Some(length), _) => (p, t) = (p + length, t + 1),
            (None, Some((after, from))) if from < text.len() => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// How many bytes of the pattern the byte fits; `None` if it does not.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', ..] => class(pattern, byte),
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let is_not = pattern.get(1) == Some(&b'^');
    let mut at = 1 + usize::from(is_not);
    let mut found = false;
    loop {
        match pattern.get(at..) {
            None | Some([]) => break,
            Some([b']', ..]) => {
                at += 1;
                break;
            }
            Some([b'\\', escaped, ..]) => {
                found |= *escaped == byte;
                at += 2;
            }
            Some([low, b'-', high, ..]) => {
                let (low, high) = (low.min(high), low.max(high));
                found |= (*low..=*high).contains(&byte);
                at += 3;
            }
            Some([plain, ..]) => {
                found |= *plain == byte;
                at += 1;
            }
        }
    }
    (found != is_not).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h\\*", "h*", true),
            ("h\\*", "hx", false),
            ("**x*", "aaxb", true),
            ("", "a", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                is,
                "{pattern} {text}"
            );
        }
    }
}
