//! Taking archives apart and putting them together again with right checksums, so that tests reach
//! the checks behind the checksums.

use redis_migrate_format::frame::{FRAME_HEADER_LEN, SYNC};
use redis_migrate_format::trailer::{TRAILER_LEN, Trailer};
use redis_migrate_format::version::{PREAMBLE_LEN, Preamble};
use sha2::{Digest, Sha256};

/// A frame whose header fields can be anything.
#[derive(Clone)]
pub struct ForgedFrame {
    pub frame_type: u8,
    pub codec: u8,
    pub reserved: u16,
    pub id: u64,
    pub seq: u64,
    /// `None`: the length of the payload.
    pub stored_len: Option<u32>,
    pub raw_len: u32,
    pub payload: Vec<u8>,
}

impl ForgedFrame {
    pub fn stored(frame_type: u8, payload: &[u8]) -> Self {
        ForgedFrame {
            frame_type,
            codec: 0,
            reserved: 0,
            id: 0,
            seq: 0,
            stored_len: None,
            raw_len: payload.len() as u32,
            payload: payload.to_vec(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = SYNC.to_vec();
        bytes.extend([self.frame_type, self.codec]);
        bytes.extend(self.reserved.to_le_bytes());
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.seq.to_le_bytes());
        bytes.extend(
            self.stored_len
                .unwrap_or(self.payload.len() as u32)
                .to_le_bytes(),
        );
        bytes.extend(self.raw_len.to_le_bytes());
        bytes.extend(crc32fast::hash(&self.payload).to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// An archive in parts. `build` puts right: checksums, END's number of frames and digest, the
/// trailer. Everything else is as the test sets it.
#[derive(Clone)]
pub struct Forged {
    pub preamble: Preamble,
    pub frames: Vec<ForgedFrame>,
    /// Changes the trailer's fields before its checksum is made.
    pub trailer: fn(&mut Trailer),
}

impl Forged {
    pub fn parse(bytes: &[u8]) -> Self {
        let preamble = Preamble::decode(bytes[..PREAMBLE_LEN].try_into().unwrap()).unwrap();
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let frames = layout(bytes)
            .into_iter()
            .map(|(at, len)| ForgedFrame {
                frame_type: bytes[at + 4],
                codec: bytes[at + 5],
                reserved: 0,
                id: u64_at(at + 8),
                seq: u64_at(at + 16),
                stored_len: None,
                raw_len: u32_at(at + 28),
                payload: bytes[at + FRAME_HEADER_LEN..at + FRAME_HEADER_LEN + len].to_vec(),
            })
            .collect();
        Forged {
            preamble,
            frames,
            trailer: |_| {},
        }
    }

    /// The first frame of a type.
    pub fn frame(&mut self, frame_type: u8) -> &mut ForgedFrame {
        self.frames
            .iter_mut()
            .find(|frame| frame.frame_type == frame_type)
            .unwrap()
    }

    pub fn position(&self, frame_type: u8) -> usize {
        self.frames
            .iter()
            .position(|frame| frame.frame_type == frame_type)
            .unwrap()
    }

    /// Replaces the body of a stored frame.
    pub fn set_body(&mut self, frame_type: u8, edit: impl FnOnce(&mut Vec<u8>)) {
        let frame = self.frame(frame_type);
        assert_eq!(frame.codec, 0);
        edit(&mut frame.payload);
        frame.raw_len = frame.payload.len() as u32;
    }

    /// Puts a frame in, and numbers all anew.
    pub fn insert(&mut self, at: usize, frame: ForgedFrame) {
        self.frames.insert(
            at,
            ForgedFrame {
                id: self.frames[0].id,
                ..frame
            },
        );
        self.renumber();
    }

    pub fn renumber(&mut self) {
        for (seq, frame) in self.frames.iter_mut().enumerate() {
            frame.seq = seq as u64;
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let mut bytes = self.preamble.encode().to_vec();
        let mut trailer = Trailer {
            end_offset: 0,
            index_offset: 0,
            archive_id: self.frames[0].id,
        };
        for frame in &self.frames {
            match frame.frame_type {
                0x7F => {
                    trailer.end_offset = bytes.len() as u64;
                    let mut frame = frame.clone();
                    repair_end(&mut frame, &bytes);
                    bytes.extend(frame.bytes());
                }
                frame_type => {
                    if frame_type == 0x81 {
                        trailer.index_offset = bytes.len() as u64;
                    }
                    bytes.extend(frame.bytes());
                }
            }
        }
        (self.trailer)(&mut trailer);
        bytes.extend(trailer.encode());
        bytes
    }
}

/// The HEADER of an archive, and behind it a run of FRAGMENT frames: these bytes, so many mebibytes of
/// zeros, and those bytes.
pub fn run_of_zeros(archive: &[u8], begin: &[u8], mebibytes: usize, end: &[u8]) -> Vec<u8> {
    const MIB: usize = 1 << 20;
    let total = (begin.len() + mebibytes * MIB + end.len()) as u32;
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(true).unwrap();
    let mut forged = Forged::parse(archive);
    forged.frames.truncate(1);
    let last = mebibytes + 1;
    for part in 0..=last {
        let bytes = match part {
            0 => begin.to_vec(),
            part if part == last => end.to_vec(),
            _ => vec![0; MIB],
        };
        let number = [&[0xFB][..], &(part as u16).to_le_bytes()].concat();
        let number = if part < 251 { vec![part as u8] } else { number };
        let head = [&number[..], &[u8::from(part == last), 0xFC]].concat();
        let head = [head, total.to_le_bytes().to_vec()].concat();
        let body = [vec![head.len() as u8], head, bytes].concat();
        let payload = compressor.compress(&body).unwrap();
        let frame = ForgedFrame {
            codec: 1,
            raw_len: body.len() as u32,
            ..ForgedFrame::stored(3, &payload)
        };
        forged.frames.push(ForgedFrame {
            id: forged.frames[0].id,
            ..frame
        });
    }
    forged.renumber();
    forged.build()
}

/// END's number of frames (while it is below 251) and its digest. The digest is the 32 bytes behind
/// the two times, wherever a test adds fields after it; so it is looked for by its old value.
fn repair_end(frame: &mut ForgedFrame, before: &[u8]) {
    frame.payload[0] = frame.seq as u8;
    if let Some(at) = digest_place(&frame.payload) {
        let digest = Sha256::digest(before);
        frame.payload[at..at + 32].copy_from_slice(&digest);
    }
}

/// A byte that stands where a digest is wanted; see [`mark_digest`].
const MARK: [u8; 4] = *b"\xEEsha";

fn digest_place(payload: &[u8]) -> Option<usize> {
    payload.windows(4).position(|window| window == MARK)
}

/// Marks the digest of a stored END for `build` to replace: it is the last 32 bytes of what the
/// writer writes.
pub fn mark_digest(forged: &mut Forged) {
    let end = forged.frame(0x7F);
    let at = end.payload.len() - 32;
    end.payload[at..at + 4].copy_from_slice(&MARK);
}

/// Offset and payload length of each frame of an intact archive.
pub fn layout(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    let mut at = PREAMBLE_LEN;
    while at < bytes.len() - TRAILER_LEN {
        let len = u32::from_le_bytes(bytes[at + 24..at + 28].try_into().unwrap()) as usize;
        frames.push((at, len));
        at += FRAME_HEADER_LEN + len;
    }
    frames
}

/// Makes every checksum right again after bytes were changed in place, going by the layout of the
/// intact archive.
pub fn repair_checksums(bytes: &mut [u8], layout: &[(usize, usize)]) {
    fn put(bytes: &mut [u8], from: usize, to: usize, at: usize) {
        let crc = crc32fast::hash(&bytes[from..to]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    put(bytes, 0, 12, 12);
    for &(at, len) in layout {
        put(
            bytes,
            at + FRAME_HEADER_LEN,
            at + FRAME_HEADER_LEN + len,
            at + 32,
        );
        put(bytes, at, at + 36, at + 36);
    }
    let trailer = bytes.len() - TRAILER_LEN;
    put(bytes, trailer, trailer + 28, trailer + 28);
}
