//! What happens in the middle.
