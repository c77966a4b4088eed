//! Answers that a server should not give, and states in which it does not serve.

use super::replication::Saved;
use super::reply::Reply;

/// States in which a server refuses to serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// It loads its dataset.
    pub loading: bool,
    /// It runs a script that does not end.
    pub busy: bool,
    /// Its last save failed.
    pub misconf: bool,
    /// It is a replica without a link, and does not serve stale data.
    pub master_down: bool,
    /// The cluster is down.
    pub cluster_down: bool,
}

/// One command that is answered otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The command, such as `restore`, or with its subcommand, such as `client|pause`.
    pub command: String,
    /// Which of them, counted from now: 1 is the next.
    pub nth: u64,
    /// Whether those are counted that EXEC carries out, not those that arrive.
    pub in_exec: bool,
    /// What is done instead.
    pub answer: Answer,
}

/// What is done instead of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is not carried out, and this error said (without the dash).
    Refuse(String),
    /// It is not carried out, and nil said.
    Nil,
    /// It is not carried out, and this said.
    Say(Reply),
    /// It is carried out, and this said.
    DoAndSay(Reply),
    /// The server stands still for so long (ms), and then carries it out. In EXEC only.
    Late(u64),
    /// It is not carried out, and nothing said, now or later, on this connection.
    Nothing,
    /// It is not carried out, and the connection closed.
    CloseBefore,
    /// It is carried out, and the connection closed before its answer.
    CloseAfter,
}

/// What is to be done with a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    None,
    Say(Reply),
    Close,
    DoAndSay(Reply),
    DoAndClose,
    Late(u64),
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub conditions: Conditions,
    planned: Vec<Fault>,
    pub met: u64,
    /// How long it stood still since somebody asked, in ms.
    pub hung_ms: u64,
    /// The data as they were before the EXEC in which it stood still.
    pub before_hang: Option<Box<Saved>>,
    /// The process has ended.
    pub is_dead: bool,
}

impl Faults {
    pub fn plan(&mut self, fault: Fault) {
        self.planned.push(fault);
    }

    pub fn received(&mut self, args: &[&[u8]]) -> Verdict {
        self.of(args, false)
    }

    /// Whether it may stand still within the next EXEC.
    pub fn may_hang(&self) -> bool {
        let is_late = |fault: &Fault| fault.in_exec && matches!(fault.answer, Answer::Late(_));
        self.planned.iter().any(is_late)
    }

    pub fn in_exec(&mut self, args: &[&[u8]]) -> Verdict {
        self.of(args, true)
    }

    fn of(&mut self, args: &[&[u8]], in_exec: bool) -> Verdict {
        if self.planned.is_empty() {
            return Verdict::None;
        }
        let is_meant = |fault: &Fault| {
            let mut words = fault.command.split('|');
            let mut named = args.iter();
            fault.in_exec == in_exec
                && words.all(|word| {
                    named
                        .next()
                        .is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
                })
        };
        let mut due = None;
        for (at, fault) in self.planned.iter_mut().enumerate() {
            if is_meant(fault) {
                fault.nth = fault.nth.saturating_sub(1);
                if fault.nth == 0 && due.is_none() {
                    due = Some(at);
                }
            }
        }
        let Some(at) = due else { return Verdict::None };
        self.met += 1;
        match self.planned.remove(at).answer {
            Answer::Refuse(text) => Verdict::Say(Reply::error(text)),
            Answer::Nil => Verdict::Say(Reply::Nil),
            Answer::Say(reply) => Verdict::Say(reply),
            Answer::DoAndSay(reply) => Verdict::DoAndSay(reply),
            Answer::Late(ms) => Verdict::Late(ms),
            Answer::Nothing => Verdict::Say(Reply::Nothing),
            Answer::CloseBefore => Verdict::Close,
            Answer::CloseAfter => Verdict::DoAndClose,
        }
    }
}

impl super::Server {
    /// Plans a fault.
    pub fn plan(&mut self, fault: Fault) {
        self.faults.plan(fault);
    }

    /// How long it stood still while it carried out what came last, in ms. Until so much time has passed
    /// it should get nothing to do.
    pub fn take_hung_ms(&mut self) -> u64 {
        std::mem::take(&mut self.faults.hung_ms)
    }

    /// The process ends in the middle of the EXEC in which it stood still last: what that did has reached
    /// neither its file nor a replica, which hear of an EXEC as a whole (multi.c, execCommand; server.c,
    /// call).
    pub fn forget_hung_exec(&mut self) {
        if let Some(saved) = self.faults.before_hang.take() {
            self.put_back(*saved);
        }
    }

    /// How many planned faults have been met.
    pub fn faults_met(&self) -> u64 {
        self.faults.met
    }

    /// The states in which it does not serve.
    pub fn conditions_mut(&mut self) -> &mut Conditions {
        &mut self.faults.conditions
    }
}
