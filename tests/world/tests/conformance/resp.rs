//! Replies as they come over the wire.

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Text(String),
    Nil,
    Double(f64),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Set(Vec<Value>),
    Push(Vec<Value>),
}

/// The reply at the front of the bytes, and where it ends; `None` while it is not all there.
pub fn read(bytes: &[u8]) -> Option<(Value, usize)> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let text = String::from_utf8_lossy(&bytes[1..line]).into_owned();
    let number = || text.parse::<i64>().expect("a number");
    let at = line + 2;
    let rows = |count: i64, mut at: usize| {
        let mut rows = Vec::new();
        for _ in 0..count {
            let (row, length) = read(&bytes[at..])?;
            rows.push(row);
            at += length;
        }
        Some((rows, at))
    };
    Some(match bytes[0] {
        b'+' => (Value::Simple(text), at),
        b'-' => (Value::Error(text), at),
        b':' => (Value::Int(number()), at),
        b'_' => (Value::Nil, at),
        b',' => (Value::Double(text.parse().expect("a double")), at),
        b'#' => (Value::Int(i64::from(text == "t")), at),
        b'$' | b'=' if number() < 0 => (Value::Nil, at),
        kind @ (b'$' | b'=') => {
            let length = number() as usize;
            let content = bytes.get(at..at + length)?.to_vec();
            bytes.get(at + length + 1)?;
            let value = match kind {
                b'$' => Value::Bulk(content),
                _ => Value::Text(String::from_utf8_lossy(&content[4..]).into_owned()),
            };
            (value, at + length + 2)
        }
        b'*' if number() < 0 => (Value::Nil, at),
        kind @ (b'*' | b'~' | b'>') => {
            let (rows, at) = rows(number(), at)?;
            let value = match kind {
                b'*' => Value::Array(rows),
                b'~' => Value::Set(rows),
                _ => Value::Push(rows),
            };
            (value, at)
        }
        b'%' => {
            let (rows, at) = rows(2 * number(), at)?;
            let pairs = rows
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()));
            (Value::Map(pairs.collect()), at)
        }
        other => panic!("a reply of an unknown kind: {}", other as char),
    })
}

/// A request.
pub fn pack(words: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}
