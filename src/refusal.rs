//! Why the tool does not do something, and what to do about it: one form for all that it refuses.

/// What is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What happened, one line; the server's own words where there are any.
    pub reason: String,
    /// What to do about it, where something can be done.
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal about which nothing can be done.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: None,
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Of a hash: `expiring` of its fields expire, and `place` cannot expire fields.
    pub fn of_field_expiry(expiring: u64, place: &str) -> Self {
        Self::new(format!(
            "{expiring} of its fields expire, and {place} has no expiry of fields"
        ))
        .with_hint("--allow-loss hash-field-ttl writes it with fields that do not expire")
    }
}

/// For callers that handle reason and hint apart.
impl From<Refusal> for (String, Option<String>) {
    fn from(refusal: Refusal) -> Self {
        (refusal.reason, refusal.hint)
    }
}
