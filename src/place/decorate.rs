//! What can be put around a store: trying again, and limits.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::store::{Access, Draft, Held, Identity, Opened, Ranged, Store, Target};
use crate::stop::Stop;

/// Asks a store again that fails for a reason that may pass. What comes once, or is written, is not
/// asked for again: nobody knows how much of it went through.
pub struct Retrying<S> {
    store: S,
    tries: u32,
    wait: Arc<dyn Fn(Duration) + Send + Sync>,
}

/// The first wait between two tries; each is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(100);

impl<S: Store> Retrying<S> {
    /// Tries everything `tries` times, and waits by `wait` in between.
    pub fn new(store: S, tries: u32, wait: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        let wait = Arc::new(wait);
        Self { store, tries, wait }
    }
}

/// Whether it may be another time that the same succeeds.
fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::Interrupted
            | Kind::TimedOut
            | Kind::WouldBlock
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::ConnectionRefused
            | Kind::BrokenPipe
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::StaleNetworkFileHandle
    )
}

fn again<T, E>(
    tries: u32,
    wait: &dyn Fn(Duration),
    may_pass: impl Fn(&E) -> bool,
    mut once: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut pause = FIRST_WAIT;
    for _ in 1..tries {
        match once() {
            Err(error) if may_pass(&error) => wait(pause),
            done => return done,
        }
        pause *= 2;
    }
    once()
}

impl<S: Store> Store for Retrying<S> {
    fn open(&self, name: &Path, stop: &Stop) -> Result<Opened> {
        let may = |error: &anyhow::Error| {
            let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
            causes.any(may_pass)
        };
        let open = || self.store.open(name, stop);
        Ok(match again(self.tries, &*self.wait, may, open)? {
            Opened::Ranged(of) => Opened::Ranged(Arc::new(Retried {
                of,
                tries: self.tries,
                wait: Arc::clone(&self.wait),
            })),
            stream => stream,
        })
    }

    fn create(&self, name: &Path) -> Result<Box<dyn Draft>> {
        self.store.create(name)
    }

    fn hold(&self, name: &Path, create: bool, busy: &str) -> Result<Option<Arc<dyn Held>>> {
        self.store.hold(name, create, busy)
    }

    fn hold_new(
        &self,
        name: &Path,
        bytes: &[u8],
        replaces: bool,
        busy: &str,
    ) -> Result<Arc<dyn Held>> {
        self.store.hold_new(name, bytes, replaces, busy)
    }

    fn identity(&self, name: &Path) -> Option<Identity> {
        self.store.identity(name)
    }

    fn target(&self, name: &Path, access: Access) -> Option<Target> {
        self.store.target(name, access)
    }
}

struct Retried {
    of: Arc<dyn Ranged>,
    tries: u32,
    wait: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl Ranged for Retried {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        again(self.tries, &*self.wait, may_pass, || {
            self.of.read_at(buffer, at)
        })
    }

    fn size(&self) -> io::Result<u64> {
        again(self.tries, &*self.wait, may_pass, || self.of.size())
    }

    fn modified_ms(&self) -> Option<u64> {
        self.of.modified_ms()
    }
}

/// Reads and writes as slowly as it is told to.
pub struct Limited<S> {
    store: S,
    pay: Pay,
}

/// Told of bytes that went through; waits until the next ones may.
type Pay = Arc<dyn Fn(usize) + Send + Sync>;

impl<S: Store> Limited<S> {
    /// Calls `pay` with what was read or written each time, which waits for as long as that has to
    /// take.
    pub fn new(store: S, pay: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let pay = Arc::new(pay);
        Self { store, pay }
    }
}

impl<S: Store> Store for Limited<S> {
    fn open(&self, name: &Path, stop: &Stop) -> Result<Opened> {
        let pay = Arc::clone(&self.pay);
        Ok(match self.store.open(name, stop)? {
            Opened::Ranged(of) => Opened::Ranged(Arc::new(Paced { of, pay })),
            Opened::Stream(of) => Opened::Stream(Box::new(Paced { of, pay })),
        })
    }

    fn create(&self, name: &Path) -> Result<Box<dyn Draft>> {
        let (of, pay) = (self.store.create(name)?, Arc::clone(&self.pay));
        Ok(Box::new(Paced { of, pay }))
    }

    fn hold(&self, name: &Path, create: bool, busy: &str) -> Result<Option<Arc<dyn Held>>> {
        self.store.hold(name, create, busy)
    }

    fn hold_new(
        &self,
        name: &Path,
        bytes: &[u8],
        replaces: bool,
        busy: &str,
    ) -> Result<Arc<dyn Held>> {
        self.store.hold_new(name, bytes, replaces, busy)
    }

    fn identity(&self, name: &Path) -> Option<Identity> {
        self.store.identity(name)
    }

    fn target(&self, name: &Path, access: Access) -> Option<Target> {
        self.store.target(name, access)
    }
}

struct Paced<T> {
    of: T,
    pay: Pay,
}

