//! Function libraries: in an RDB file and in the payload of FUNCTION DUMP they are the same bytes
//! (functions.c, functionDumpCommand).

use std::collections::BTreeSet;

use crate::dialect::Opcode;
use crate::payload::{
    self, Bytes, ErrorKind, FooterError, PayloadError, Slice, Source as _, text, walk, write,
};

/// Why a FUNCTION DUMP cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FunctionsError {
    /// Its footer is not believed.
    #[error(transparent)]
    Footer(#[from] FooterError),
    /// Something else stands where a library should.
    #[error("they are not in the form that FUNCTION DUMP writes")]
    NotALibrary,
    /// The code of a library is cut short or damaged.
    #[error(transparent)]
    Code(#[from] PayloadError),
}

/// The libraries in a FUNCTION DUMP, checked: an opcode and a string each, no footer.
fn function_libraries(dump: &[u8]) -> Result<&[u8], FunctionsError> {
    let (body, _) = payload::split(dump)?;
    let mut slice = Slice::new(body);
    while !slice.rest().is_empty() {
        match slice.byte() {
            Ok(byte) if byte == Opcode::Function.byte() => walk::string(&mut slice)?,
            _ => return Err(FunctionsError::NotALibrary),
        }
    }
    Ok(body)
}

/// The source code of each library in a FUNCTION DUMP.
///
/// # Errors
/// What is wrong with the dump.
pub fn function_codes(dump: &[u8]) -> Result<Vec<Vec<u8>>, FunctionsError> {
    let mut rest = Slice::new(function_libraries(dump)?);
    let mut codes = Vec::new();
    while !rest.rest().is_empty() {
        rest.byte()?;
        codes.push(text(&mut rest)?.into_owned());
    }
    Ok(codes)
}

/// What becomes of the libraries of a FUNCTION DUMP in a file that a server loads at its start.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loadable {
    /// Those that can be loaded, each name once, as they stand in a file.
    pub libraries: Vec<u8>,
    /// The names that came before, as people are shown them.
    pub twice: Vec<String>,
    /// Those that no server loads.
    pub flaws: Vec<Flaw>,
}

/// A function library that no server takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The library's name, or its number where the name cannot be read.
    pub name: String,
    /// What is wrong with it.
    pub kind: FlawKind,
}

/// What is wrong with a function library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlawKind {
    /// Its code is compressed, and does not expand.
    #[error("its code cannot be read: {0}")]
    Code(ErrorKind),
    /// The first line of its code is not the one that servers demand.
    #[error("its code does not begin with a line #!ENGINE name=NAME")]
    NoMetadata,
    /// Servers refuse its name.
    #[error("its name has other characters than letters, digits and underscores, or none")]
    BadName,
}

impl Flaw {
    /// What messages call the library.
    pub fn title(&self) -> Vec<u8> {
        format!("function library {}", self.name).into_bytes()
    }
}

/// Sorts the libraries of a FUNCTION DUMP. A server refuses a whole file for one library whose code
/// cannot be expanded or does not name itself, and for a name that comes twice.
///
/// # Errors
/// Where the libraries cannot be told apart.
pub fn loadable_libraries(dump: &[u8]) -> Result<Loadable, FunctionsError> {
    let body = function_libraries(dump)?;
    let mut sorted = Loadable::default();
    let mut names = BTreeSet::new();
    let mut slice = Slice::new(body);
    for number in 1.. {
        let start = slice.at();
        if slice.rest().is_empty() {
            break;
        }
        slice.byte()?;
        walk::string(&mut slice)?;
        let whole = &body[start..slice.at()];
        match named_code(&whole[1..]) {
            Ok(name) if names.insert(name.clone()) => sorted.libraries.extend_from_slice(whole),
            Ok(name) => sorted.twice.push(crate::show_key(name.as_bytes())),
            Err((name, kind)) => sorted.flaws.push(Flaw {
                name: name.unwrap_or_else(|| format!("number {number}")),
                kind,
            }),
        }
    }
    Ok(sorted)
}

/// The libraries of a FUNCTION DUMP that no server takes.
///
/// # Errors
/// Where they cannot be told apart.
pub fn library_flaws(dump: &[u8]) -> Result<Vec<Flaw>, FunctionsError> {
    loadable_libraries(dump).map(|sorted| sorted.flaws)
}

