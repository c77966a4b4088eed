//! Any bytes: no panic, no unbounded memory, every way of reading agrees.
#![no_main]

#[path = "../../tests/support/mutation.rs"]
#[allow(dead_code)]
mod mutation;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mutation::check_any_bytes(bytes);
});
