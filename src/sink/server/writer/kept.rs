//! What a primary acknowledged and then took with it when it died.
//!
//! Redis acknowledges a write before its replicas have it. So what was acknowledged is kept, within
//! bounds, until WAIT says that a replica has it too; after a failover it is sent again to the new
//! primary, where it counts as a doubtful write like any other: what stands there already and is
//! equal is left alone. That is for clusters, and for primaries that sentinels watch: of a destination
//! that was started anew it is told, and nothing more can be done.

use std::collections::VecDeque;

use super::item::{Counted, Item, Wrote};
use crate::own_writes::FingerprintSet;
use crate::server::conn::is_forbidden;

/// Acknowledged bytes and records after which a replica is asked for.
const ASK_BYTES: usize = 1 << 20;
const ASK_RECORDS: usize = 2_000;

/// What all lanes together may keep.
pub(super) const KEPT_BYTES: usize = 64 << 20;

/// What one lane may keep.
pub(super) const MAX_KEPT_BYTES: usize = 8 << 20;

/// A record is more than its value.
const RECORD_BYTES: usize = 512;

/// What was acknowledged on a lane since a replica confirmed everything before.
#[derive(Default)]
struct Unasked {
    bytes: usize,
    records: usize,
}

/// What the run goes by at a lane's node.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Relied {
    /// Nothing of it is known to stand there.
    #[default]
    Nothing,
    /// A key was seen to stand, and nothing was written for it.
    Stood,
    /// A write was acknowledged.
    Acknowledged,
}

/// What of that is not kept here.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LetGo {
    #[default]
    Nothing,
    /// A replica has it.
    Confirmed,
    /// The node alone may have some of it.
    Unkept,
}

/// What was acknowledged on a lane and not confirmed by a replica.
#[derive(Default)]
pub(super) struct Kept {
    /// Whether the cluster, or the node itself, knows of a replica.
    is_replicated: bool,
    /// How much may be kept where there is a replica.
    limit_bytes: usize,
    kept: VecDeque<Box<Item>>,
    bytes: usize,
    /// Kept no more, for want of room or because WAIT is refused.
    dropped: u64,
    unasked: Unasked,
    /// A write was acknowledged on this very connection, without which WAIT says nothing.
    wrote: bool,
    /// WAIT is refused.
    is_refused: bool,
    relied: Relied,
    let_go: LetGo,
    /// A replica confirmed something since the sentinels last named this primary: it may have
    /// followed one that is no primary any more.
    confirmed_since: bool,
    /// Another process has answered since it was last told who serves what.
    is_anew: bool,
}

impl Kept {
    /// Notes that there is a replica, if `is_so`.
    pub fn note_replica(&mut self, is_so: bool) {
        self.is_replicated |= is_so;
    }

    /// How much may be kept where there is a replica.
    pub fn limit(&mut self, bytes: usize) {
        self.limit_bytes = bytes;
    }

    /// Without a replica there is nothing to wait for.
    fn max_bytes(&self) -> usize {
        match self.is_replicated {
            true => self.limit_bytes,
            false => 0,
        }
    }

    /// Whether there is a replica to wait for.
    pub fn waits_for_replicas(&self) -> bool {
        self.max_bytes() > 0
    }

    /// The connection is a new one.
    pub fn on_new_connection(&mut self) {
        self.wrote = false;
    }

    /// Something was acknowledged.
    pub fn note_acknowledged(&mut self) {
        self.relied = Relied::Acknowledged;
    }

    /// A key stands, and nothing is written for it: it may have come a moment ago, from an earlier
    /// run or from others, and no replica may have it yet.
    pub fn note_stood(&mut self) {
        self.relied = self.relied.max(Relied::Stood);
        self.let_go = LetGo::Unkept;
    }

    /// Whether anything was acknowledged.
    pub fn has_acknowledged(&self) -> bool {
        self.relied == Relied::Acknowledged
    }

    /// What the run goes by there.
    pub fn relied(&self) -> Relied {
        self.relied
    }

    /// Whether the run goes by anything that stands there.
    pub fn is_relied_on(&self) -> bool {
        self.relied != Relied::Nothing
    }

    /// Whether some of what it goes by is neither kept nor known to be at a replica.
    pub fn has_unkept(&self) -> bool {
        self.let_go == LetGo::Unkept
    }

    /// Whether it goes by something that is not kept, wherever else it may be.
    pub fn has_let_go(&self) -> bool {
        self.let_go != LetGo::Nothing || self.dropped > 0
    }

    /// Something that is not kept was acknowledged.
    pub fn note_unkept(&mut self, is_so: bool) {
        if is_so {
            self.let_go = LetGo::Unkept;
        }
    }

    /// Whether something was acknowledged that its node alone may have, and that is not at hand.
    pub fn may_lack(&self) -> bool {
        self.has_unkept() || self.dropped > 0
    }

    /// Whether it is time to ask for replicas.
    pub fn is_due(&self) -> bool {
        let Unasked { bytes, records } = self.unasked;
        !self.is_refused && (bytes >= ASK_BYTES || records >= ASK_RECORDS)
    }

    /// Whether there is soon no room for what no replica has.
    pub fn is_filling(&self) -> bool {
        self.bytes > self.max_bytes() / 2
    }

