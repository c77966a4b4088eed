//! What a command line asks for, read without the tool's own parser.

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Which verb.
    pub verb: Verb,
    /// What becomes of keys that stand at the destination.
    pub on_conflict: OnConflict,
    /// Databases that are written to others; the rest stays where it is.
    pub map_db: Vec<(u32, u32)>,
    /// The databases that are read; all if there are none.
    pub dbs: Vec<u32>,
    /// Keys of the source are deleted.
    pub deletes_source: bool,
    /// Changes are followed.
    pub follows: bool,
    /// A run before may have done a part of it.
    pub resumes: bool,
    /// The archive that is written or read.
    pub archive: Option<String>,
}

/// A verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `export`
    Export,
    /// `import`
    Import,
    /// `copy`
    Copy,
}

/// What becomes of keys that stand at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// They are named.
    Fail,
    /// They are left.
    Skip,
    /// They are overwritten.
    Replace,
}

impl Wish {
    /// Reads a command line, without the program's name.
    pub fn of(argv: &[String]) -> Self {
        let verb = match argv.first().map(String::as_str) {
            Some("export") => Verb::Export,
            Some("import") => Verb::Import,
            _ => Verb::Copy,
        };
        let mut wish = Self {
            verb,
            on_conflict: OnConflict::Fail,
            map_db: Vec::new(),
            dbs: Vec::new(),
            deletes_source: false,
            follows: false,
            resumes: false,
            archive: None,
        };
        let mut words = argv.iter().skip(1).map(String::as_str);
        while let Some(word) = words.next() {
            match word {
                "--on-conflict" => {
                    wish.on_conflict = match words.next() {
                        Some("replace") => OnConflict::Replace,
                        Some("skip") => OnConflict::Skip,
                        _ => OnConflict::Fail,
                    };
                }
                "--map-db" => {
                    let pair = words.next().and_then(|pair| pair.split_once(':'));
                    let numbers = pair.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                    wish.map_db.extend(numbers);
                }
                "--db" => wish
                    .dbs
                    .extend(words.next().and_then(|db| db.parse::<u32>().ok())),
                "--delete-source" => wish.deletes_source = true,
                "--follow" => wish.follows = true,
                "-o" => wish.archive = words.next().map(str::to_owned),
                _ if word.starts_with("--resume") => wish.resumes = true,
                _ if word.ends_with(".rmz") => wish.archive = Some(word.to_owned()),
                _ => {}
            }
        }
        wish
    }

    /// Where a database of the source goes.
    pub fn into_db(&self, db: u32) -> u32 {
        let found = self.map_db.iter().find(|(from, _)| *from == db);
        found.map_or(db, |(_, into)| *into)
    }

    /// Whether a database is read.
    pub fn wants_db(&self, db: u32) -> bool {
        self.dbs.is_empty() || self.dbs.contains(&db)
    }
}
