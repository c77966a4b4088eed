//! Archives that are meant to hurt: each verb that reads an archive ends with its one sentence, in
//! memory that does not grow with what they claim.

use crate::support::hostile_archives::{Hostile, Verdict, all};
use crate::support::tool::Tool;

/// What a verb may take on top of the largest value.
const ALLOWED_KIB: u64 = 64 * 1024;

fn check(hostile: &Hostile, arguments: &[&str], file: &std::path::Path) -> Result<(), String> {
    let output = Tool::new(arguments).arg(file).stdout_null().run();
    let allowed = ALLOWED_KIB + hostile.largest_value / 1024;
    let code = output.code();
    let verb = arguments[0];
    let right = match (hostile.verdict, code) {
        (Verdict::Complete, Some(0 | 3)) | (Verdict::Damaged, Some(10)) => true,
        // Its frames may be intact, all or some of them.
        (Verdict::Damaged, Some(0 | 3)) => verb == "salvage" || arguments.contains(&"--quick"),
        _ => false,
    };
    let what = format!("{}: {arguments:?}", hostile.name);
    if !right {
        return Err(format!("{what}: ended with {code:?}: {}", output.stderr));
    }
    if output.peak_memory_kib > allowed {
        let peak = output.peak_memory_kib;
        return Err(format!("{what}: {peak} KiB where {allowed} are allowed"));
    }
    Ok(())
}

#[test]
fn no_verb_takes_more_memory_than_a_value_needs() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut wrong = Vec::new();
    for hostile in all() {
        let file = directory.path().join(format!("{}.rmz", hostile.name));
        std::fs::write(&file, &hostile.bytes).expect("written");
        for arguments in [
            &["verify", "--json"][..],
            &["verify", "--quick"],
            &["list", "--json"],
            &["inspect", "--json"],
            &["inspect"],
            &["report", "--json"],
            &["report"],
            &["salvage"],
        ] {
            wrong.extend(check(&hostile, arguments, &file).err());
        }
        std::fs::remove_file(&file).expect("removed");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
