//! What is written is read again.

mod support;

use support::*;

#[test]
fn the_small_archive_comes_back() {
    let bytes = small_archive();
    let outcome = read_all(&bytes[..]);
    assert!(outcome.is_complete(), "{}", outcome.error.unwrap());
    assert_eq!(outcome.records.len(), records().len());
    for record in records() {
        assert!(outcome.records.contains(&record), "{record:?}");
    }
}
