//! Versions: of this build, and of the JSON that it prints.

/// The commit this was built from, or empty.
pub(crate) const GIT: &str = match option_env!("REDIS_MIGRATE_GIT") {
    Some(hash) => hash,
    None => "",
};

/// Version of the JSON that is printed; fields are only added within one.
pub const SCHEMA_VERSION: u32 = 1;
