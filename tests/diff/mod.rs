//! `diff`, `verify --against` and `--verify`: what differs is found, all of it and nothing else.

mod bounds;
mod classes;
mod clusters;
mod files;
mod found;
mod libraries;
mod meeting;
mod pairs;
mod plants;
mod proofs;
mod scopes;
mod unread;
mod unsteady;
mod verifying;
