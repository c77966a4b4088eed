//! What clients write: keys of all types, and everything that changes a key.

use crate::script::{Fill, Side, Word, words};
use crate::server::{Random, Release, Since};

/// Names and values by chance.
#[derive(Debug)]
pub struct Writers<'a> {
    random: &'a mut Random,
    release: &'static Release,
    /// Databases that are written to.
    dbs: Vec<u32>,
    /// How many names there are.
    names: u64,
    /// When the world begins, Unix ms.
    now_ms: u64,
    /// In a cluster, and where the tool writes too, commands of one key only.
    by_key: bool,
}

impl<'a> Writers<'a> {
    /// Clients of a server of this version.
    pub fn new(
        random: &'a mut Random,
        release: &'static Release,
        dbs: Vec<u32>,
        names: u64,
        by_key: bool,
    ) -> Self {
        Self {
            random,
            release,
            dbs,
            names,
            now_ms: crate::net::BEGAN_MS,
            by_key,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn db(&mut self) -> u32 {
        let at = self.below(self.dbs.len() as u64) as usize;
        self.dbs[at]
    }

    fn name(&mut self) -> String {
        format!("k{}", self.random.below(self.names))
    }

    fn bytes(&mut self) -> Vec<u8> {
        match self.below(12) {
            0 => Vec::new(),
            1 => self.below(100_000).to_string().into_bytes(),
            2 => (0..self.below(40))
                .map(|_| self.random.next_u64() as u8)
                .collect(),
            3 => vec![b'x'; self.random.below(300) as usize],
            _ => format!("v{}", self.below(1000)).into_bytes(),
        }
    }

    fn small(&mut self) -> String {
        format!("m{}", self.random.below(12))
    }

    /// When something expires: soon, later, or hardly.
    fn expiry(&mut self) -> String {
        let ahead = match self.below(5) {
            0 => 1 + self.below(200),
            1 => self.below(3000),
            2 => 3000 + self.below(100_000),
            _ => 3_600_000 + self.below(1_000_000_000),
        };
        (self.now_ms + ahead).to_string()
    }

    /// Commands that make `count` keys, each of its own name.
    pub fn fill(&mut self, side: Side, count: u64) -> Vec<Fill> {
        let mut fills = Vec::new();
        for at in 0..count {
            let db = self.db();
            let name = format!("k{at}");
            let mut commands = self.make(&name);
            if self.random.chance(25) {
                commands.push(words(["PEXPIREAT", &name, &self.expiry()]));
            }
            fills.extend(commands.into_iter().map(|words| Fill { side, db, words }));
        }
        fills
    }

    /// Commands that make a key of some type.
    fn make(&mut self, name: &str) -> Vec<Vec<Word>> {
        let command = |head: &[&str], count: u64, pair: bool, writers: &mut Self| {
            let mut list = words(head);
            for at in 0..count {
                list.push(Word::of(format!("m{at}")));
                if pair {
                    list.push(Word(writers.bytes()));
                }
            }
            list
        };
        let many = match self.below(10) {
            0 => 40 + self.below(200),
            _ => 1 + self.below(8),
        };
        match self.below(10) {
            0..3 => vec![vec![Word::of("SET"), Word::of(name), Word(self.bytes())]],
            3 => vec![command(&["RPUSH", name], many, false, self)],
            4 => vec![command(&["SADD", name], many, false, self)],
            5 | 6 => {
                let mut list = vec![command(&["HSET", name], many, true, self)];
                if self.release.has(Since::FieldTtl) && self.random.chance(30) {
                    let at = self.expiry();
                    list.push(words(["HPEXPIREAT", name, &at, "FIELDS", "1", "m0"]));
                }
                list
            }
            7 => {
                let mut list = words(["ZADD", name]);
                for at in 0..many {
                    list.push(Word::of(format!("{}", self.below(2000) as f64 / 8.0)));
                    list.push(Word::of(format!("m{at}")));
                }
                vec![list]
            }
            _ => {
                let mut list: Vec<Vec<Word>> = (0..1 + many.min(20))
                    .map(|at| words(["XADD", name, &format!("{}-1", at + 5), "f", &self.small()]))
                    .collect();
                if self.random.chance(40) {
                    list.push(words(["XGROUP", "CREATE", name, "g", "0"]));
                    list.push(words([
                        "XREADGROUP",
                        "GROUP",
                        "g",
                        "c",
                        "COUNT",
                        "2",
                        "STREAMS",
                        name,
                        ">",
                    ]));
                }
                list
            }
        }
    }

    /// One command of a client, and its database.
    pub fn step(&mut self) -> (u32, Vec<Word>) {
        let db = self.db();
        let name = self.name();
        let list = match self.below(40) {
            0..7 => vec![Word::of("SET"), Word::of(&name), Word(self.bytes())],
            7..11 => words(["DEL", &name]),
            11..14 => words(["PEXPIREAT", &name, &self.expiry()]),
            14 => words(["PERSIST", &name]),
            15..18 => words(["HSET", &name, &self.small(), &self.small()]),
            18 => words(["HDEL", &name, &self.small()]),
            19..21 => words(["RPUSH", &name, &self.small()]),
            21 => words(["LPOP", &name]),
            22..24 => words(["SADD", &name, &self.small()]),
            24 => words(["SREM", &name, &self.small()]),
            25..27 => words(["ZADD", &name, "1.5", &self.small()]),
            27 => words(["ZREM", &name, &self.small()]),
            28..30 => words(["XADD", &name, "*", "f", &self.small()]),
            30 => words(["XTRIM", &name, "MAXLEN", "1"]),
            31 => words(["APPEND", &name, "+"]),
            32 => words(["INCR", &name]),
            33 | 34 if !self.by_key => words(["RENAME", &name, &self.name()]),
            35 | 36 if !self.by_key && self.dbs.len() > 1 => {
                let other = self.db();
                words(["MOVE", &name, &other.to_string()])
            }
            37 if !self.by_key && self.dbs.len() > 1 && self.random.chance(30) => {
                let other = self.db();
                words(["SWAPDB", &db.to_string(), &other.to_string()])
            }
            38 if !self.by_key && self.random.chance(30) => words(["FLUSHDB"]),
            _ => vec![Word::of("SET"), Word::of(&name), Word(self.bytes())],
        };
        (db, list)
    }
}
