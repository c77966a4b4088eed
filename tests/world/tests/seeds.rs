//! Scripts in which something was wrong once are right now, and stay so.

use std::path::Path;

use redis_migrate_world::runs::run;
use redis_migrate_world::script::Script;

#[test]
fn kept_scripts_are_right() {
    let directory = tempfile::tempdir().expect("a directory");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("kept");
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(&kept).expect("the directory of kept scripts") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        let script: Script = serde_json::from_str(&text).expect("a script");
        let report = run(&script, directory.path(), false);
        wrong.extend(
            report
                .wrong
                .iter()
                .map(|text| format!("{}: {text}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
