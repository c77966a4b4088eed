//! What goes wrong, by chance.

use super::Making;
use crate::script::{Act, At, Condition, Cut, Odd, Planned, Restart, Side};

/// Commands of the tool that are worth an odd answer, by the side that gets them.
const AT_SOURCE: &[&str] = &[
    "ping",
    "info",
    "select",
    "scan",
    "dump",
    "pttl",
    "pexpiretime",
    "multi",
    "exec",
    "type",
    "client|tracking",
    "client|pause",
    "client|unpause",
    "hello",
    "time",
    "function",
    "config",
    "dbsize",
    "object",
];
const AT_DESTINATION: &[&str] = &[
    "ping",
    "info",
    "select",
    "restore",
    "del",
    "unlink",
    "pttl",
    "dump",
    "exists",
    "type",
    "multi",
    "exec",
    "rename",
    "time",
    "pexpireat",
    "set",
    "watch",
    "config",
    "client",
    "rpush",
    "sadd",
    "hset",
    "zadd",
    "xadd",
    "renamenx",
];
const ERRORS: &[&str] = &[
    "ERR something else",
    "NOPERM this user has no permissions",
    "BUSYKEY Target key name already exists.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "ERR unknown command",
];

impl Making<'_> {
    /// Up to a few faults at these sides.
    pub(super) fn faults(&mut self, sides: &[Side]) -> Vec<Planned> {
        let count = match self.random.below(4) {
            0 => 2 + self.random.below(4),
            _ => 1,
        };
        (0..count)
            .map(|_| {
                let side = sides[self.random.below(sides.len() as u64) as usize];
                let act = self.fault(side);
                let at = self.moment_of(side, &act);
                Planned { at, act }
            })
            .collect()
    }

    /// Often just around a command that changes something.
    fn moment_of(&mut self, side: Side, act: &Act) -> At {
        if matches!(act, Act::Odd(..)) && self.random.chance(70) {
            return At::Commands(1 + self.random.below(60) as u32);
        }
        if self.random.chance(40) {
            let list = match side {
                Side::Source => AT_SOURCE,
                Side::Destination => AT_DESTINATION,
            };
            let command = self.one_of(list).to_owned();
            let nth = 1 + self.random.below(12) as u32;
            return match self.random.chance(50) {
                true => At::Before(side, command, nth),
                false => At::After(side, command, nth),
            };
        }
        self.moment()
    }

    fn fault(&mut self, side: Side) -> Act {
        let which = self.random.below(6) as u8;
        let ms = match self.random.below(4) {
            0 => 1 + self.random.below(20),
            1 => self.random.below(1000),
            2 => self.random.below(20_000),
            _ => self.random.below(200_000),
        };
        match self.random.below(20) {
            0 | 1 => Act::Cut(side, which, Cut::Reset),
            2 => Act::Cut(side, which, Cut::Close),
            3 => Act::Cut(side, which, Cut::Silence),
            4 | 5 => Act::Cut(side, which, Cut::ToServer(self.random.below(2000) as u32)),
            6 | 7 => Act::Cut(side, which, Cut::ToTool(self.random.below(2000) as u32)),
            8 if self.random.chance(50) => {
                let command = match side {
                    Side::Source => ["time", "pttl", "pexpiretime", "dump"],
                    Side::Destination => ["del", "rename", "pexpireat", "dump"],
                };
                let command = self.one_of(&command).to_owned();
                Act::Hang(side, which, command, ms)
            }
            8 => Act::Stall(side, which, ms),
            9 if self.random.chance(40) => Act::Doom(side, self.random.below(3000) as u32),
            9 => Act::Refuse(side, ms),
            10 | 11 => Act::Restart(Restart {
                side,
                which: self.random.below(3) as u8,
                lose: match self.random.below(3) {
                    0 => self.random.below(8) as u32,
                    _ => 0,
                },
                down_ms: self.random.below(3000),
                loading_ms: self.random.below(2) * self.random.below(2000),
            }),
            12 | 13 => {
                let condition = [
                    Condition::Loading,
                    Condition::Busy,
                    Condition::Misconf,
                    Condition::MasterDown,
                    Condition::Oom,
                ][self.random.below(5) as usize];
                Act::Condition(side, condition, ms)
            }
            14 => match self.random.below(4) {
                0 => Act::Unpause(side),
                _ => Act::Stop,
            },
            _ => {
                let list = match side {
                    Side::Source => AT_SOURCE,
                    Side::Destination => AT_DESTINATION,
                };
                let command = self.one_of(list).to_owned();
                {
                    let odd = self.odd();
                    let odd = match is_a_lie(&command, &odd) {
                        true => Odd::Error(self.one_of(ERRORS).to_owned()),
                        false => odd,
                    };
                    Act::Odd(side, command, odd)
                }
            }
        }
    }

    /// A command that the tool needs at this side, or would like to have.
    pub(super) fn command_of(&mut self, side: Side) -> String {
        let list = match side {
            Side::Source => AT_SOURCE,
            Side::Destination => AT_DESTINATION,
        };
        self.one_of(list).to_owned()
    }

    fn odd(&mut self) -> Odd {
        match self.random.below(14) {
            0 => Odd::Nil,
            1 => Odd::Int(self.random.below(3) as i64),
            2 => Odd::Okay,
            3 => Odd::Empty,
            4 => Odd::Nothing,
            5 => Odd::DoneNil,
            6 => Odd::CloseBefore,
            7 => Odd::CloseAfter,
            _ => Odd::Error(self.one_of(ERRORS).to_owned()),
        }
    }
}

/// Whether nobody could tell an answer from the truth: `+OK` to a SELECT that was not carried out,
/// a number to a DEL, nil to the DUMP of a key that stands, nil to an EXEC that was carried out. No
/// tool can see through those.
fn is_a_lie(command: &str, odd: &Odd) -> bool {
    let name = command.split('|').next().unwrap_or(command);
    let is_honest: &[&str] = match odd {
        Odd::Okay => &[
            "ping",
            "info",
            "scan",
            "dump",
            "pttl",
            "pexpiretime",
            "exec",
            "type",
            "hello",
            "time",
            "dbsize",
            "object",
            "del",
            "unlink",
            "exists",
            "pexpireat",
            "rpush",
            "sadd",
            "hset",
        ],
        Odd::Int(_) => &[
            "ping", "info", "select", "scan", "dump", "multi", "exec", "type", "client", "hello",
            "time", "function", "config", "restore", "rename", "set", "watch",
        ],
        Odd::Nil => &[
            "ping",
            "info",
            "select",
            "scan",
            "pttl",
            "pexpiretime",
            "multi",
            "type",
            "client",
            "hello",
            "time",
            "function",
            "config",
            "dbsize",
            "restore",
            "del",
            "unlink",
            "exists",
            "rename",
            "pexpireat",
            "watch",
            "rpush",
            "sadd",
            "hset",
        ],
        // Nil says that a watched key was written, and that nothing was carried out.
        Odd::DoneNil => return name == "exec",
        _ => return false,
    };
    !is_honest.contains(&name)
}
