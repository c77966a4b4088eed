//! What each command does.

mod admin;
mod clients;
mod cluster;
mod connection;
mod describe;
mod expiry;
mod functions;
mod groups;
mod hashes;
mod info;
mod keys;
mod lists;
mod replication;
mod scripts;
mod sets;
mod sorted_sets;
mod streams;
mod strings;
mod transactions;
mod words;

pub(super) use self::functions::Library;
pub(super) use self::scripts::writes_nothing as script_writes_nothing;
use super::Server;
use super::process::Cx;
use super::reply::Reply;
use super::table::Row;

/// All tables of commands.
pub(super) static TABLES: &[&[Row]] = &[
    admin::ROWS,
    clients::ROWS,
    cluster::ROWS,
    connection::ROWS,
    describe::ROWS,
    expiry::ROWS,
    functions::ROWS,
    groups::ROWS,
    hashes::ROWS,
    info::ROWS,
    keys::ROWS,
    lists::ROWS,
    replication::ROWS,
    scripts::ROWS,
    sets::ROWS,
    sorted_sets::ROWS,
    streams::ROWS,
    strings::ROWS,
    transactions::ROWS,
];

/// A command that has subcommands, without one.
fn container(_: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    words::wrong_count(&words::text(args[0]).to_lowercase())
}
