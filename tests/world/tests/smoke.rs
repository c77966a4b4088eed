//! A few hundred runs by fixed seeds.

use redis_migrate_world::runs::run;
use redis_migrate_world::scenarios::{SCENARIOS, script};

#[test]
fn runs_by_fixed_seeds_are_right() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut wrong = Vec::new();
    for (name, _) in SCENARIOS {
        for seed in 0..40 {
            let script = script(seed, Some(name));
            let report = run(&script, directory.path(), false);
            let lines = report.wrong.iter();
            wrong.extend(lines.map(|text| format!("{name}, seed {seed}: {text}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
