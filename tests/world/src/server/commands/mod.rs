//! What each command does.

mod connection;
mod strings;

use super::table::Row;

/// All tables of commands.
pub(super) static TABLES: &[&[Row]] = &[connection::ROWS, strings::ROWS];

/// Whether it is a script that says of itself that it writes nothing.
pub(super) fn script_writes_nothing(_row: &Row, _args: &[&[u8]]) -> bool {
    false
}
