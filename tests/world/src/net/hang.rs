//! A server that stands still in the middle of an EXEC. Nobody sees what the EXEC did before it is over.

use super::history::By;
use super::queue::Due;
use super::state::State;
use crate::script::Side;
use crate::server::{Answer, Fault};

/// What is over at [`super::queue::Due::Over`].
pub(super) const HANG_OVER: u8 = 7;

impl State {
    /// The next EXEC that holds this command will stand still before it.
    pub(super) fn hang(&mut self, side: Side, which: u8, command: &str, ms: u64) {
        let primaries = self.nodes_of(side);
        let which = usize::from(which) % primaries.len().max(1);
        if let Some(&node) = primaries.get(which) {
            self.nodes[node].server.plan(Fault {
                command: command.to_owned(),
                nth: 1,
                in_exec: true,
                answer: Answer::Late(ms),
            });
        }
    }

    /// Whether a server stood still while it carried out what came last; until that is over it does
    /// nothing.
    pub(super) fn has_hung(&mut self, node: usize) -> bool {
        let ms = self.nodes[node].server.take_hung_ms();
        if ms > 0 {
            let until = self.now + ms * 1000;
            self.nodes[node].busy_until = until;
            self.queue.plan(until, Due::Over(node, HANG_OVER));
            self.histories[self.nodes[node].side as usize].stalled_ms += ms;
            self.count("stall within EXEC");
            let text = format!("!! server {node} stood still for {ms} ms");
            self.log.tell(self.now, &text);
        }
        ms > 0
    }

    /// What has arrived waits until the server turns to it.
    pub(super) fn keep(&mut self, id: u64, node: usize, bytes: Vec<u8>) {
        let at = self.nodes[node].busy_until;
        let Some(link) = self.link(id).filter(|_| !bytes.is_empty()) else {
            return;
        };
        link.to_server.pieces.push_front((at, bytes));
        self.queue.plan(at, Due::ToServer(id));
    }

    /// Everybody sees what the EXEC did.
    pub(super) fn end_hang(&mut self, node: usize) {
        let side = self.nodes[node].side as usize;
        self.histories[side].wrote = self.now;
        self.observe(node, By::Tool);
    }

    /// The process ends while it stands still: what it would have said is never said, and what it did
    /// since the EXEC began is gone with it.
    pub(super) fn break_off_hang(&mut self, node: usize) {
        let until = std::mem::take(&mut self.nodes[node].busy_until);
        if until <= self.now {
            return;
        }
        let links = self
            .links
            .iter_mut()
            .filter(|link| link.node() == Some(node));
        for link in links {
            link.to_tool.pieces.retain(|(at, _)| *at < until);
        }
        self.nodes[node].server.forget_hung_exec();
    }

    /// Until when a server of a side stands still; `None` while none does.
    pub(super) fn stands_still(&self, side: Side) -> Option<u64> {
        let nodes = self.nodes.iter().filter(|node| node.side == side);
        let until = nodes.map(|node| node.busy_until).max();
        until.filter(|until| *until > self.now)
    }
}
