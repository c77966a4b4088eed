//! Who may import whom among the rooms: the folders and files directly below `src`.

use std::collections::{BTreeMap, BTreeSet};

use crate::walls::sources::{self, File, is_word, whole_words};

/// The rooms, the highest first. A room may import what stands in a lower line, and nothing of its
/// own line or of a higher one. So there are no circles, and what a change can break is above it.
///
/// The crates below all of them may be imported by every room: `payload`, `rdb`, `dialect`
/// (`redis-migrate-payload`) and the archive (`redis-migrate-format`).
const ROOMS: &str = "
    main
    commands
    ui
    cli
    resume
    compare  delete_source  doctor  report  salvage
    pipe  describe
    sink  source
    ledger
    census  exit_code  outside  pace
    own_writes  server  unproven
    place
    host  observer
    encryption  endpoint  errors_file  rewrite
    exit  select  size  undecoded
    channel  escape  glob  limits  partitions  policy  record  refusal  sorter  stop  units  verb  version
";

/// Arrows that go up all the same: from which file, to which room, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Crates of ours that are re-exported as if they were rooms.
const BELOW: [&str; 3] = ["dialect", "payload", "rdb"];

/// By room, its line: 0 for the lowest.
fn levels() -> BTreeMap<&'static str, usize> {
    let lines: Vec<_> = ROOMS.split_whitespace().collect();
    let mut levels = BTreeMap::new();
    for (level, line) in ROOMS.trim().lines().rev().enumerate() {
        for room in line.split_whitespace() {
            assert_eq!(levels.insert(room, level), None, "{room} stands twice");
        }
    }
    assert_eq!(lines.len(), levels.len());
    levels
}

/// What a file imports: the room, and the byte where it is named.
fn imports(file: &File) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for root in ["crate", "redis_migrate"] {
        for at in whole_words(&file.code, root) {
            named_after(&file.code, at + root.len(), &mut found);
        }
    }
    // `super::` up to the crate itself.
    let mut from = 0;
    while let Some(at) = file.code[from..].find("super::").map(|at| from + at) {
        let rest = &file.code[at..];
        let ups = rest.len() - rest.trim_start_matches("super::").len();
        from = at + ups;
        if ups / "super::".len() == file.depth() {
            named_after(&file.code, from - "::".len(), &mut found);
        }
    }
    found
}

/// The rooms that are named behind `crate`, which ends at `at`: `::pipe`, `::{pipe::Stop, ui}`.
fn named_after(code: &str, at: usize, found: &mut Vec<(String, usize)>) {
    let Some(rest) = code[at..].strip_prefix("::") else {
        return;
    };
    let start = at + "::".len();
    let word = |text: &str| -> String { text.chars().take_while(|&c| is_word(c)).collect() };
    let Some(group) = rest.strip_prefix('{') else {
        found.push((word(rest), start));
        return;
    };
    let mut depth = 0;
    let mut begins = true;
    for (offset, c) in group.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && is_word(c) => {
                found.push((word(&group[offset..]), start + 1 + offset));
                begins = false;
            }
            _ => {}
        }
    }
}

#[test]
fn rooms_import_lower_rooms_only() {
    let levels = levels();
    let files = sources::all();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for file in files.iter().filter(|file| file.path != "lib.rs") {
        let room = file.room();
        let Some(own) = levels.get(room) else {
            wrong.push(format!(
                "src/{}: the room {room} is not in the table",
                file.path
            ));
            continue;
        };
        for (to, at) in imports(file) {
            if to == room || BELOW.contains(&to.as_str()) {
                continue;
            }
            let Some(level) = levels.get(to.as_str()) else {
                // `crate::Type`, a macro.
                continue;
            };
            let exception = EXCEPTIONS
                .iter()
                .position(|(from, room, _)| file.path.starts_with(from) && *room == to);
            match exception {
                _ if level < own => {}
                Some(exception) => drop(used.insert(exception)),
                None => wrong.push(format!(
                    "src/{}:{}: {room} → {to}, which is not below it",
                    file.path,
                    file.line_of(at)
                )),
            }
        }
    }
    for (at, (from, to, _)) in EXCEPTIONS.iter().enumerate() {
        if !used.contains(&at) {
            wrong.push(format!("{from} → {to} is no exception any more"));
        }
    }
    let rooms: BTreeSet<_> = files.iter().map(File::room).collect();
    for room in levels.keys().filter(|room| !rooms.contains(*room)) {
        wrong.push(format!("there is no room {room} any more"));
    }
    assert!(
        wrong.is_empty(),
        "\n{}\nThe table and its rule are in tests/walls/imports.rs.",
        wrong.join("\n")
    );
}

#[test]
fn the_map_names_every_room() {
    let text = include_str!("../../src/lib.rs");
    let map: String = text
        .lines()
        .filter(|line| line.starts_with("//!"))
        .collect();
    let missing: Vec<_> = levels()
        .into_keys()
        .filter(|room| !map.contains(&format!("`{room}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "src/lib.rs does not say what these are: {missing:?}"
    );
}

#[test]
fn imports_are_seen_however_they_are_written() {
    let file = File {
        path: "sink/server/flow.rs".to_owned(),
        code: "use crate::pipe::Stop;\nuse crate::{ui, cli::{a, b}, pace::Pace};\n\
               fn f(x: crate::host::LinkId) { super::super::super::ledger::f(); super::super::x() }"
            .to_owned(),
    };
    let mut rooms: Vec<_> = imports(&file).into_iter().map(|(room, _)| room).collect();
    rooms.sort();
    assert_eq!(rooms, ["cli", "host", "ledger", "pace", "pipe", "ui"]);
    assert_eq!(file.line_of(imports(&file)[1].1), 2);
}