/// The name of the library whose code this RDB string is; or the name, if there is one, and what is
/// wrong.
fn named_code(string: &[u8]) -> Result<String, (Option<String>, FlawKind)> {
    let code: Bytes<'_> =
        text(&mut Slice::new(string)).map_err(|error| (None, FlawKind::Code(error.kind)))?;
    metadata(&code).map_err(|kind| {
        let name = Some(library_name(&code)).filter(|name| name != UNNAMED);
        (name, kind)
    })
}

/// The name in a library's first line, as a server demands it (functions.c,
/// functionExtractLibMetaData and functionsVerifyName). Which engines there are only the server
/// knows.
fn metadata(code: &[u8]) -> Result<String, FlawKind> {
    let end = code.iter().position(|&byte| byte == b'\n');
    let first = end.map(|end| &code[..end]);
    // To a server a line ends at a zero byte.
    let first = first.filter(|line| line.starts_with(b"#!") && !line.contains(&0));
    let words = first.and_then(words).ok_or(FlawKind::NoMetadata)?;
    // The first word is the engine.
    let mut names = words.iter().skip(1).map(|word| name_in(word));
    let (Some(Some(name)), None) = (names.next(), names.next()) else {
        return Err(FlawKind::NoMetadata);
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match !name.is_empty() && name.bytes().all(is_plain) {
        true => Ok(name),
        false => Err(FlawKind::BadName),
    }
}

/// The name in a word `name=mylib`, in which `name` may be in any case.
fn name_in(word: &[u8]) -> Option<String> {
    let (key, name) = word.split_at_checked("name=".len())?;
    key.eq_ignore_ascii_case(b"name=")
        .then(|| String::from_utf8_lossy(name).into_owned())
}

/// The words of a line as a server splits it (sds.c, sdssplitargs); `None` where a quote is not
/// closed, or something follows right behind it.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let Some((byte, after)) = rest.split_first()
            && is_space(*byte)
        {
            rest = after;
        }
        if rest.is_empty() {
            return Some(words);
        }
        words.push(take_word(&mut rest)?);
    }
}

/// What C calls white space.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn take_word(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut word = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => break,
            quote @ (b'"' | b'\'') => {
                *rest = after;
                take_quoted(quote, rest, &mut word)?;
                let ends_there = rest.first().is_none_or(|&byte| is_space(byte));
                return ends_there.then_some(word);
            }
            _ => word.push(byte),
        }
        *rest = after;
    }
    Some(word)
}

/// The rest of a quoted word, with its escapes undone, up to and with the closing quote.
fn take_quoted(quote: u8, rest: &mut &[u8], word: &mut Vec<u8>) -> Option<()> {
    loop {
        let (&byte, after) = rest.split_first()?;
        let (taken, used) = match (byte, quote, after) {
            (byte, quote, _) if byte == quote => {
                *rest = after;
                return Some(());
            }
            (b'\\', b'\'', [b'\'', ..]) => (b'\'', 1),
            (b'\\', b'"', [b'x', high, low, ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) << 4 | hex_digit(*low), 3)
            }
            (b'\\', b'"', [escaped, ..]) => (unescaped(*escaped), 1),
            (byte, _, _) => (byte, 0),
        };
        word.push(taken);
        *rest = &after[used..];
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase().wrapping_sub(b'a') + 10,
    }
}

