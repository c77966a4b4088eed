//! Archives that claim more than they hold, or hold more than they look like: every checksum is
//! right, so that readers get to see the lists, the lengths and the runs that are meant to hurt.
//!
//! Each maker says what a reader must make of its archive. The makers hold the archive in memory
//! (16 MiB at most for one frame), so peak memory is to be measured in a process of its own.

use redis_migrate_format::frame::{Codec, FrameHeader, FrameType};
use redis_migrate_format::trailer::Trailer;
use redis_migrate_format::version::Preamble;
use sha2::{Digest, Sha256};

/// The id of all these archives.
pub const ARCHIVE_ID: u64 = 0xBAD0_0000_0000_0001;

/// The longest body of a frame.
pub const MAX_BODY: usize = 16 << 20;

/// The longest body of HEADER.
pub const MAX_HEADER: usize = 1 << 20;

/// What a reader must make of a hostile archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is complete, however odd.
    Complete,
    /// It is damaged or cut off: exit code 10. What looks at frames only may not see it.
    Damaged,
}

/// A hostile archive.
#[derive(Debug)]
pub struct Hostile {
    /// What it is, for messages and as a file's name.
    pub name: &'static str,
    /// What a reader must make of it.
    pub verdict: Verdict,
    /// Bytes of the largest value, key or frame of many records, which a reader holds whole; 0 if it
    /// is small. A value that never ends does not count.
    pub largest_bytes: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All of them. Takes a few seconds and 100 MiB.
pub fn all() -> Vec<Hostile> {
    use Verdict::{Complete, Damaged};
    let hostile = |name, verdict, largest_bytes, bytes| Hostile {
        name,
        verdict,
        largest_bytes,
        bytes,
    };
    let mut all = vec![
        hostile("end-moments", Damaged, 0, end_with_moments(8_000_000)),
        hostile("end-counts", Damaged, 0, end_with_counts(1_300_000)),
        hostile("end-databases", Damaged, 0, end_with_databases(1_600_000)),
        hostile("databases-65536", Complete, 0, databases(65_536)),
        hostile("databases-65537", Damaged, 0, databases(65_537)),
        hostile("types-65536", Complete, 0, databases_of_every_type(65_536)),
        hostile("index-items", Damaged, 0, index_with_items(4_000_000)),
        hostile("zeros-200-mib", Complete, 200 << 20, zeros(200 << 20)),
        hostile("zeros-without-end", Damaged, 0, zeros_without_end(600)),
        hostile("key-of-zeros", Damaged, 0, key_of_zeros(600 << 20)),
        hostile("longest-key", Complete, 16 << 20, key_of_zeros(16 << 20)),
        hostile("skipped-zeros", Complete, 0, skipped_zeros(600 << 20)),
        hostile("small-entries", Complete, 0, small_entries(131_071)),
        hostile("full-frames", Complete, MAX_BODY as u64, full_frames(3)),
        hostile("empty-entries", Damaged, 0, small_entries(1_500_000)),
        hostile("zstd-window", Damaged, 0, zstd_window(31)),
        hostile("claimed-frame", Damaged, 0, claimed_frame()),
        hostile("claimed-value", Damaged, 0, claimed_value()),
    ];
    for list in LISTS {
        let bytes = header_with_list(list, MAX_HEADER - 4_096);
        all.push(hostile(list.name, Damaged, 0, bytes));
    }
    all
}

/// A list of HEADER, with the smallest item that it can have.
#[derive(Debug, Clone, Copy)]
pub struct List {
    /// The field's name.
    pub name: &'static str,
    item: &'static [u8],
}

/// Every list of HEADER.
pub const LISTS: [List; 9] = [
    list("header-nodes", &[0, 0, 0]),
    list("header-expected", &[0, 0, 0]),
    list("header-dbs", &[0]),
    list("header-matches", &[0]),
    list("header-excludes", &[0]),
    list("header-types", &[0]),
    list("header-other", &[0]),
    list("header-lost", &[0, 0]),
    list("header-extra", &[0, 0]),
];

const fn list(name: &'static str, item: &'static [u8]) -> List {
    List { name, item }
}

/// HEADER with one list as long as fits into so many bytes.
pub fn header_with_list(list: List, bytes: usize) -> Vec<u8> {
    let mut archive = Maker::with_header(&header_body(Some((list, bytes / list.item.len()))));
    archive.data(&one_key(0));
    archive.finish(&End::of(1, &[(0, 1, 2, 1)]).body())
}

/// END that says "exact", of so many nodes.
pub fn end_with_moments(count: usize) -> Vec<u8> {
    let mut archive = Maker::new();
    archive.data(&one_key(0));
    let mut end = End::of(1, &[(0, 1, 2, 1)]);
    end.reached = [&[2][..], &varint(count as u64), &vec![0; count * 2]].concat();
    archive.finish(&end.body())
}

/// END with so many rows of the exporter's counts, all of databases that have nothing.
pub fn end_with_counts(count: u32) -> Vec<u8> {
    let mut archive = Maker::new();
    archive.data(&one_key(0));
    let mut end = End::of(1, &[(0, 1, 2, 1)]);
    end.counts = varint(count.into());
    for db in 1..=count {
        end.counts.extend(varint(db.into()));
        end.counts.extend([0; 7]);
    }
    archive.finish(&end.body())
}

/// END with so many rows of totals, of databases that are not there.
pub fn end_with_databases(count: u32) -> Vec<u8> {
    let mut archive = Maker::new();
    archive.data(&one_key(0));
    let rows: Vec<_> = (0..count).map(|db| (db, 1, 2, 1)).collect();
    archive.finish(&End::of(1, &rows).body())
}

/// A key in each of so many databases, and counts of each, which are all right.
pub fn databases(count: u32) -> Vec<u8> {
    databases_of_types(count, &[0x00])
}

/// A key of each type in each of so many databases.
pub fn databases_of_every_type(count: u32) -> Vec<u8> {
    databases_of_types(count, &[0, 1, 2, 3, 4, 7, 15])
}

fn databases_of_types(count: u32, types: &[u8]) -> Vec<u8> {
    let mut archive = Maker::new();
    let of_each = types.len() as u64;
    let mut body = context();
    let mut entries = 1;
    for db in 0..count {
        for type_byte in types {
            body.extend(key_entry(db, &[*type_byte], &[*type_byte, 0]));
            entries += 1;
        }
        if entries + types.len() > 100_000 || db == count - 1 {
            archive.data(&body);
            (body, entries) = (context(), 1);
        }
    }
    let rows: Vec<_> = (0..count)
        .map(|db| (db, of_each, 2 * of_each, of_each))
        .collect();
    let mut end = End::of(u64::from(count) * of_each, &rows);
    end.counts = varint(count.into());
    for db in 0..count {
        end.counts.extend(varint(db.into()));
        end.counts
            .extend([of_each as u8, 0, of_each as u8, 0, 0, 0, 0]);
    }
    archive.finish(&end.body())
}

/// INDEX with so many items where there are three frames.
pub fn index_with_items(count: usize) -> Vec<u8> {
    let mut archive = Maker::new();
    archive.data(&one_key(0));
    let items = [varint(count as u64), vec![2; count * 4]].concat();
    archive.frame(FrameType::INDEX, &items, false);
    archive.finish(&End::of(1, &[(0, 1, 2, 1)]).body())
}

/// One value of so many zero bytes, in zstd frames of a few hundred bytes each.
pub fn zeros(len: u64) -> Vec<u8> {
    let mut archive = Maker::new();
    let mut head = context();
    let key = [&[0, 0, 0, 0, 1, b'z'][..], &varint(len)].concat();
    head.push(1);
    head.extend(varint(key.len() as u64 + len));
    head.extend(key);
    archive.run(&head, len, None);
    archive.finish(&End::of(1, &[(0, 1, len, 1)]).body())
}

/// One key whose name is so many zero bytes.
pub fn key_of_zeros(len: u64) -> Vec<u8> {
    let mut archive = Maker::new();
    let mut head = context();
    let key = [&[0, 0, 0, 0][..], &varint(len)].concat();
    let tail = [2, 0, 0];
    head.push(1);
    head.extend(varint(key.len() as u64 + len + tail.len() as u64));
    head.extend(key);
    archive.run_with_tail(&head, len, &tail);
    archive.finish(&End::of(1, &[(0, 1, 2, len)]).body())
}

/// One small key, in a run that begins with an entry of so many zero bytes that readers skip.
pub fn skipped_zeros(len: u64) -> Vec<u8> {
    let mut archive = Maker::new();
    let mut head = context();
    head.push(0x99);
    head.extend(varint(len));
    archive.run_with_tail(&head, len, &key_entry(0, b"k", &[0, 0]));
    archive.finish(&End::of(1, &[(0, 1, 2, 1)]).body())
}

/// A value that claims 2^40 bytes, and so many parts of a MiB of it, and then nothing.
pub fn zeros_without_end(parts: u32) -> Vec<u8> {
    let mut archive = Maker::new();
    let len = (1 << 40) - 64;
    let mut head = context();
    let key = [&[0, 0, 0, 0, 1, b'z'][..], &varint(len)].concat();
    head.push(1);
    head.extend(varint(key.len() as u64 + len));
    head.extend(key);
    archive.run(&head, len, Some(parts));
    archive.bytes
}

/// So many function payloads of no bytes in one frame; 131,071 are allowed.
pub fn small_entries(count: u32) -> Vec<u8> {
    let mut archive = Maker::new();
    let mut body = context();
    for _ in 0..count {
        body.extend([0x03, 1, 0]);
    }
    archive.frame(FrameType::DATA, &body, true);
    let mut end = End::of(count.into(), &[]);
    end.functions = count.into();
    archive.finish(&end.body())
}

/// Frames of the largest size, full of as many keys as are allowed, that do not compress.
pub fn full_frames(frames: u32) -> Vec<u8> {
    const KEYS: u32 = 131_071;
    const VALUE: usize = 112;
    let mut archive = Maker::new();
    let mut state = 1_u64;
    for frame in 0..frames {
        let mut body = context();
        for n in 0..KEYS {
            let mut value = Vec::with_capacity(VALUE);
            value.push(0);
            while value.len() < VALUE {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                value.extend_from_slice(&state.to_be_bytes()[..4]);
            }
            value.truncate(VALUE);
            let key = (u64::from(frame) << 32 | u64::from(n)).to_be_bytes();
            body.extend(key_entry(0, &key[3..], &value));
        }
        assert!(body.len() <= MAX_BODY);
        archive.frame(FrameType::DATA, &body, false);
    }
    let records = u64::from(frames) * u64::from(KEYS);
    let row = (0, records, records * VALUE as u64, records * 5);
    archive.finish(&End::of(records, &[row]).body())
}

/// A zstd payload whose window is 2 to the power of `log` bytes; up to 27 are allowed.
pub fn zstd_window(log: u32) -> Vec<u8> {
    // Long enough that the content size takes two bytes, with an entry that readers skip.
    let mut body = one_key(0);
    body.extend([0x99, 0xFB, 0x2C, 0x01]);
    body.resize(body.len() + 300, 7);
    let mut compressor = zstd::bulk::Compressor::new(3).expect("zstd");
    compressor.include_checksum(true).expect("a checksum");
    let packed = compressor.compress(&body).expect("compressed");
    assert_eq!(packed[4] & 0xE0, 0x60, "a size of two bytes, one segment");
    // Not a single segment: then the window is said in a byte of its own.
    let mut payload = packed[..4].to_vec();
    payload.push(packed[4] & !0x20);
    payload.push(((log - 10) << 3) as u8);
    payload.extend_from_slice(&packed[5..]);
    let mut archive = Maker::new();
    archive.raw_frame(FrameType::DATA, Codec::Zstd, body.len() as u32, &payload);
    archive.finish(&End::of(1, &[(0, 1, 2, 1)]).body())
}

/// A frame that claims 16 MiB, with ten bytes of it.
pub fn claimed_frame() -> Vec<u8> {
    let mut archive = Maker::new();
    let header = FrameHeader {
        frame_type: FrameType::DATA,
        codec: Codec::Stored,
        archive_id: ARCHIVE_ID,
        seq: archive.seq,
        stored_len: MAX_BODY as u32,
        raw_len: MAX_BODY as u32,
        payload_crc: 0,
    };
    archive.bytes.extend(header.encode());
    archive.bytes.extend([0; 10]);
    archive.bytes
}

/// A key whose value claims 2^40 bytes in a frame of thirty.
pub fn claimed_value() -> Vec<u8> {
    let mut archive = Maker::new();
    let mut body = context();
    let key = [&[0, 0, 0, 0, 1, b'z'][..], &varint(1 << 40), b"abc"].concat();
    body.push(1);
    body.extend(varint(key.len() as u64));
    body.extend(key);
    archive.data(&body);
    archive.finish(&End::of(1, &[(0, 1, 3, 1)]).body())
}

/// Puts an archive together, with right checksums.
#[derive(Debug)]
pub struct Maker {
    bytes: Vec<u8>,
    seq: u64,
    index_offset: u64,
}

impl Default for Maker {
    fn default() -> Self {
        Self::new()
    }
}

impl Maker {
    /// Preamble and a HEADER that says nothing.
    pub fn new() -> Self {
        Self::with_header(&header_body(None))
    }

