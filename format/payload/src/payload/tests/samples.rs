//! The table's samples: each row has one, and it is what the row says.

use super::*;
use crate::dialect::Layout;

fn value(encoding: Encoding) -> Vec<u8> {
    [&[encoding.type_byte()], encoding.sample()].concat()
}

#[test]
fn each_row_has_a_sample_that_decodes() {
    for &encoding in Encoding::ALL {
        let family = encoding.family().unwrap_or_default();
        let value = value(encoding);
        match decode(family, &value) {
            Ok(object) => assert_eq!(object.kind(), encoding.kind(), "{encoding:?}"),
            Err(error) => {
                assert!(error.is_opaque(), "{encoding:?}: {error}");
                assert!(!encoding.is_probed(), "{encoding:?}");
                let layout = encoding.layout();
                assert!(
                    matches!(layout, Layout::Module | Layout::TemplateRef),
                    "{encoding:?} has no sample that decodes"
                );
            }
        }
    }
}

#[test]
fn each_sample_ends_where_its_layout_says() {
    for &encoding in Encoding::ALL {
        let family = encoding.family().unwrap_or_default();
        let value = value(encoding);
        let mut source = Slice::new(&value);
        let walked = walk::walk(&mut source, family);
        // Where a template ends only its decoder finds.
        if encoding.is_templated() || encoding == Encoding::Module {
            assert!(walked.is_err(), "{encoding:?}");
            continue;
        }
        assert_eq!(walked, Ok(encoding));
        assert_eq!(source.rest(), b"", "{encoding:?}");
    }
}