impl Ranged for Paced<Arc<dyn Ranged>> {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let read = self.of.read_at(buffer, at)?;
        (self.pay)(read);
        Ok(read)
    }

    fn size(&self) -> io::Result<u64> {
        self.of.size()
    }

    fn modified_ms(&self) -> Option<u64> {
        self.of.modified_ms()
    }
}

impl Read for Paced<Box<dyn Read + Send>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.of.read(buffer)?;
        (self.pay)(read);
        Ok(read)
    }
}

impl Write for Paced<Box<dyn Draft>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.of.write(bytes)?;
        (self.pay)(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.of.flush()
    }
}

impl Draft for Paced<Box<dyn Draft>> {
    fn publish(self: Box<Self>) -> Result<()> {
        self.of.publish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::super::memory::MemoryStore;
    use super::*;

    /// Fails so many times in a row, in this way, whatever it is asked.
    struct Failing {
        store: MemoryStore,
        left: Arc<AtomicU32>,
        kind: io::ErrorKind,
    }

    impl Failing {
        fn fail(left: &AtomicU32, kind: io::ErrorKind) -> io::Result<()> {
            let less = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            less.map_or(Ok(()), |_| Err(kind.into()))
        }
    }

    impl Store for Failing {
        fn open(&self, name: &Path, stop: &Stop) -> Result<Opened> {
            Self::fail(&self.left, self.kind)?;
            let Opened::Ranged(of) = self.store.open(name, stop)? else {
                panic!("memory is ranged");
            };
            let (left, kind) = (Arc::clone(&self.left), self.kind);
            Ok(Opened::Ranged(Arc::new(FailingBytes { of, left, kind })))
        }

        fn create(&self, name: &Path) -> Result<Box<dyn Draft>> {
            self.store.create(name)
        }

        fn hold(&self, name: &Path, create: bool, busy: &str) -> Result<Option<Arc<dyn Held>>> {
            self.store.hold(name, create, busy)
        }

        fn hold_new(
            &self,
            name: &Path,
            bytes: &[u8],
            replaces: bool,
            busy: &str,
        ) -> Result<Arc<dyn Held>> {
            self.store.hold_new(name, bytes, replaces, busy)
        }

        fn identity(&self, name: &Path) -> Option<Identity> {
            self.store.identity(name)
        }
    }

    struct FailingBytes {
        of: Arc<dyn Ranged>,
        left: Arc<AtomicU32>,
        kind: io::ErrorKind,
    }

    impl Ranged for FailingBytes {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
            Failing::fail(&self.left, self.kind)?;
            self.of.read_at(buffer, at)
        }

        fn size(&self) -> io::Result<u64> {
            self.of.size()
        }
    }

    fn failing(times: u32, kind: io::ErrorKind) -> (Failing, Arc<AtomicU32>) {
        let store = MemoryStore::new();
        store.put("x", "bytes");
        let left = Arc::new(AtomicU32::new(times));
        let failing = Failing {
            store,
            left: Arc::clone(&left),
            kind,
        };
        (failing, left)
    }

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        let waited = Arc::new(Mutex::new(Vec::new()));
        let open = |times, kind| {
            let (store, left) = failing(times, kind);
            let waited = Arc::clone(&waited);
            let wait = move |time: Duration| waited.lock().unwrap().push(time.as_millis());
            let store = Retrying::new(store, 3, wait);
            (store.open(Path::new("x"), &Stop::new()), left)
        };
        let (opened, left) = open(2, io::ErrorKind::TimedOut);
        assert_eq!(*waited.lock().unwrap(), [100, 200]);
        let Opened::Ranged(bytes) = opened.unwrap() else {
            panic!("a stream");
        };
        left.store(2, SeqCst);
        let mut buffer = [0; 5];
        assert_eq!(bytes.read_at(&mut buffer, 0).unwrap(), 5);
        assert_eq!((&buffer, left.load(SeqCst)), (b"bytes", 0));
        assert!(open(3, io::ErrorKind::TimedOut).0.is_err(), "three times");
        let (opened, left) = open(1, io::ErrorKind::PermissionDenied);
        assert!(opened.is_err());
        assert_eq!(left.load(SeqCst), 0);
        assert_eq!(waited.lock().unwrap().len(), 2 + 2 + 2);
    }

    #[test]
    fn a_limit_is_told_of_every_byte_and_changes_none() {
        let store = MemoryStore::new();
        let paid = Arc::new(Mutex::new(Vec::new()));
        let counted = Arc::clone(&paid);
        let limited = Limited::new(store.clone(), move |bytes| {
            counted.lock().unwrap().push(bytes)
        });
        let mut draft = limited.create(Path::new("x")).unwrap();
        draft.write_all(b"01234").unwrap();
        draft.write_all(b"567").unwrap();
        draft.publish().unwrap();
        let Opened::Ranged(bytes) = limited.open(Path::new("x"), &Stop::new()).unwrap() else {
            panic!("a stream");
        };
        let mut buffer = [0; 6];
        assert_eq!(bytes.read_at(&mut buffer, 3).unwrap(), 5);
        assert_eq!(&buffer[..5], b"34567");
        assert_eq!(*paid.lock().unwrap(), [5, 3, 5]);
    }
}