    /// Preamble and this HEADER.
    pub fn with_header(body: &[u8]) -> Self {
        let mut maker = Self {
            bytes: Preamble::CURRENT.encode().to_vec(),
            seq: 0,
            index_offset: 0,
        };
        maker.frame(FrameType::HEADER, body, false);
        maker
    }

    /// The next frame has this number.
    pub fn number(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// A DATA frame, stored.
    pub fn data(&mut self, body: &[u8]) {
        self.frame(FrameType::DATA, body, false);
    }

    /// A frame of this body, compressed or not.
    pub fn frame(&mut self, frame_type: FrameType, body: &[u8], packed: bool) {
        if packed {
            let payload = pack(body);
            self.raw_frame(frame_type, Codec::Zstd, body.len() as u32, &payload);
        } else {
            self.raw_frame(frame_type, Codec::Stored, body.len() as u32, body);
        }
    }

    /// A frame with this payload.
    pub fn raw_frame(&mut self, frame_type: FrameType, codec: Codec, raw_len: u32, payload: &[u8]) {
        if frame_type == FrameType::INDEX {
            self.index_offset = self.bytes.len() as u64;
        }
        let header = FrameHeader {
            frame_type,
            codec,
            archive_id: ARCHIVE_ID,
            seq: self.seq,
            stored_len: payload.len() as u32,
            raw_len,
            payload_crc: crc32(payload),
        };
        self.bytes.extend(header.encode());
        self.bytes.extend(payload);
        self.seq = self.seq.wrapping_add(1);
    }

    /// A FRAGMENT run: `head`, then `zeros` zero bytes, in parts of a MiB; of them only `parts`.
    pub fn run(&mut self, head: &[u8], zeros: u64, parts: Option<u32>) {
        self.put_run(head, zeros, &[], parts);
    }

    /// The same, whole, with these bytes at the end.
    pub fn run_with_tail(&mut self, head: &[u8], zeros: u64, tail: &[u8]) {
        self.put_run(head, zeros, tail, None);
    }

    fn put_run(&mut self, head: &[u8], zeros: u64, tail: &[u8], parts: Option<u32>) {
        const PART: u64 = 1 << 20;
        let total = head.len() as u64 + zeros + tail.len() as u64;
        let mut done = 0;
        let mut part = 0_u32;
        while done < total && parts.is_none_or(|parts| part < parts) {
            let len = PART.min(total - done);
            let mut bytes = vec![0; len as usize];
            // Head and tail lie within one part each, or the tail begins a part of its own.
            if part == 0 {
                bytes[..head.len()].copy_from_slice(head);
            }
            for (n, byte) in tail.iter().enumerate() {
                let at = total - (tail.len() - n) as u64;
                if (done..done + len).contains(&at) {
                    bytes[(at - done) as usize] = *byte;
                }
            }
            done += len;
            let fragment = [
                varint(part.into()),
                vec![u8::from(done == total)],
                varint(total),
            ]
            .concat();
            let body = [&[fragment.len() as u8][..], &fragment, &bytes].concat();
            self.frame(FrameType::FRAGMENT, &body, true);
            part += 1;
        }
    }

    /// END and trailer. Frames and digest are put in where the body has room for them.
    pub fn finish(mut self, end: &EndBody) -> Vec<u8> {
        let end_offset = self.bytes.len() as u64;
        let digest = Sha256::digest(&self.bytes);
        let body = [&varint(self.seq)[..], &end.0, &digest].concat();
        self.frame(FrameType::END, &body, false);
        let trailer = Trailer {
            end_offset,
            index_offset: self.index_offset,
            archive_id: ARCHIVE_ID,
        };
        self.bytes.extend(trailer.encode());
        self.bytes
    }

    /// What there is, without an end.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// The fields of END between the number of frames and the digest.
#[derive(Debug)]
pub struct EndBody(Vec<u8>);

/// END, put together from parts that a test can replace by others.
#[derive(Debug)]
pub struct End {
    /// Records.
    pub records: u64,
    /// The list `per_db`, with its count.
    pub per_db: Vec<u8>,
    /// Function payloads.
    pub functions: u64,
    /// Variant and fields of `reached`.
    pub reached: Vec<u8>,
    /// The list `counts`, with its count.
    pub counts: Vec<u8>,
}

impl End {
    /// So many records; of each database its number, its records, the bytes of their values and of
    /// their keys.
    pub fn of(records: u64, rows: &[(u32, u64, u64, u64)]) -> Self {
        let mut per_db = varint(rows.len() as u64);
        for (db, records, value_bytes, key_bytes) in rows {
            for number in [u64::from(*db), *records, 0, *value_bytes, *key_bytes, 0] {
                per_db.extend(varint(number));
            }
        }
        Self {
            records,
            per_db,
            functions: 0,
            reached: vec![0, 0, 0],
            counts: vec![0],
        }
    }

    /// Its bytes.
    pub fn body(&self) -> EndBody {
        let mut body = varint(self.records);
        body.extend_from_slice(&self.per_db);
        body.extend(varint(self.functions));
        body.extend([10, 10]);
        body.extend_from_slice(&self.reached);
        body.extend_from_slice(&self.counts);
        // Duplicates possible, two times.
        body.extend([1, 0, 0]);
        EndBody(body)
    }
}

/// HEADER, with one of its lists filled.
fn header_body(filled: Option<(List, usize)>) -> Vec<u8> {
    let items = |name: &str| match filled {
        Some((list, count)) if list.name == name => {
            [varint(count as u64), list.item.repeat(count)].concat()
        }
        _ => vec![0],
    };
    let origin = match filled {
        Some((list, _)) if list.name == "header-lost" => [vec![1], items("header-lost")].concat(),
        _ => vec![0],
    };
    [
        // Tool of three texts, two times, family and mode.
        vec![0, 0, 0, 0, 0, 0, 0],
        items("header-nodes"),
        // No label; consistency asked: scan.
        vec![0, 1],
        items("header-expected"),
        items("header-dbs"),
        items("header-matches"),
        items("header-excludes"),
        items("header-types"),
        items("header-other"),
        // Functions, eviction, level, frame target.
        vec![0, 0, 0, 1],
        origin,
        items("header-extra"),
    ]
    .concat()
}

/// A DATA body of one key, `k`, an empty string.
pub fn one_key(db: u32) -> Vec<u8> {
    [context(), key_entry(db, b"k", &[0, 0])].concat()
}

/// A CONTEXT entry: time 0, Redis, RDB version 10, node 0.
pub fn context() -> Vec<u8> {
    vec![5, 4, 0, 0, 10, 0]
}

/// A KEY entry without expiry.
pub fn key_entry(db: u32, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut body = varint(db.into());
    body.extend([0, 0, 0]);
    body.extend(varint(key.len() as u64));
    body.extend_from_slice(key);
    body.extend(varint(value.len() as u64));
    body.extend_from_slice(value);
    let mut entry = vec![1];
    entry.extend(varint(body.len() as u64));
    entry.extend(body);
    entry
}

/// A number as bodies have it.
pub fn varint(value: u64) -> Vec<u8> {
    match value {
        0..251 => vec![value as u8],
        251..0x1_0000 => [&[0xFB][..], &(value as u16).to_le_bytes()].concat(),
        0x1_0000..0x1_0000_0000 => [&[0xFC][..], &(value as u32).to_le_bytes()].concat(),
        _ => [&[0xFD][..], &value.to_le_bytes()].concat(),
    }
}

fn pack(body: &[u8]) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(3).expect("zstd");
    compressor.include_checksum(true).expect("a checksum");
    compressor.compress(body).expect("compressed")
}

/// CRC-32 as in zip.
fn crc32(bytes: &[u8]) -> u32 {
    const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    CRC.checksum(bytes)
}
