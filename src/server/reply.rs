//! What is said to a server and what it answers, in types of our own: the rooms outside know
//! neither the wire nor the library that packs it.

use redis::{FromRedisValue, ParsingError, ToRedisArgs, Value};

/// A whole reply (RESP2 or RESP3) to a question about the server; values of keys are read item by
/// item ([`super::resp::Item`]).
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Nothing: null bulk, null array, RESP3 null.
    Nil,
    /// A number, or a RESP3 boolean as 0 or 1.
    Int(i64),
    /// Bytes; also RESP3's doubles, big numbers and verbatim texts.
    Bulk(Vec<u8>),
    /// `+OK`.
    Okay,
    /// Any other status, such as `+QUEUED`.
    Status(String),
    /// An array, a set or a push.
    Array(Vec<Reply>),
    /// A RESP3 map, in the order of the server.
    Map(Vec<(Reply, Reply)>),
    /// An error inside an array; one that is the whole reply is the `Err` of
    /// [`super::Conn::reply`].
    Error(String),
}

/// A command and its arguments.
#[derive(Debug, Clone)]
pub struct Command(redis::Cmd);

/// A command of this name.
#[must_use]
pub fn cmd(name: &str) -> Command {
    Command(redis::cmd(name))
}

impl Command {
    /// A command whose name is the first argument.
    #[must_use]
    pub fn new() -> Self {
        Self(redis::Cmd::new())
    }

    /// Adds an argument, or several where `argument` is a list.
    pub fn arg<T: ToRedisArgs>(&mut self, argument: T) -> &mut Self {
        self.0.arg(argument);
        self
    }

    /// Appends the command as it goes over the wire.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        self.0.write_packed_command(out);
    }

    /// Its words, name first.
    pub fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.0.args_iter().filter_map(|word| match word {
            redis::Arg::Simple(word) => Some(word),
            _ => None,
        })
    }
}

impl Default for Command {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads a reply as a value of Rust: numbers, texts, bytes, pairs, lists and maps of those; `None`
/// for nil.
pub trait FromReply: Sized {
    /// The value.
    ///
    /// # Errors
    /// What the reply is instead.
    fn from_reply(reply: Reply) -> Result<Self, String>;
}

impl<T: FromRedisValue> FromReply for T {
    fn from_reply(reply: Reply) -> Result<Self, String> {
        match reply {
            Reply::Error(text) => Err(text),
            reply => T::from_redis_value(reply.into()).map_err(|error| error.to_string()),
        }
    }
}

/// See [`FromReply`].
///
/// # Errors
/// What the reply is instead.
pub fn from_reply<T: FromReply>(reply: Reply) -> Result<T, String> {
    T::from_reply(reply)
}

/// As [`from_reply`], of a reply that is still needed.
///
/// # Errors
/// What the reply is instead.
pub fn from_reply_ref<T: FromReply>(reply: &Reply) -> Result<T, String> {
    T::from_reply(reply.clone())
}

impl From<Reply> for Value {
    fn from(reply: Reply) -> Self {
        let all = |replies: Vec<Reply>| replies.into_iter().map(Into::into).collect();
        match reply {
            Reply::Nil => Self::Nil,
            Reply::Int(number) => Self::Int(number),
            Reply::Bulk(bytes) => Self::BulkString(bytes),
            Reply::Okay => Self::Okay,
            Reply::Status(text) | Reply::Error(text) => Self::SimpleString(text),
            Reply::Array(items) => Self::Array(all(items)),
            Reply::Map(pairs) => Self::Map(
                pairs
                    .into_iter()
                    .map(|(key, value)| (key.into(), value.into()))
                    .collect(),
            ),
        }
    }
}

/// Parts of a reply may stay as they are.
impl FromRedisValue for Reply {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let all = |values: Vec<Value>| {
            let replies = values.into_iter().map(Self::from_redis_value);
            replies.collect::<Result<Vec<_>, _>>()
        };
        Ok(match value {
            Value::Nil => Self::Nil,
            Value::Int(number) => Self::Int(number),
            Value::BulkString(bytes) => Self::Bulk(bytes),
            Value::Okay => Self::Okay,
            Value::SimpleString(text) => Self::Status(text),
            Value::Array(values) => Self::Array(all(values)?),
            Value::Map(pairs) => Self::Map(
                pairs
                    .into_iter()
                    .map(|(key, value)| {
                        Ok((Self::from_redis_value(key)?, Self::from_redis_value(value)?))
                    })
                    .collect::<Result<_, ParsingError>>()?,
            ),
            other => Err(ParsingError::from(format!(
                "{other:?} is not expected here"
            )))?,
        })
    }
}
