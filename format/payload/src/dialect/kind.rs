//! What values are to users.

/// Makes the enum, the list of all and the names.
macro_rules! kinds {
    ($( $(#[$doc:meta])* $kind:ident $name:literal )*) => {
        /// What a value is to a user, as TYPE names it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $( $(#[$doc])* $kind, )* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[ $( Self::$kind, )* ];

            /// The word that TYPE answers; for a module's and an unknown type, one of ours.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$kind => $name, )* }
            }
        }
    };
}

kinds! {
    /// A string: also a bitmap, a HyperLogLog.
    String "string"
    /// A list.
    List "list"
    /// A set.
    Set "set"
    /// A sorted set: also geo positions.
    ZSet "zset"
    /// A hash.
    Hash "hash"
    /// A stream.
    Stream "stream"
    /// A sparse array (Redis 8.8).
    Array "array"
    /// Fields under paths (Valkey 9.2).
    PathHash "pathhash"
    /// A module's own type; TYPE says its name ([`module_name`](crate::payload::module_name)).
    Module "module"
    /// A type byte this version knows nothing of.
    Unknown "unknown"
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
