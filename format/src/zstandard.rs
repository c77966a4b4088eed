//! zstd, held to what SPEC.md allows: one frame, content size and checksum present, no dictionary.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use crate::error::{Error, Result};
use crate::limits::MAX_WINDOW;

/// Compresses bodies with one context and one buffer.
pub(crate) struct Packer {
    compressor: Compressor<'static>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    pub(crate) fn new(level: i32) -> Result<Self> {
        if !zstd::compression_level_range().contains(&level) {
            return Err(Error::Unwritable(format!("zstd has no level {level}")));
        }
        let failed =
            |error: std::io::Error| Error::Unwritable(format!("zstd cannot start: {error}"));
        let mut compressor = Compressor::new(level).map_err(failed)?;
        for parameter in [
            zstd_safe::CParameter::ChecksumFlag(true),
            zstd_safe::CParameter::ContentSizeFlag(true),
            zstd_safe::CParameter::DictIdFlag(false),
        ] {
            compressor.set_parameter(parameter).map_err(failed)?;
        }
        Ok(Packer {
            compressor,
            packed: Vec::new(),
        })
    }

    /// The body as one zstd frame, or `None` if that would not be shorter.
    pub(crate) fn pack(&mut self, body: &[u8]) -> Result<Option<&[u8]>> {
        self.packed.clear();
        self.packed.reserve(zstd_safe::compress_bound(body.len()));
        self.compressor
            .compress_to_buffer(body, &mut self.packed)
            .map_err(|error| Error::Unwritable(format!("zstd failed: {error}")))?;
        Ok((self.packed.len() < body.len()).then_some(&self.packed[..]))
    }
}

/// Decompresses payloads with one context.
pub(crate) struct Unpacker(Decompressor<'static>);

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Unpacker {
    pub(crate) fn new() -> Result<Self, String> {
        Decompressor::new()
            .map(Unpacker)
            .map_err(|error| error.to_string())
    }

    /// Decompresses exactly one frame of exactly `raw_len` bytes into `raw`. The error says in
    /// plain words what is wrong.
    pub(crate) fn unpack(
        &mut self,
        stored: &[u8],
        raw_len: usize,
        raw: &mut Vec<u8>,
    ) -> Result<(), String> {
        check_frame(stored, raw_len as u64)?;
        // Exactly as long as it may become: neither a bomb nor the buffer's history changes the outcome.
        raw.resize(raw_len, 0);
        let len = self
            .0
            .decompress_to_buffer(stored, &mut raw[..])
            .map_err(|error| format!("zstd says: {error}"))?;
        if len != raw_len {
            return Err(format!("{len} bytes come out where {raw_len} are due"));
        }
        Ok(())
    }
}

/// Checks the zstd frame header (RFC 8878 §3.1.1.1) and that nothing follows the frame.
fn check_frame(stored: &[u8], raw_len: u64) -> Result<(), String> {
    let Some((&[0x28, 0xB5, 0x2F, 0xFD], rest)) = stored.split_first_chunk::<4>() else {
        return Err("the payload is no zstd frame".into());
    };
    let Some(&descriptor) = rest.first() else {
        return Err("the zstd frame is cut off".into());
    };
    if descriptor & 0b0000_0011 != 0 {
        return Err("the zstd frame names a dictionary".into());
    }
    if descriptor & 0b0000_0100 == 0 {
        return Err("the zstd frame has no checksum".into());
    }
    // A frame of a single segment has no window of its own: its content is the window.
    if descriptor & 0b0010_0000 == 0 {
        let Some(&byte) = rest.get(1) else {
            return Err("the zstd frame is cut off".into());
        };
        let base = 1_u64 << (10 + (byte >> 3));
        let window = base + base / 8 * u64::from(byte & 7);
        if window > MAX_WINDOW {
            return Err(format!(
                "the zstd frame wants a window of {window} bytes, allowed are {MAX_WINDOW}"
            ));
        }
    }
    match zstd_safe::get_frame_content_size(stored) {
        Ok(Some(size)) if size == raw_len => {}
        Ok(Some(size)) => {
            return Err(format!(
                "the zstd frame says it holds {size} bytes where {raw_len} are due"
            ));
        }
        Ok(None) => return Err("the zstd frame does not say how much it holds".into()),
        Err(_) => return Err("the zstd frame's header cannot be read".into()),
    }
    match zstd_safe::find_frame_compressed_size(stored) {
        Ok(len) if len == stored.len() => Ok(()),
        Ok(len) => Err(format!(
            "the zstd frame has {len} bytes of a payload of {}",
            stored.len()
        )),
        Err(code) => Err(format!("zstd says: {}", zstd_safe::get_error_name(code))),
    }
}
