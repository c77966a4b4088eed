//! What each action may be answered, in one place.
//!
//! Whatever else a server says is not understood: whether it did what it was told is not known, and
//! which answer the next one belongs to is not known either. Then the connection is given up, and
//! what was in flight is checked again on a new one.

use std::borrow::Cow;

use super::Action;
use crate::server::resp::Item;

/// Reads the answer to `action`: a number for what was done (1 for OK), the inner error for an
/// error reply.
///
/// # Errors
/// What was said instead, in words.
pub(super) fn read(action: Action, item: Item<'_>) -> Result<Result<i64, String>, String> {
    match (action, item) {
        (_, Item::Error(text)) => Ok(Err(String::from_utf8_lossy(&text).into_owned())),
        (
            Action::Restore { .. } | Action::Prelude("ASKING") | Action::Select,
            Item::Simple(b"OK"),
        ) => Ok(Ok(1)),
        (
            Action::Prelude("DEL")
            | Action::Delete { .. }
            | Action::CleanUp(_)
            | Action::Look
            | Action::Ask,
            Item::Int(count @ (0 | 1)),
        ) => Ok(Ok(count)),
        (Action::Wait, Item::Int(count @ 0..)) => Ok(Ok(count)),
        // `Try` among them: its arguments cannot be right.
        (action, other) => Err(format!(
            "{} was answered with {}",
            command_of(action),
            show(&other)
        )),
    }
}

/// The command that an action sends first.
pub(super) fn command_of(action: Action) -> &'static str {
    match action {
        Action::Prelude(word) | Action::CleanUp(word) => word,
        Action::Restore { .. } => "RESTORE",
        Action::Try(way) => way.command(),
        Action::Compare => "DUMP",
        Action::Look | Action::Ask => "EXISTS",
        Action::Delete { .. } => "DEL",
        Action::Select => "SELECT",
        Action::Wait => "WAIT",
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
        let restore = Action::Restore {
            replace: false,
            own: false,
        };
        assert_eq!(read(restore, Item::Simple(b"OK")), Ok(Ok(1)));
        for action in [restore, Action::Select, Action::Prelude("ASKING")] {
            for odd in [
                Item::Simple(b"QUEUED"),
                Item::Int(5),
                Item::Int(1),
                Item::Nil,
                Item::Bulk(b"OK".to_vec()),
                Item::Array(1),
            ] {
                let said = read(action, odd).unwrap_err();
                let command = command_of(action);
                let begin = format!("{command} was answered with ");
                assert!(said.starts_with(&begin), "{said}");
            }
        }
        let error = Item::Error(b"BUSYKEY x".to_vec());
        assert_eq!(read(restore, error), Ok(Err("BUSYKEY x".to_owned())));
    }

    #[test]
    fn one_key_is_there_or_not() {
        for action in [
            Action::Delete { expired: false },
            Action::Prelude("DEL"),
            Action::CleanUp("UNLINK"),
            Action::Look,
        ] {
            assert_eq!(read(action, Item::Int(0)), Ok(Ok(0)));
            assert_eq!(read(action, Item::Int(1)), Ok(Ok(1)));
            for odd in [Item::Int(2), Item::Int(-1), Item::Simple(b"OK"), Item::Nil] {
                assert!(read(action, odd).is_err());
            }
        }
    }
}
