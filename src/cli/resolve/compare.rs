//! What the arguments of a comparison mean.

use std::ffi::OsStr;

use anyhow::Result;

use super::{Env, Server, Side, process_env, renaming, usage};
use crate::cli::{
    AgainstArgs, CompareArgs, DiffArgs, Named, ServerFlags, SideEnd, TimeoutArgs, VerifyArgs,
};
use crate::rewrite::Rewrite;

/// What a side names: a URL is a server, everything else a file.
fn side_end(
    side: Side,
    named: &Named,
    flags: ServerFlags,
    timeouts: &TimeoutArgs,
    alone: bool,
    env: Env<'_>,
) -> Result<SideEnd> {
    let name: &OsStr = &named.0;
    if !is_url(name) {
        return Ok(SideEnd::File(name.to_owned()));
    }
    let options = Server {
        side,
        url: Some(name),
        flags,
        timeouts,
        alone,
    }
    .resolve(env)?;
    Ok(SideEnd::Server(Box::new(options)))
}

fn is_url(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|text| text.contains("://") && !text.starts_with(['.', '/']))
}

impl DiffArgs {
    /// The two sides.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn sides(&self) -> Result<(SideEnd, SideEnd)> {
        let (left, right) = (&self.left, &self.right);
        if left.0 == "-" && right.0 == "-" {
            return usage("standard input can be one side only");
        }
        let alone = !(is_url(&left.0) && is_url(&right.0));
        let end =
            |side, named, flags| side_end(side, named, flags, &self.timeouts, alone, &process_env);
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
    pub fn other_side(&self) -> Result<Option<SideEnd>> {
        let AgainstArgs {
            against,
            connect,
            timeouts,
            ..
        } = &self.against;
        let Some(named) = against else {
            return match self.against.is_idle() {
                true => Ok(None),
                false => {
                    usage("what is to be compared was said, but not with what; add --against URL")
                }
            };
        };
        if !is_url(&named.0) {
            return usage("--against names a server (redis://host:port); `diff` compares files");
        }
        let flags = connect.flags();
        side_end(
            Side::Destination,
            named,
            flags,
            timeouts,
            true,
            &process_env,
        )
        .map(Some)
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
    pub fn rewrite(&self, right: &SideEnd) -> Result<Rewrite> {
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
