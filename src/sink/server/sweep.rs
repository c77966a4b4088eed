//! Temporary keys that values built by native commands may leave: they are removed once more after a
//! run that failed, or told of.

use std::time::Duration;

use super::writer::Litter;
use crate::endpoint::ConnectOptions;
use crate::server::reply::{Reply, cmd};
use crate::server::{Conn, ServerError};
use crate::stop::Stop;

/// How long a destination that does not answer is waited for after a run that failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Removes temporary keys: those that are left, each with its database, and why. On connections of
/// its own: what the others are in the middle of is not known.
pub(super) fn sweep(litter: Vec<Litter>, stop: &Stop) -> Vec<(u32, Vec<u8>, String)> {
    let mut left = Vec::new();
    for Litter { to, db, mut temps } in litter {
        let removed = match to {
            Some(to) => remove(to, db, &mut temps, stop),
            None => Err("the cluster does not serve their slots".to_owned()),
        };
        let why = removed.err().unwrap_or_default();
        left.extend(temps.into_iter().map(|temp| (db, temp, why.clone())));
    }
    left
}

/// Removes keys, and takes them out of `temps`; the error says why the others are left.
fn remove(
    mut to: ConnectOptions,
    db: u32,
    temps: &mut Vec<Vec<u8>>,
    stop: &Stop,
) -> Result<(), String> {
    to.timeout = to.timeout.min(PATIENCE);
    to.connect_timeout = to.connect_timeout.min(PATIENCE);
    to.retry_for = to.retry_for.min(PATIENCE);
    let told = |lost: ServerError| lost.to_string();
    let mut conn = Conn::open(&to).map_err(told)?;
    conn.heed(&to, &stop.flag());
    conn.select(db).map_err(told)??;
    let mut refused = Ok(());
    let mut left = Vec::new();
    while let Some(temp) = temps.pop() {
        match remove_one(&mut conn, &temp) {
            Ok(Ok(())) => continue,
            Ok(Err(text)) => refused = Err(text),
            Err(lost) => {
                temps.push(temp);
                temps.append(&mut left);
                return Err(told(lost));
            }
        }
        left.push(temp);
    }
    *temps = left;
    refused
}

/// The inner error is the server's refusal.
fn remove_one(conn: &mut Conn, temp: &[u8]) -> Result<Result<(), String>, ServerError> {
    let mut refusal = String::new();
    for command in ["UNLINK", "DEL"] {
        match conn.try_query(cmd(command).arg(temp))? {
            Ok(Reply::Int(0 | 1)) => return Ok(Ok(())),
            Ok(_) => return Err(conn.confused(format!("no answer to {command}"))),
            Err(text) => refusal = text,
        }
    }
    Ok(Err(refusal))
}
