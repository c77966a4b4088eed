//! Archives as people handle them: rescued, looked into, joined, imported in pieces.

mod archives;
mod export_resume;
mod extract;
mod hostile;
mod incomplete;
mod max_value;
mod parallel;
mod resume;
mod salvage;
mod selected;
mod standing;
