//! Any bytes, to the salvage scanner and decoder: as they are, and with checksums put right.
#![no_main]

#[path = "../../tests/support/mutation.rs"]
#[allow(dead_code)]
mod mutation;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mutation::check_salvage(bytes);
    let mut bytes = bytes.to_vec();
    mutation::repair(&mut bytes, mutation::Repair::Checksums);
    mutation::check_salvage(&bytes);
});
