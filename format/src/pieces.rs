//! What is left of a large frame whose records are given in several pieces.

use crate::body::{self, Room};
use crate::error::{Position, Result};
use crate::limits::Limits;
use crate::reader::Frame;

/// The records of a frame that were not given yet. All of the frame was checked and counted; whoever
/// holds this keeps its body.
#[derive(Debug)]
pub(crate) struct Rest {
    /// The frame, without records.
    frame: Frame,
    /// Where in its body they begin.
    from: usize,
}

impl Rest {
    /// The first piece of a frame, and what comes behind it, from byte `from` of its body on.
    pub(crate) fn behind(frame: Frame, from: Option<usize>) -> (Frame, Option<Rest>) {
        let rest = from.map(|from| Rest {
            frame: Frame {
                records: Vec::new(),
                ..frame
            },
            from,
        });
        let piece = Frame {
            goes_on: rest.is_some(),
            ..frame
        };
        (piece, rest)
    }

    /// The next piece, made of the frame's `body`, and what comes behind that.
    pub(crate) fn next(
        self,
        body: &[u8],
        archive_id: Option<u64>,
        limits: &Limits,
        room: Room,
    ) -> Result<(Frame, Option<Rest>)> {
        let Rest { frame, from } = self;
        let at = Position {
            archive_id,
            offset: frame.offset,
            frame: Some(frame.seq),
            field: "entries",
        };
        let (records, from) = body::piece(body, from, at, limits, room)?;
        Ok(Rest::behind(Frame { records, ..frame }, from))
    }
}