    /// Whether there is something that WAIT may confirm.
    pub fn is_open(&self) -> bool {
        !self.kept.is_empty() && !self.is_refused
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Records that no replica has confirmed, where WAIT says.
    pub fn unconfirmed(&self) -> u64 {
        match self.is_refused {
            true => 0,
            false => self.kept.len() as u64 + self.dropped,
        }
    }

    /// Keeps what was acknowledged until a replica has it. It comes back where there is none.
    pub fn keep(
        &mut self,
        mut item: Box<Item>,
        counted: Counted,
        wrote: Wrote,
    ) -> Option<Box<Item>> {
        if !self.waits_for_replicas() {
            self.let_go = LetGo::Unkept;
            return Some(item);
        }
        item.past.counted = Some(counted);
        item.past.is_doubtful = true;
        item.past.is_recalled = false;
        item.place.ask_to = None;
        let bytes = kept_bytes(&item);
        self.wrote |= wrote == Wrote::Now;
        self.unasked.bytes += bytes;
        self.unasked.records += 1;
        if self.is_refused {
            self.dropped += 1;
            return None;
        }
        self.bytes += bytes;
        self.kept.push_back(item);
        while self.bytes > self.max_bytes()
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= kept_bytes(&oldest);
            self.dropped += 1;
        }
        None
    }

    /// Keeps what was acknowledged elsewhere, before all that is kept here.
    pub fn keep_as_older(&mut self, item: Box<Item>) {
        self.bytes += kept_bytes(&item);
        self.kept.push_front(item);
    }

    /// Gives up those whose keys do not stay, in their order.
    pub fn part(&mut self, stays: impl Fn(&[u8]) -> bool) -> VecDeque<Box<Item>> {
        if self.kept.iter().all(|item| stays(&item.record.key)) {
            return VecDeque::new();
        }
        let all = std::mem::take(&mut self.kept);
        let (staying, going): (VecDeque<_>, VecDeque<_>) =
            all.into_iter().partition(|item| stays(&item.record.key));
        self.bytes = staying.iter().map(|item| kept_bytes(item)).sum();
        self.kept = staying;
        going
    }

    /// The newest record of each of these keys, which is sent again.
    pub fn take_of(&mut self, is_one: impl Fn(&[u8]) -> bool) -> VecDeque<Box<Item>> {
        newest(self.part(|key| !is_one(key)))
    }

    /// WAIT is sent now.
    pub fn asked(&mut self) {
        self.unasked = Unasked::default();
    }

    /// What WAIT said; whether a replica confirmed something.
    pub fn answered(&mut self, answer: Result<i64, String>) -> bool {
        let is_confirmed = matches!(answer, Ok(1..)) && self.wrote;
        match answer {
            Ok(_) if is_confirmed => {
                self.kept.clear();
                self.bytes = 0;
                self.dropped = 0;
                self.confirmed_since = true;
                // It has all that the primary wrote before, whoever asked for it.
                self.let_go = LetGo::Confirmed;
            }
            Ok(_) => {}
            Err(text) if is_forbidden(&text) => {
                self.is_refused = true;
                self.dropped += self.kept.len() as u64;
                self.kept.clear();
                self.bytes = 0;
            }
            // A primary no more, and MOVED follows: "UNBLOCKED … instance state changed", or "WAIT
            // cannot be used with replica instances".
            Err(_) => {}
        }
        is_confirmed
    }

    /// The sentinels name this primary still.
    pub fn still_named(&mut self) {
        self.confirmed_since = false;
    }

    /// The sentinels name another primary: what confirmed may have followed this one.
    pub fn named_another(&mut self) {
        let is_unsure = std::mem::take(&mut self.confirmed_since);
        self.note_unkept(is_unsure);
    }

    /// The newest record of each key, and how many are not at hand any more.
    pub fn take(&mut self) -> (VecDeque<Box<Item>>, u64) {
        self.bytes = 0;
        let kept = std::mem::take(&mut self.kept);
        (newest(kept), std::mem::take(&mut self.dropped))
    }

    /// Another process answers: what was acknowledged before is another matter.
    pub fn begin_anew(&mut self) {
        self.relied = Relied::Nothing;
        self.let_go = LetGo::Nothing;
        self.is_anew = true;
    }

    /// Whether another process has answered since it was last told who serves what, which is told
    /// now.
    pub fn take_anew(&mut self) -> bool {
        std::mem::take(&mut self.is_anew)
    }

    /// Its node gave its slots away, and its keys with them.
    pub fn hand_over(&mut self) {
        self.note_unkept(self.may_lack());
        self.dropped = 0;
    }

    /// Its node serves no slot any more; whether it had what nobody else may have.
    pub fn forget_unkept(&mut self) -> bool {
        std::mem::take(&mut self.let_go) == LetGo::Unkept
    }

    /// Slots came from a lane where the run goes by something; `has_let_go`: also by what is not
    /// kept. A replica of that lane's node may have it, but not yet one of this lane's.
    pub fn inherit(&mut self, relied: Relied, has_let_go: bool) {
        self.relied = self.relied.max(relied);
        if has_let_go {
            self.let_go = LetGo::Unkept;
            // WAIT speaks of what was written before it: not yet of what has just come.
            self.wrote = false;
        }
    }
}

/// The newest record of each key.
fn newest(kept: VecDeque<Box<Item>>) -> VecDeque<Box<Item>> {
    let mut seen = FingerprintSet::default();
    let newest = kept.into_iter().rev();
    newest.filter(|item| seen.insert(item.print)).collect()
}

fn kept_bytes(item: &Item) -> usize {
    item.record.value.bytes().len() + item.record.key.len() + RECORD_BYTES
}
