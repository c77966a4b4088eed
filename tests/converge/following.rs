//! `--follow`.
