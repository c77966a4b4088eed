//! The developer's guide names files and folders that are there.

use std::path::Path;

#[test]
fn the_guide_names_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("docs/development.md")).expect("the guide");
    let words = guide.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        let begins = ["src/", "format/", "tests/", "docs/"].map(|room| word.starts_with(room));
        begins.contains(&true) && !word.contains(' ')
    };
    let named: Vec<_> = words.filter(is_path).collect();
    assert!(named.len() > 40, "{} paths", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|path| !root.join(path).exists())
        .collect();
    assert!(missing.is_empty(), "docs/development.md names {missing:?}");
}
