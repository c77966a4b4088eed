//! What another connection in the place of one would need.

use crate::endpoint::ConnectOptions;
use crate::server::reply::Command;

/// How a connection was made, and what gave it its state.
#[derive(Default)]
pub(super) struct Session {
    /// How it was made, where it can be made again.
    origin: Option<ConnectOptions>,
    /// Commands that gave the connection its state; a new one has to hear them again.
    told: Vec<Command>,
    /// Commands were queued: only their owner knows what a new connection would have to be told.
    pinned: bool,
}

impl Session {
    /// It can be made again with these options.
    pub(super) fn made_by(&mut self, options: &ConnectOptions) {
        self.origin = Some(options.clone());
    }

    /// How it was made, where it can be made again.
    pub(super) fn origin(&self) -> Option<&ConnectOptions> {
        self.origin.as_ref()
    }

    pub(super) fn keep(&mut self, command: Command) {
        self.told.push(command);
    }

    pub(super) fn pin(&mut self) {
        self.pinned = true;
    }

    /// Whether a new connection would do as well, once it heard what this one was told.
    pub(super) fn is_renewable(&self) -> bool {
        !self.pinned && self.origin.is_some()
    }

    /// Goes on with what `old` was told. What is to be sent for that.
    pub(super) fn go_on(&mut self, old: Self) -> Vec<Command> {
        self.told = old.told;
        self.pinned = old.pinned;
        self.told.clone()
    }
}
