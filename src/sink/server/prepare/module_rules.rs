//! Which values of modules may be sent, by the modules that the destination has loaded.

use super::Refused;
use crate::dialect::Feature;
use crate::payload;
use crate::record::Family;
use crate::server::facts::Facts;
use crate::server::{Conn, ServerError};
use crate::sink::server::modules::Modules;

/// The layout is in the last ten bits of a type's id (module.c, moduleTypeEncodeId).
const LAYOUT: u64 = 0x3ff;

/// What is known of the destination's modules.
#[derive(Debug)]
pub(super) struct ModuleRules {
    loaded: Modules,
    /// Whether a value of a module that is not loaded is answered with an error instead of an exit.
    are_safe: bool,
}

impl ModuleRules {
    /// Asks the server.
    ///
    /// # Errors
    /// The connection.
    pub(super) fn ask(conn: &mut Conn, facts: &Facts) -> Result<Self, ServerError> {
        // rdb.c of 6.0 calls exit() for a module type that is not loaded.
        let are_safe =
            facts.family == Family::Valkey || facts.dialect().has(Feature::RefusesModules);
        Ok(Self::new(Modules::ask(conn)?, are_safe))
    }

    pub(super) fn new(loaded: Modules, are_safe: bool) -> Self {
        Self { loaded, are_safe }
    }

    /// The name of the type of a module's value, if its module may be loaded and trying does no
    /// harm.
    pub(super) fn may_try(&self, value: &[u8]) -> Option<String> {
        let name = payload::module_name(type_id(value)?);
        (self.are_safe && self.loaded.may_define(&name)).then_some(name)
    }

    /// Why a module's value would end the destination, if it is known to.
    pub(super) fn danger(&self, value: &[u8]) -> Option<Refused> {
        let id = type_id(value)?;
        let name = payload::module_name(id);
        let layout = id & LAYOUT;
        let safe = self.loaded.is_hurt_by(&name, layout)?;
        Some((
            format!(
                "it is of {name} in layout {layout}, and the module is known to take layouts up to \
                 {safe}: another one would crash the server"
            ),
            Some(
                "a newer module at the destination may accept it; --no-check sends it all the same"
                    .to_owned(),
            ),
        ))
    }
}

/// The id of the type of a module's value, which begins with the type byte.
fn type_id(value: &[u8]) -> Option<u64> {
    payload::walk::length(&mut payload::Slice::new(&value[1..])).ok()
}