fn unescaped(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The RDB version that libraries came up with in their present form.
pub use crate::dialect::opcode::FUNCTION_SINCE as FUNCTIONS_VERSION;

/// The FUNCTION DUMP that holds libraries of this code, for servers that tell the code only.
pub fn functions_payload(codes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for code in codes {
        body.push(Opcode::Function.byte());
        write::string(&mut body, code);
    }
    payload::sign(&body, FUNCTIONS_VERSION)
}

/// What a library is called whose code does not name it.
const UNNAMED: &str = "(unnamed)";

/// The name in a library's first line, `#!lua name=mylib`.
pub fn library_name(code: &[u8]) -> String {
    let first = code.split(|&byte| byte == b'\n').next().unwrap_or(b"");
    // Where no server can read the line, its name still tells people which library is meant.
    let plain = || first.split(u8::is_ascii_whitespace).map(<[u8]>::to_vec);
    words(first)
        .unwrap_or_else(|| plain().collect())
        .iter()
        .find_map(|word| name_in(word))
        .unwrap_or_else(|| UNNAMED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_their_code() {
        let dump = payload::sign(b"\xf5\x03abc\xf5\xc0\x07", 10);
        assert_eq!(
            function_libraries(&dump).unwrap(),
            b"\xf5\x03abc\xf5\xc0\x07"
        );
        assert_eq!(
            function_codes(&dump).unwrap(),
            [b"abc".to_vec(), b"7".to_vec()]
        );
        let codes = [b"abc".to_vec(), vec![b'x'; 20_000]];
        assert_eq!(function_codes(&functions_payload(&codes)).unwrap(), codes);
        assert_eq!(
            function_codes(&payload::sign(b"", 10)).unwrap(),
            [[0; 0]; 0]
        );
        for bad in [&b"\xf6\x01a"[..], b"\xf5\x04abc", b"\xf5"] {
            assert!(function_codes(&payload::sign(bad, 10)).is_err());
        }
        assert!(function_codes(b"\xf5\x03abc").is_err());
    }

    #[test]
    fn a_library_that_comes_twice_is_left_out_the_second_time() {
        let a = b"\xf5\x10#!lua name=a\nabc";
        let b = b"\xf5\x10#!lua name=b\nabc";
        let other_a = b"\xf5\x10#!lua name=a\nxyz";
        let dump = payload::sign(&[&a[..], b, other_a].concat(), 10);
        let sorted = loadable_libraries(&dump).unwrap();
        assert_eq!(sorted.libraries, [&a[..], b].concat());
        assert_eq!(sorted.twice, ["\"a\""]);
        assert_eq!(sorted.flaws, []);
        // However the name is written.
        let quoted = b"\xf5\x15#!lua name=\"\\x61\"\nabc";
        let dump = payload::sign(&[&a[..], quoted].concat(), 10);
        assert_eq!(loadable_libraries(&dump).unwrap().twice, ["\"a\""]);
    }

    /// A server refuses a whole file for one of these.
    #[test]
    fn a_library_that_no_server_loads_is_sorted_out() {
        let good = b"\xf5\x10#!lua name=a\nabc";
        let plain = |code: &str| [&[0xf5, code.len() as u8], code.as_bytes()].concat();
        // LZF: 3 bytes that would be 9, and refer to what was never there.
        let damaged = b"\xf5\xc3\x03\x09\xe0\x00\x05";
        for (bad, name) in [
            (damaged.to_vec(), "number 2"),
            (plain("return 1"), "number 2"),
            (plain("#!lua name=x"), "x"),
            (plain("#!lua\nabc"), "number 2"),
            (plain("#!lua name=x y=1\nabc"), "x"),
            (plain("#!lua name=x name=y\nabc"), "x"),
            (plain("#!lua name=x-y\nabc"), "x-y"),
            (plain("#!lua name=\nabc"), ""),
            (plain("#lua name=x\nabc"), "x"),
            (plain("#! lua name=x\nabc"), "x"),
            (plain("#!lua name=\"x\"y\nabc"), "\"x\"y"),
            (plain("#!lua name=\"x\nabc"), "\"x"),
            (plain("#!lua name=x\0\nabc"), "x\0"),
        ] {
            let dump = payload::sign(&[&good[..], &bad].concat(), 10);
            let sorted = loadable_libraries(&dump).unwrap();
            assert_eq!(sorted.libraries, good, "{bad:?}");
            let names: Vec<_> = sorted.flaws.iter().map(|flaw| &flaw.name[..]).collect();
            assert_eq!(names, [name], "{bad:?}");
        }
        for good in [
            "#!lua name=x\nabc",
            "#!LUA  NAME=x_1 \r\n",
            "#!js \"name=x\"\n",
            "#!lua name=\"lib\\x42\"\n",
            "#!lua 'name=lib'\n",
            "#!lua \"na\\me=\\lib\"\n",
        ] {
            let dump = payload::sign(&plain(good), 10);
            assert_eq!(library_flaws(&dump).unwrap(), [], "{good:?}");
        }
        assert_eq!(library_name(b"#!lua name=\"lib\\x42\"\n"), "libB");
        assert_eq!(library_name(b"#!lua name=\"\\l\\\"b\"\n"), "l\"b");
        assert_eq!(library_name(b"#!lua 'name=a\\'b'\n"), "a'b");
        assert!(library_flaws(&payload::sign(b"\xf5\x09a", 10)).is_err());
    }
}
