//! Bytes in memory, for tests and for simulated runs: a store that a thread can use in place of files
//! ([`use_in_place_of_files`](super::store::use_in_place_of_files)).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::store::{Draft, Held, Identity, Opened, Ranged, Store};
use crate::exit::{Usage, usage};
use crate::stop::Stop;

/// Keeps everything in memory. Clones are the same store.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    objects: Mutex<BTreeMap<PathBuf, Arc<Object>>>,
    made: AtomicU64,
}

#[derive(Debug, Default)]
struct Object {
    number: u64,
    bytes: Mutex<Vec<u8>>,
    is_held: AtomicBool,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts bytes there, in place of what has the name.
    pub fn put(&self, name: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) {
        let object = self.object(bytes.into());
        lock(&self.0.objects).insert(name.as_ref().to_owned(), object);
    }

    /// What has a name.
    pub fn get(&self, name: impl AsRef<Path>) -> Option<Vec<u8>> {
        let object = self.find(name.as_ref())?;
        Some(lock(&object.bytes).clone())
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<PathBuf> {
        lock(&self.0.objects).keys().cloned().collect()
    }

    fn find(&self, name: &Path) -> Option<Arc<Object>> {
        lock(&self.0.objects).get(name).cloned()
    }

    fn object(&self, bytes: Vec<u8>) -> Arc<Object> {
        Arc::new(Object {
            number: self.0.made.fetch_add(1, SeqCst),
            bytes: Mutex::new(bytes),
            is_held: AtomicBool::new(false),
        })
    }

    fn held(&self, name: &Path, object: Arc<Object>, busy: &str) -> Result<Arc<dyn Held>> {
        if object.is_held.swap(true, SeqCst) {
            return Err(usage(busy));
        }
        Ok(Arc::new(HeldObject {
            store: self.clone(),
            name: Mutex::new(name.to_owned()),
            object,
        }))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for MemoryStore {
    fn open(&self, name: &Path, _stop: &Stop) -> Result<Opened> {
        let found = self.find(name);
        let object = found.ok_or_else(|| Usage(format!("nothing is kept as {name:?}")))?;
        Ok(Opened::Ranged(object))
    }

    fn create(&self, name: &Path) -> Result<Box<dyn Draft>> {
        Ok(Box::new(MemoryDraft {
            store: self.clone(),
            name: name.to_owned(),
            bytes: Vec::new(),
        }))
    }

    fn hold(&self, name: &Path, create: bool, busy: &str) -> Result<Option<Arc<dyn Held>>> {
        if create && self.find(name).is_none() {
            self.put(name, Vec::new());
        }
        let found = self.find(name);
        found
            .map(|object| self.held(name, object, busy))
            .transpose()
    }

    fn hold_new(
        &self,
        name: &Path,
        bytes: &[u8],
        replaces: bool,
        busy: &str,
    ) -> Result<Arc<dyn Held>> {
        if !replaces && self.find(name).is_some() {
            return Err(usage(format!("{name:?} is there already")));
        }
        let object = self.object(bytes.to_vec());
        lock(&self.0.objects).insert(name.to_owned(), Arc::clone(&object));
        self.held(name, object, busy)
    }

    fn identity(&self, name: &Path) -> Option<Identity> {
        self.find(name).map(|object| object.identity())
    }
}

impl Object {
    fn identity(&self) -> Identity {
        Identity {
            device: 0,
            inode: self.number,
            bytes: lock(&self.bytes).len() as u64,
        }
    }
}

impl Ranged for Object {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = lock(&self.bytes);
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let len = buffer.len().min(bytes.len() - from);
        buffer[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.bytes).len() as u64)
    }
}

struct MemoryDraft {
    store: MemoryStore,
    name: PathBuf,
    bytes: Vec<u8>,
}

impl Draft for MemoryDraft {
    fn publish(self: Box<Self>) -> Result<()> {
        self.store.put(&self.name, self.bytes);
        Ok(())
    }
}

impl Write for MemoryDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct HeldObject {
    store: MemoryStore,
    name: Mutex<PathBuf>,
    object: Arc<Object>,
}

impl Drop for HeldObject {
    fn drop(&mut self) {
        self.object.is_held.store(false, SeqCst);
    }
}

impl Ranged for HeldObject {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.object.read_at(buffer, at)
    }

