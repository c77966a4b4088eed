//! Keyed hashes of 128 bits. They are added up where order means nothing, which is safe only
//! because nobody knows the key: it is made anew for every run.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::own_writes::random_hash_keys;

/// A keyed hash, or a sum of them.
pub(crate) type Print = u128;

/// What a hash stands for. The same bytes in another role are another hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A key's name.
    Name = 1,
    /// A string, or the source of a function library.
    Text,
    /// An element of a list, with its position.
    Element,
    /// A member of a set.
    Member,
    /// A member of a sorted set, with its score.
    Scored,
    /// A field of a hash, with its value.
    Field,
    /// A field of a hash, with its expiry.
    FieldExpiry,
    /// An entry of a stream.
    Entry,
    /// Length and last id of a stream.
    Stream,
    /// What streams say of themselves from 7.0 on.
    StreamLate,
    /// A consumer group.
    Group,
    /// What consumer groups say of themselves from 7.0 on.
    GroupLate,
    /// A pending entry of a group.
    Pending,
    /// A consumer.
    Consumer,
    /// An id in a consumer's list.
    ConsumerPending,
    /// A value that only its server can read.
    Opaque,
    /// What all vectors of a set have in common.
    VectorSet,
    /// A vector.
    Vector,
    /// What a stream goes by when entries are sent again (Redis 8.6).
    StreamIdempotency,
    /// Entries of a group that were given back (Redis 8.8).
    GivenBack,
    /// An index of an array, with its value.
    Slot,
    /// The cursor of an array.
    Cursor,
    /// A field under a path, with its value.
    PathField,
    /// Key metadata of a class.
    Metadata,
    /// A time series, or what it says of rules.
    TimeSeries,
}

/// The key of one run.
#[derive(Debug, Clone)]
pub struct Prints {
    fresh: SipHasher13,
    db_salt: u128,
}

impl Default for Prints {
    /// A new key, from the system's randomness.
    fn default() -> Self {
        let ((k0, k1), (high, low)) = (random_hash_keys(), random_hash_keys());
        Self {
            fresh: SipHasher13::new_with_keys(k0, k1),
            // Odd, so that no two databases fall together.
            db_salt: u128::from(high) << 64 | u128::from(low) | 1,
        }
    }
}

impl Prints {
    /// With a given key, for hashes that were saved.
    pub fn with_keys((k0, k1): (u64, u64)) -> Self {
        Self {
            fresh: SipHasher13::new_with_keys(k0, k1),
            // Odd, as above.
            db_salt: u128::from(k0) << 64 | u128::from(k1) | 1,
        }
    }

    /// Begins a hash.
    pub fn begin(&self, role: Role) -> Printing {
        let mut hasher = self.fresh;
        hasher.write_u8(role as u8);
        Printing(hasher)
    }

    /// The hash of a name, in whatever database.
    pub fn name(&self, key: &[u8]) -> Print {
        self.begin(Role::Name).bytes(key).end()
    }

    /// What stands for a key of a database, made of the hash of its name.
    pub fn key(&self, db: u32, name: Print) -> Print {
        name.wrapping_add(self.db_salt.wrapping_mul(u128::from(db) + 1))
    }
}

/// A hash that is being made. Everything of variable length goes in with its length.
pub struct Printing(SipHasher13);

impl Printing {
    /// Some bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.write_u64(bytes.len() as u64);
        self.0.write(bytes);
        self
    }

    /// A number.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.write_u64(number);
        self
    }

    /// Another hash.
    #[must_use]
    pub fn print(mut self, print: Print) -> Self {
        self.0.write_u128(print);
        self
    }

    /// The hash.
    pub fn end(self) -> Print {
        self.0.finish128().as_u128()
    }
}
