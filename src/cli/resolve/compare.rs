//! What the arguments of a comparison mean.

use anyhow::Result;

use super::{Env, Server, Side, renaming};
use crate::cli::{AgainstArgs, CompareArgs, DiffArgs, VerifyArgs};
use crate::exit::usage;
use crate::place::Endpoint;
use crate::rewrite::Rewrite;

impl DiffArgs {
    /// The two sides.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn sides(&self, env: Env<'_>) -> Result<(Endpoint, Endpoint)> {
        let (left, right) = (&self.left, &self.right);
        if left.word() == "-" && right.word() == "-" {
            return Err(usage("only one side can be standard input"));
        }
        let alone = !(left.is_server() && right.is_server());
        let end = |side, place, flags| {
            Server {
                side,
                place: Some(place),
                flags,
                timeouts: &self.timeouts,
                alone,
            }
            .endpoint(env)
        };
        Ok((
            end(Side::Left, left, self.left_connect.flags())?,
            end(Side::Right, right, self.right_connect.flags())?,
        ))
    }
}

impl VerifyArgs {
    /// The server to compare with, if there is one.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn other_side(&self, env: Env<'_>) -> Result<Option<Endpoint>> {
        let AgainstArgs {
            against,
            connect,
            timeouts,
            ..
        } = &self.against;
        let Some(named) = against else {
            return match self.against.is_idle() {
                true => Ok(None),
                false => Err(usage(
                    "options of the comparison are given, but no server to compare with; add \
                     --against URL",
                )),
            };
        };
        if !named.is_server() {
            return Err(usage(
                "--against takes a server (redis://host:port); to compare files, use `diff`",
            ));
        }
        let server = Server::alone(Side::Destination, Some(named), connect, timeouts);
        server.endpoint(env).map(Some)
    }
}

impl AgainstArgs {
    /// Whether nothing was said of how to compare.
    fn is_idle(&self) -> bool {
        let compare = &self.compare;
        self.select.selection(None).is_everything()
            && compare.map_db.is_empty()
            && compare.strip_prefix.is_none()
            && compare.add_prefix.is_none()
            && compare.sample.is_none()
            && !(compare.all || compare.explain || compare.ignore_ttl || compare.no_functions)
    }
}

impl CompareArgs {
    /// How the left side's records change before they are compared.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for a database in the right side's URL together with
    /// `--map-db`.
    pub fn rewrite(&self, right: &Endpoint) -> Result<Rewrite> {
        let mut rewrite = renaming(
            &self.map_db,
            &self.strip_prefix,
            &self.add_prefix,
            right.db(),
            "B",
        )?;
        rewrite.dbs.is_comparison = true;
        Ok(rewrite)
    }
}
