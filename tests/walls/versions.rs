//! Only the table of dialects (`format/payload/src/dialect`) knows the versions of servers.

use std::path::Path;

/// Whether a line of code says a version of a server: in a string, or as a `Version`.
fn says_a_version(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    let strings = code.split('"').skip(1).step_by(2);
    let is_version = |word: &str| {
        let mut parts = word.trim_matches('.').split('.');
        let mut small = |max: u32| {
            let part = parts.next().and_then(|part| part.parse::<u32>().ok());
            part.is_some_and(|number| number <= max)
        };
        !word.starts_with(['0', '1']) && small(9) && small(20) && parts.count() <= 1
    };
    let of_strings = strings
        .flat_map(|text| text.split(|letter: char| !letter.is_ascii_digit() && letter != '.'));
    of_strings.into_iter().any(is_version) || code.contains("Version::new(")
}

/// The code of a file without its tests.
fn files(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" && name != "dialect" {
            files(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            found.push((path.display().to_string(), code.to_owned()));
        }
    }
}

#[test]
fn no_other_file_knows_a_version() {
    assert!(says_a_version(r#"    let text = "Redis 7.0 and later";"#));
    assert!(says_a_version("if version >= Version::new(7, 0, 0) {"));
    assert!(!says_a_version(r#"let at = "127.0.0.1"; // since 7.0"#));
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for sources in ["src", "format/payload/src"] {
        files(&root.join(sources), &mut found);
    }
    assert!(found.len() > 100, "{} files", found.len());
    for (file, code) in found {
        for (number, line) in code.lines().enumerate() {
            assert!(!says_a_version(line), "{file}:{}: {line}", number + 1);
        }
    }
}
