//! What each action may be answered, in one place.
//!
//! Whatever else a server says is not understood: whether it did what it was told is not known, and
//! which answer the next one belongs to is not known either. Then the connection is given up, and
//! what was in flight is checked again on a new one.

use std::borrow::Cow;

use super::writer::{Due, Task};
use crate::server::resp::Item;

/// What a command may be answered with, but for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Good {
    Ok,
    /// One key was there, or was not.
    Flag,
    Count,
    /// Only an error: its arguments cannot be right.
    Nothing,
}

/// The command that a reply is for, and what it may be answered with.
fn expected(due: &Due<'_>) -> (&'static str, Good) {
    match due {
        Due::Asking => ("ASKING", Good::Ok),
        Due::Cleared => ("DEL", Good::Flag),
        Due::Select(_) => ("SELECT", Good::Ok),
        Due::Wait => ("WAIT", Good::Count),
        Due::Task(task) => {
            let good = match task {
                Task::Restore { .. } => Good::Ok,
                Task::Delete { .. } | Task::CleanUp(_) | Task::Look | Task::Ask => Good::Flag,
                Task::Try(_) | Task::Compare => Good::Nothing,
            };
            (task.command(), good)
        }
        Due::Found(_) => (Task::Compare.command(), Good::Nothing),
        Due::Value { .. } => ("RESTORE", Good::Nothing),
    }
}

/// The line that a record is answered with nearly always, which [`read`] takes for a 1.
pub(super) fn usual(due: &Due<'_>) -> Option<&'static [u8]> {
    matches!(due, Due::Task(Task::Restore { .. })).then_some(b"+OK\r\n")
}

/// Reads the answer that is `due`: a number for what was done (1 for OK), the inner error for an
/// error reply.
///
/// # Errors
/// What was said instead, in words.
pub(super) fn read(due: &Due<'_>, item: Item<'_>) -> Result<Result<i64, String>, String> {
    let (command, good) = expected(due);
    match (good, item) {
        (_, Item::Error(text)) => Ok(Err(String::from_utf8_lossy(&text).into_owned())),
        (Good::Ok, Item::Simple(b"OK")) => Ok(Ok(1)),
        (Good::Flag, Item::Int(count @ (0 | 1))) => Ok(Ok(count)),
        (Good::Count, Item::Int(count @ 0..)) => Ok(Ok(count)),
        (_, other) => Err(format!("{command} was answered with {}", show(&other))),
    }
}

/// A reply as a message shows it.
fn show(item: &Item<'_>) -> Cow<'static, str> {
    match item {
        Item::Simple(text) => {
            let text = String::from_utf8_lossy(&text[..text.len().min(40)]);
            format!("+{}", text.escape_debug()).into()
        }
        Item::Int(number) => format!(":{number}").into(),
        Item::Bulk(bytes) => format!("a string of {} bytes", bytes.len()).into(),
        Item::TooLong(bytes) => format!("a string of {bytes} bytes").into(),
        Item::Nil => "nil".into(),
        Item::Array(_) | Item::Map(_) | Item::Push(_) => "an array".into(),
        Item::Error(_) => "an error".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ok_is_ok() {
        let restore = Due::Task(Task::Restore {
            replace: false,
            own: false,
        });
        assert_eq!(read(&restore, Item::Simple(b"OK")), Ok(Ok(1)));
        assert_eq!(usual(&restore), Some(&b"+OK\r\n"[..]));
        for due in [restore, Due::Select(3), Due::Asking] {
            for odd in [
                Item::Simple(b"QUEUED"),
                Item::Int(5),
                Item::Int(1),
                Item::Nil,
                Item::Bulk(b"OK".to_vec()),
                Item::Array(1),
            ] {
                let said = read(&due, odd).unwrap_err();
                let begin = format!("{} was answered with ", expected(&due).0);
                assert!(said.starts_with(&begin), "{said}");
            }
            let error = Item::Error(b"BUSYKEY x".to_vec());
            assert_eq!(read(&due, error), Ok(Err("BUSYKEY x".to_owned())));
        }
    }

    #[test]
    fn one_key_is_there_or_not() {
        for due in [
            Due::Task(Task::Delete { expired: false }),
            Due::Cleared,
            Due::Task(Task::CleanUp("UNLINK")),
            Due::Task(Task::Look),
        ] {
            assert_eq!(read(&due, Item::Int(0)), Ok(Ok(0)));
            assert_eq!(read(&due, Item::Int(1)), Ok(Ok(1)));
            for odd in [Item::Int(2), Item::Int(-1), Item::Simple(b"OK"), Item::Nil] {
                assert!(read(&due, odd).is_err());
            }
        }
    }
}
