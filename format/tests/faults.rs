//! Streams that fail: a writer underneath that fails at any byte never leaves a complete archive,
//! and a failing reader underneath is told apart from damage.

mod support;

use std::io::{self, ErrorKind, Read, Write};

use redis_migrate_format::{Class, Error, Incompleteness, Limits, Reader, Writer};
use support::forge::layout;
use support::*;

/// Takes `room` bytes, at most `step` at a time, then fails.
struct Failing<'a> {
    taken: &'a mut Vec<u8>,
    room: usize,
    step: usize,
    error: ErrorKind,
}

impl Write for Failing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.step).min(self.room - self.taken.len());
        if len == 0 && !bytes.is_empty() {
            return if self.error == ErrorKind::WriteZero {
                Ok(0)
            } else {
                Err(self.error.into())
            };
        }
        self.taken.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_to(sink: impl Write) -> Result<(), Error> {
    let mut writer = Writer::new(sink, &header(), options())?;
    writer.set_context(context())?;
    writer.note("ticket 42")?;
    for record in records() {
        writer.write(&record)?;
    }
    writer.finish(facts()).map(|_| ())
}

#[test]
fn a_writer_that_fails_at_any_byte_leaves_nothing_complete() {
    let whole = small_archive();
    for room in 0..whole.len() {
        for (step, error) in [
            (usize::MAX, ErrorKind::StorageFull),
            (1, ErrorKind::BrokenPipe),
            (7, ErrorKind::WriteZero),
        ] {
            let mut taken = Vec::new();
            let result = write_to(Failing {
                taken: &mut taken,
                room,
                step,
                error,
            });
            let Err(failure) = result else {
                panic!("room for {room} bytes is enough")
            };
            assert_eq!(failure.class(), Class::Io);
            assert_eq!(taken, whole[..room]);
            assert!(!read_all(&taken[..]).is_complete());
        }
    }
    let mut taken = Vec::new();
    write_to(Failing {
        taken: &mut taken,
        room: whole.len(),
        step: 1,
        error: ErrorKind::Other,
    })
    .unwrap();
    assert_eq!(taken, whole);
}

#[test]
fn after_a_failure_a_writer_takes_nothing_more_and_cannot_finish() {
    let whole = small_archive();
    let mut taken = Vec::new();
    let room = whole.len() / 2;
    let sink = Failing {
        taken: &mut taken,
        room,
        step: usize::MAX,
        error: ErrorKind::StorageFull,
    };
    let mut writer = Writer::new(sink, &header(), options()).unwrap();
    writer.set_context(context()).unwrap();
    let failed = records().iter().any(|record| writer.write(record).is_err());
    assert!(failed);
    assert!(matches!(writer.write(&records()[0]), Err(Error::Poisoned)));
    assert!(matches!(
        writer.set_context(context()),
        Err(Error::Poisoned)
    ));
    assert!(matches!(writer.note("x"), Err(Error::Poisoned)));
    assert!(matches!(writer.flush_frame(), Err(Error::Poisoned)));
    assert!(matches!(writer.finish(facts()), Err(Error::Poisoned)));
}

#[test]
fn a_failing_flush_is_an_error() {
    struct NoFlush(Vec<u8>);
    impl Write for NoFlush {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(ErrorKind::StorageFull.into())
        }
    }
    assert_eq!(
        write_to(NoFlush(Vec::new())).unwrap_err().class(),
        Class::Io
    );
}

#[test]
fn dropping_a_writer_finishes_nothing() {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header(), options()).unwrap();
    writer.set_context(context()).unwrap();
    writer.write(&records()[0]).unwrap();
    drop(writer);
    assert_eq!(read_all(&bytes[..]).class(), Some(Class::Incomplete));
}

#[test]
fn an_aborted_archive_says_why_and_how_far_it_came() {
    let mut writer = Writer::new(Vec::new(), &header(), options()).unwrap();
    writer.set_context(context()).unwrap();
    for record in &records()[..3] {
        writer.write(record).unwrap();
    }
    let bytes = writer.abort("connection reset by \u{1b}[31mpeer").unwrap();
    let outcome = read_all(&bytes[..]);
    assert_eq!(outcome.records.len(), 3);
    let error = outcome.error.unwrap();
    assert!(
        error.to_string().contains("gave up after 3 records"),
        "{error}"
    );
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
    let Error::Incomplete {
        how: Incompleteness::Aborted { reason, records: 3 },
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(reason, "connection reset by \u{1b}[31mpeer");
}

/// Gives `left` bytes of an archive, then fails; before each byte it is interrupted.
struct FailingReader<'a> {
    bytes: &'a [u8],
    left: usize,
    error: ErrorKind,
    interrupted: bool,
}

impl Read for FailingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.left == 0 {
            return Err(self.error.into());
        }
        let len = buffer.len().min(3).min(self.left);
        buffer[..len].copy_from_slice(&self.bytes[..len]);
        self.bytes = &self.bytes[len..];
        self.left -= len;
        Ok(len)
    }
}

#[test]
fn a_failing_reader_is_not_called_damage() {
    let whole = small_archive();
    // `UnexpectedEof` is what a TLS or decryption layer says of a cut stream: its failure, not ours.
    for error in [
        ErrorKind::ConnectionReset,
        ErrorKind::UnexpectedEof,
        ErrorKind::WouldBlock,
    ] {
        for left in 0..=whole.len() {
            let reader = FailingReader {
                bytes: &whole,
                left,
                error,
                interrupted: false,
            };
            let outcome = read_all(reader);
            match outcome.error {
                Some(Error::Read { source, offset }) => {
                    assert_eq!(source.kind(), error);
                    assert!(offset <= left as u64, "{offset} of {left}");
                }
                other => panic!("{left}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_reader_stays_failed_and_stays_complete() {
    let mut bytes = small_archive();
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    while reader.next_frame().unwrap().is_some() {}
    assert!(reader.next_frame().unwrap().is_none());
    // Damage in the last DATA frame: what follows it would read well by itself.
    let (at, _) = layout(&bytes)[6];
    bytes[at + 50] ^= 1;
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    let error = loop {
        if let Err(error) = reader.next_frame() {
            break error;
        }
    };
    assert_eq!(error.class(), Class::Damaged);
    for _ in 0..3 {
        assert!(matches!(reader.next_frame(), Err(Error::Poisoned)));
    }
}