    fn size(&self) -> io::Result<u64> {
        self.object.size()
    }
}

impl Held for HeldObject {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        lock(&self.object.bytes).extend_from_slice(bytes);
        Ok(())
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        lock(&self.object.bytes).truncate(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(self.object.identity())
    }

    fn rename(&self, name: &Path) -> Result<()> {
        let mut own = lock(&self.name);
        let mut objects = lock(&self.store.0.objects);
        let object = objects.remove(&*own);
        let object = object.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        objects.insert(name.to_owned(), object);
        name.clone_into(&mut own);
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        let removed = lock(&self.store.0.objects).remove(&*lock(&self.name));
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, SeekFrom};

    use super::super::store::{Positioned, files, use_in_place_of_files};
    use super::*;

    #[test]
    fn what_is_written_is_there_when_it_is_published_and_not_before() {
        let store = MemoryStore::new();
        store.put("x", "old");
        let mut draft = store.create(Path::new("x")).unwrap();
        draft.write_all(b"half").unwrap();
        assert_eq!(store.get("x").unwrap(), b"old");
        drop(draft);
        assert_eq!(store.get("x").unwrap(), b"old", "abandoned");
        let mut draft = store.create(Path::new("x")).unwrap();
        draft.write_all(b"whole").unwrap();
        draft.publish().unwrap();
        assert_eq!(store.get("x").unwrap(), b"whole");
        assert_eq!(store.names(), [Path::new("x")]);
    }

    #[test]
    fn any_range_can_be_read_and_nothing_behind_the_end() {
        let store = MemoryStore::new();
        store.put("x", "0123456789");
        let Opened::Ranged(bytes) = store.open(Path::new("x"), &Stop::new()).unwrap() else {
            panic!("a stream");
        };
        let mut buffer = [0; 4];
        assert_eq!(bytes.read_at(&mut buffer, 3).unwrap(), 4);
        assert_eq!(&buffer, b"3456");
        assert_eq!(bytes.read_at(&mut buffer, 8).unwrap(), 2);
        assert_eq!(bytes.read_at(&mut buffer, 10).unwrap(), 0);
        assert_eq!(bytes.read_at(&mut buffer, u64::MAX).unwrap(), 0);
        assert_eq!(bytes.size().unwrap(), 10);
        let mut reader = Positioned::new(bytes, 9);
        let mut other = reader.clone();
        other.seek(SeekFrom::End(-2)).unwrap();
        let (mut end, mut both) = (String::new(), String::new());
        reader.read_to_string(&mut end).unwrap();
        other.read_to_string(&mut both).unwrap();
        assert_eq!((end.as_str(), both.as_str()), ("9", "89"));
    }

    #[test]
    fn what_one_run_holds_no_other_does_until_it_ends() {
        let store = MemoryStore::new();
        let name = Path::new("state");
        assert!(store.hold(name, false, "busy").unwrap().is_none());
        let held = store.hold_new(name, b"begin", false, "busy").unwrap();
        assert!(store.hold_new(name, b"", false, "busy").is_err());
        let error = store.hold(name, true, "busy").err().unwrap();
        assert_eq!(error.to_string(), "busy");
        held.append(b" and more").unwrap();
        held.cut(7).unwrap();
        held.append(b"!").unwrap();
        assert_eq!(store.get(name).unwrap(), b"begin a!");
        let identity = held.identity().unwrap();
        held.rename(Path::new("done")).unwrap();
        assert_eq!(store.identity(Path::new("done")), Some(identity));
        assert_eq!(store.identity(name), None);
        drop(held);
        let again = store.hold(Path::new("done"), false, "busy").unwrap();
        again.unwrap().remove().unwrap();
        assert!(store.names().is_empty());
    }

    #[test]
    fn a_thread_can_use_it_in_place_of_files() {
        let store = MemoryStore::new();
        let name = Path::new("/no/such/directory/x");
        {
            let _in_place = use_in_place_of_files(Arc::new(store.clone()));
            let mut draft = files().create(name).unwrap();
            draft.write_all(b"x").unwrap();
            draft.publish().unwrap();
        }
        assert_eq!(store.get(name).unwrap(), b"x");
        assert!(files().open(name, &Stop::new()).is_err());
    }
}
