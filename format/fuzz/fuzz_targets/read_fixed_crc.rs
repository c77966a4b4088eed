//! Any bytes, with what hides the deeper checks put right first.
#![no_main]

#[path = "../../tests/support/mutation.rs"]
#[allow(dead_code)]
mod mutation;

use mutation::Repair;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    let what = if how % 2 == 0 {
        Repair::Checksums
    } else {
        Repair::Everything
    };
    mutation::repair(&mut bytes, what);
    mutation::check_any_bytes(&bytes);
});
