//! Function libraries: in an RDB file and in the payload of FUNCTION DUMP they are the same bytes
//! (functions.c, functionDumpCommand).

use std::collections::BTreeSet;

use super::input::Input;
use super::opcode;
use crate::payload::{self, Slice, Source as _, walk, write};

/// The libraries in a FUNCTION DUMP, checked: an opcode and a string each, no footer.
///
/// # Errors
/// What is wrong with it, in words.
pub fn function_libraries(dump: &[u8]) -> Result<&[u8], String> {
    let (body, _) = payload::split(dump).map_err(|error| error.to_string())?;
    let mut slice = Slice::new(body);
    while !slice.rest().is_empty() {
        match slice.byte() {
            Ok(opcode::FUNCTION) => {
                walk::string(&mut slice).map_err(|error| error.to_string())?;
            }
            _ => return Err("they are not in the form that 7.0 and later write".to_owned()),
        }
    }
    Ok(body)
}

/// The source code of each library in a FUNCTION DUMP.
///
/// # Errors
/// What is wrong with it, in words.
pub fn function_codes(dump: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut rest = Input::new(function_libraries(dump)?);
    let mut codes = Vec::new();
    let damaged = |fault: super::error::Fault| fault.kind.to_string();
    while !rest.is_at_end().map_err(damaged)? {
        rest.byte().map_err(damaged)?;
        codes.push(rest.string().map_err(damaged)?);
    }
    Ok(codes)
}

/// Checked libraries without those whose name came before, and the names of these, as people are
/// shown them. A server refuses a file in which a name comes twice.
pub fn each_library_once(libraries: &[u8]) -> (Vec<u8>, Vec<String>) {
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    let mut slice = Slice::new(libraries);
    while !slice.rest().is_empty() {
        let start = slice.at();
        let walked = slice.byte().and_then(|_| walk::string(&mut slice));
        let whole = &libraries[start..slice.at()];
        let code = Input::new(whole.get(1..).unwrap_or_default()).string();
        let (Ok(()), Ok(code)) = (walked, code) else {
            // It was checked, so this does not happen; nothing is left out.
            once.extend_from_slice(&libraries[start..]);
            break;
        };
        let name = library_name(&code);
        if names.insert(name.clone()) {
            once.extend_from_slice(whole);
        } else {
            twice.push(crate::record::show_key(name.as_bytes()));
        }
    }
    (once, twice)
}

/// The RDB version that libraries came up with in their present form (Redis 7.0).
pub const FUNCTIONS_VERSION: u16 = 10;

/// The FUNCTION DUMP that holds libraries of this code, for servers that tell the code only.
pub fn functions_payload(codes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for code in codes {
        body.push(opcode::FUNCTION);
        write::string(&mut body, code);
    }
    payload::sign(&body, FUNCTIONS_VERSION)
}

/// The name in a library's first line, `#!lua name=mylib`.
pub fn library_name(code: &[u8]) -> String {
    let first = code.split(|&byte| byte == b'\n').next().unwrap_or(b"");
    String::from_utf8_lossy(first)
        .split_whitespace()
        .find_map(|word| word.strip_prefix("name=").map(str::to_owned))
        .unwrap_or_else(|| "(unnamed)".to_owned())
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
        let all = [&a[..], b, other_a].concat();
        let (once, twice) = each_library_once(&all);
        assert_eq!(once, [&a[..], b].concat());
        assert_eq!(twice, ["\"a\""]);
    }
}
